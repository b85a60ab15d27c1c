"""Adapters that PEFT wrote elsewhere, packed as people send them, and the base models they are for."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from django.core.files.uploadedfile import SimpleUploadedFile

from tests.make import make_base
from tests.tiny import make_tiny_base
from tests.trainer.adapters import make_adapter
from trainer.adapter_layers import layers_of
from webapp.adapters.base_parts import parts_file
from webapp.adapters.models import BaseModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@cache
def base_folder() -> Path:
    """Under the name that adapters made on it remember."""
    return make_tiny_base(Path(mkdtemp(prefix="elsewhere-")) / "tiny-llama")


@cache
def known_layers() -> str:
    return json.dumps(layers_of(base_folder()).to_dict())


@cache
def adapter_folder(seed: int = 1) -> Path:
    """As PEFT's save_pretrained leaves it. Nobody changes it."""
    return make_adapter(
        base_folder(), base_folder().parent / f"adapter-{seed}", seed=seed, target_modules=["q_proj", "v_proj"]
    )


def tiny_base(name: str = "Tiny-Llama", *, layers: bool = True, **values: object) -> BaseModel:
    """Its row; with `layers` as after an earlier import, so that no child must load torch."""
    base = make_base(name=name, path=base_folder(), **values)
    if layers:
        file = parts_file(base)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(known_layers())
    return base


def files_of(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(folder.iterdir())}


def changed_config(folder: Path, **values: object) -> bytes:
    return json.dumps(json.loads((folder / CONFIG).read_text()) | values).encode()


def zipped(files: Mapping[str, bytes], *, top: str = "my-adapter/", compress: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return out.getvalue()


def tarred(files: Mapping[str, bytes], *, mode: str = "w:gz", top: str = "./my-adapter/") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]  # any of its modes
        for name, data in files.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sent(name: str, data: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data)
