"""What must not become an adapter: hostile archives, other kinds of adapters, weights that are not exactly those."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from tests.adapters.elsewhere import (
    CONFIG,
    WEIGHTS,
    adapter_folder,
    base_folder,
    changed_config,
    files_of,
    known_layers,
    tarred,
    zipped,
)
from trainer.adapter_import import import_folder, unpack_sent
from trainer.base_parts import BaseParts
from trainer.errors import TrainerError

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


LIMIT = 100 << 20
Import = Callable[..., str]


@pytest.fixture
def problem(tmp_path: Path) -> Import:
    """What the steps of an import say to files of these names; the children that people's imports run do the same."""

    def find(limit: int = LIMIT, **files: bytes) -> str:
        sent = tmp_path / "sent"
        sent.mkdir()
        for number, data in enumerate(files.values()):
            (sent / str(number)).write_bytes(data)
        (sent / "names.json").write_text(json.dumps(list(files)))
        (tmp_path / "parts.json").write_text(known_layers())
        try:
            unpack_sent(sent, tmp_path, limit=limit)
            import_folder(tmp_path / "adapter", base_folder(), BaseParts.read(tmp_path / "parts.json"))
        except TrainerError as error:
            assert error.code == "user_config"
            assert error.fix
            return f"{error.text} {error.fix}"
        return ""

    return find


def tar_of(*infos: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for info, data in infos:
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def link_in_tar() -> bytes:
    info = tarfile.TarInfo(WEIGHTS)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return tar_of((tarfile.TarInfo(CONFIG), files_of(adapter_folder())[CONFIG]), (info, b""))


def device_in_tar() -> bytes:
    info = tarfile.TarInfo(WEIGHTS)
    info.type = tarfile.CHRTYPE
    return tar_of((info, b""))


def link_in_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(WEIGHTS)
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def twice_in_zip() -> bytes:
    out = io.BytesIO()
    with pytest.warns(UserWarning), zipfile.ZipFile(out, "w") as archive:
        for _ in range(2):
            archive.writestr(CONFIG, b"{}")
    return out.getvalue()


def pax_bomb() -> bytes:
    """A header that says it is gigabytes long; zeros follow that pack to nothing."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 7 << 30
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(info.tobuf(tarfile.USTAR_FORMAT))]
    zeros = bytes(1 << 20)
    parts += [packer.compress(zeros) for _ in range(96)]
    return b"".join([*parts, packer.flush()])


GOOD = {CONFIG: b"{}", WEIGHTS: b"x"}
ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no archive": (lambda: b"hello", "neither a ZIP nor a TAR archive"),
    "an empty file": (lambda: b"", "neither a ZIP nor a TAR archive"),
    "an empty zip": (lambda: zipped({}), "the ZIP archive is empty"),
    "a cut zip": (lambda: zipped(files_of(adapter_folder()))[:3000], "damaged"),
    "a cut tar.gz": (lambda: tarred(files_of(adapter_folder()))[:3000], "cut off"),
    "a flipped byte": (lambda: _flipped(zipped(files_of(adapter_folder()))), "damaged"),
    "a way out": (lambda: zipped({"../../" + CONFIG: b"{}"}, top=""), "leads outside of it"),
    "an absolute name": (lambda: zipped({"/etc/" + CONFIG: b"{}"}, top=""), "leads outside of it"),
    "a drive": (lambda: tarred({"C:\\x\\" + CONFIG: b"{}"}, top=""), "leads outside of it"),
    "backslashes": (lambda: tarred({"..\\" + CONFIG: b"{}"}, top="a\\"), "leads outside of it"),
    "a link in a zip": (link_in_zip, "a link"),
    "a link in a tar": (link_in_tar, "a link or a device"),
    "a device": (device_in_tar, "a link or a device"),
    "a name twice": (twice_in_zip, "twice"),
    "no config": (lambda: zipped({WEIGHTS: b"x"}), f"There is no {CONFIG} in it"),
    "no weights": (lambda: zipped({CONFIG: b"{}"}), f"There is no {WEIGHTS} beside"),
    "two adapters": (
        lambda: zipped({f"{name}/{file}": b"{}" for name in "ab" for file in GOOD}),
        "It contains several adapters",
    ),
    "a pickle beside": (lambda: zipped({CONFIG: b"{}", "adapter_model.bin": b"x"}), "is a pickle"),
    "many files": (lambda: zipped({str(n): b"" for n in range(1001)}), "more than 1,000 files"),
    "many files in a tar": (lambda: tarred({str(n): b"" for n in range(1001)}), "more than 1,000 files"),
    "a huge config": (lambda: zipped({CONFIG: bytes(3 << 20), WEIGHTS: b"x"}, compress=True), "is larger than 1 MB"),
    "a bomb": (lambda: zipped({WEIGHTS: bytes(80 << 20)}, compress=True), "unpacks to far more than its size"),
    "a bomb in a tar": (lambda: tarred({"x": bytes(80 << 20)}), "unpacks to far more than its size"),
    "a header bomb": (pax_bomb, "unpacks to far more than its size"),
}


def _flipped(data: bytes) -> bytes:
    place = data.index(b"lora_A") + 4000
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("what", ARCHIVES)
def test_bad_archives(what: str, problem: Import) -> None:
    make, text = ARCHIVES[what]
    said = problem(**{"a.archive": make()})
    assert text in said
    assert "/tmp" not in said


def test_more_than_may_be_unpacked(problem: Import) -> None:
    packed = zipped(files_of(adapter_folder()) | {WEIGHTS: bytes(200_000)}, compress=True)
    assert "unpacks to more than may be uploaded" in problem(limit=100_000, **{"a.zip": packed})


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (PWNED,)


PWNED = Path(mkdtemp()) / "pwned"


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter.pt", "a.archive", "a.zip"])
def test_pickles_are_not_opened(name: str, problem: Import) -> None:
    said = problem(**{name: pickle.dumps(Evil())})
    assert "is a pickle" in said
    assert "save_pretrained" in said
    assert not PWNED.exists()


@pytest.mark.parametrize("packed", [pickle.dumps(Evil()), zipped({"data.pkl": pickle.dumps(Evil())}, top="archive/")])
def test_pickles_under_another_name(packed: bytes, problem: Import) -> None:
    """torch.save writes a zip of a pickle."""
    config = files_of(adapter_folder())[CONFIG]
    assert "is a pickle under another name" in problem(**{CONFIG: config, WEIGHTS: packed})
    assert not PWNED.exists()


def test_a_torch_file_is_told(problem: Import) -> None:
    assert "is a pickle" in problem(**{"weights.zip": zipped({"data.pkl": pickle.dumps(Evil())}, top="archive/")})


def test_a_file_that_is_no_part_of_an_adapter(problem: Import) -> None:
    files = files_of(adapter_folder())
    said = problem(**{CONFIG: files[CONFIG], "model.safetensors": files[WEIGHTS]})
    assert "'model.safetensors' is not an adapter file" in said


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "IA3"}, "an adapter of the kind IA3"),
    ({"peft_type": "PREFIX_TUNING"}, "an adapter of the kind PREFIX_TUNING"),
    ({"peft_type": None}, "no adapter"),
    ({"modules_to_save": ["lm_head"]}, "lacks 'base_model.model.lm_head.weight'"),
    ({"modules_to_save": ["self_attn"]}, "not a single layer"),
    ({"modules_to_save": ["model"]}, "not a single layer"),
    ({"modules_to_save": ["(a+)+$"]}, "modules_to_save"),
    ({"trainable_token_indices": [1]}, "lacks"),
    ({"trainable_token_indices": [100_000]}, "a token that the base lacks"),
    ({"trainable_token_indices": {"embed_tokens": [1]}}, "trainable_token_indices"),
    ({"auto_mapping": {"parent_library": "os"}}, "auto_mapping"),
    ({"corda_config": {"cache_file": "/etc/passwd"}}, "corda_config"),
    ({"layer_replication": [[0, 2000]]}, "layer_replication"),
    ({"exclude_modules": "(a+)+$"}, "exclude_modules"),
    ({"brand_new": 1}, "brand_new"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"bias": "some"}, "bias is"),
    ({"target_modules": ["(a+)+$"]}, "target_modules"),
    ({"target_modules": "(a+)+$", "r": 10**9}, "the rank r"),
    ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern"),
    ({"target_modules": ["no_such_proj"]}, "name no layer of the base model"),
    ({"r": 8}, "has the shape"),
    ({"use_dora": True}, "lacks"),
    ({"lora_alpha": float("nan")}, "lora_alpha"),
]


@pytest.mark.parametrize(("values", "text"), CONFIGS, ids=lambda one: str(one)[:40])
def test_bad_configs_are_refused_by_name(values: dict[str, Any], text: str, problem: Import) -> None:
    files = files_of(adapter_folder()) | {CONFIG: changed_config(adapter_folder(), **values)}
    assert text in problem(**{"a.zip": zipped(files)})


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_a_config_that_is_no_object(raw: bytes, problem: Import) -> None:
    assert CONFIG in problem(**{"a.zip": zipped(files_of(adapter_folder()) | {CONFIG: raw})})


def changed_weights(change: Callable[[dict[str, Any]], object]) -> bytes:
    tensors = load(files_of(adapter_folder())[WEIGHTS])
    change(tensors)
    return save(tensors)


def poison(value: float) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors[f"{Q_PROJ}.lora_B.weight"].reshape(-1).__setitem__(3, value)


def with_header(header: dict[str, Any], size: int) -> bytes:
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(size)


def told(**changed: Any) -> bytes:
    """The real header with one entry changed, over as many bytes as before."""
    raw = files_of(adapter_folder())[WEIGHTS]
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header[f"{Q_PROJ}.lora_A.weight"] |= changed
    return with_header(header, len(raw) - 8 - length)


BAD_WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "the base's head": (
        lambda: changed_weights(lambda t: t.update({"base_model.model.lm_head.weight": np.zeros((4, 4), "f4")})),
        "which does not belong to this adapter",
    ),
    "a missing half": (lambda: changed_weights(lambda t: t.pop(f"{Q_PROJ}.lora_B.weight")), "lacks"),
    "another width": (
        lambda: changed_weights(lambda t: t.update({f"{Q_PROJ}.lora_A.weight": np.zeros((4, 32), "f4")})),
        "has the shape [4, 32], not [4, 64]",
    ),
    "whole numbers": (
        lambda: changed_weights(lambda t: t.update({f"{Q_PROJ}.lora_A.weight": np.zeros((4, 64), "i4")})),
        "is stored as I32",
    ),
    "NaN": (lambda: changed_weights(poison(float("nan"))), "not finite"),
    "infinity": (lambda: changed_weights(poison(float("inf"))), "not finite"),
    "a huge value": (lambda: changed_weights(poison(1e30)), "far too large"),
    "no safetensors": (lambda: b"hello", "is not a safetensors file"),
    "an endless header": (lambda: struct.pack("<Q", 1 << 62) + b"{}", "is not a safetensors file"),
    "a header of nothing": (lambda: with_header({}, 0), "is not a safetensors file"),
    "bytes that are not there": (lambda: files_of(adapter_folder())[WEIGHTS][:-7], "cut off"),
    "bytes of another": (lambda: told(data_offsets=[1024, 2048]), "damaged"),
    "bytes before the start": (lambda: told(data_offsets=[-1024, 0]), "damaged"),
    "a negative shape": (lambda: told(shape=[-4, -64]), "damaged"),
    "a shape of words": (lambda: told(shape=["4", 64]), "damaged"),
    "no shape": (lambda: told(shape=None), "damaged"),
}


@pytest.mark.parametrize("what", BAD_WEIGHTS)
def test_bad_weights(what: str, problem: Import) -> None:
    make, text = BAD_WEIGHTS[what]
    files = files_of(adapter_folder()) | {WEIGHTS: make()}
    assert text in problem(**{"a.zip": zipped(files)})


HEAD = "base_model.model.lm_head.weight"


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (np.zeros((4, 4), "f4"), "has the shape [4, 4]"),
        (np.nan, "not finite"),
        (1e5, "far too large"),
        (0.5, ""),
    ],
    ids=["shape", "NaN", "huge", "sound"],
)
def test_modules_that_learnt_whole_are_held_to_the_base_too(head: Any, text: str, problem: Import) -> None:
    if isinstance(head, float):
        head = np.full(json.loads(known_layers())["modules"]["lm_head"]["weight"], head, "f4")
    config = changed_config(adapter_folder(), modules_to_save=["lm_head"])
    weights = changed_weights(lambda tensors: tensors.update({HEAD: head}))
    said = problem(**{"a.zip": zipped(files_of(adapter_folder()) | {CONFIG: config, WEIGHTS: weights})})
    assert text in said
    assert bool(said) == bool(text)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.5, float("nan"), float("-inf")])
def test_half_precision_is_looked_at_too(dtype: torch.dtype, value: float, problem: Import) -> None:
    tensors = load_torch(files_of(adapter_folder())[WEIGHTS])
    tensors[f"{Q_PROJ}.lora_B.weight"][1, 2] = value
    raw = save_torch({name: tensor.to(dtype) for name, tensor in tensors.items()})
    said = problem(**{"a.zip": zipped(files_of(adapter_folder()) | {WEIGHTS: raw})})
    assert ("not finite" in said) == (value != 0.5)


@pytest.mark.parametrize("way", [zipped, tarred])
def test_a_sound_one_has_no_problem(way: Callable[[dict[str, bytes]], bytes], problem: Import) -> None:
    assert problem(**{"a": way(files_of(adapter_folder()))}) == ""
