"""Which number format a device computes in when nobody chooses one, and that training learns the same in each."""

from pathlib import Path

import pytest
import torch

from tests.trainer.seq2seq_bases import make_seq2seq
from tests.trainer.test_estimate import LLAMA_8B
from tests.trainer.training import Training, make_spec
from trainer import auto_dtype
from trainer.device import find_device
from trainer.errors import Stopped
from trainer.estimate import Estimate, Hardware, estimate
from trainer.events import Log, Memory
from trainer.spec import Dtype, ModelSpec, TrainSpec


@pytest.mark.parametrize(
    ("cpuinfo", "dtype"),
    [
        ("processor : 0\nflags : fpu sse2 avx512_bf16 avx2\n", torch.bfloat16),
        ("processor : 0\nflags : fpu amx_bf16\n", torch.bfloat16),
        ("processor : 0\nflags : fpu sse2 avx2 avx512f\n", torch.float32),
        ("processor : 0\nFeatures : bf16\n", torch.float32),
        (None, torch.float32),
    ],
    ids=["avx512", "amx", "neither", "no x86", "no such file"],
)
def test_a_processor_takes_bfloat16_where_it_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, dtype: torch.dtype
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(auto_dtype, "Path", lambda path: tmp_path / Path(path).name)
    assert find_device().dtype == find_device("auto").dtype == dtype
    assert find_device("float16").dtype == torch.float16, "what is asked for is taken"


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((8, 6), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_a_gpu_takes_bfloat16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    """No GPU is needed: what one would say of itself is made up here."""
    told = {"is_available": True, "current_device": 0, "get_device_capability": capability}
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda *place, value=value: value)
    found = find_device()
    assert (found.place, found.dtype) == (torch.device("cuda", 0), dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_bits_learn_the_same(base: Path, rows: Path, tmp_path: Path, dtype: str) -> None:
    """Losses as in float32 but for rounding, and falling; gradients of float16 neither vanish nor overflow."""
    optim = {"max_steps": 6, "epochs": 10.0}
    whole, half = (
        Training(make_spec(base, rows, model={"dtype": one}, optim=optim, data={"holdout": 0.0}), tmp_path / one).run()
        for one in ("float32", dtype)
    )
    assert half.losses == pytest.approx(whole.losses, rel=0.01) and half.losses != whole.losses
    assert half.losses[-1] < 0.95 * half.losses[0]
    warned = [one.text for one in half.of(Log) if one.level == "warning" and "float16" in one.text]
    slow = dtype == "float16" and find_device().place.type == "cpu"
    assert bool(warned) == slow


def test_a_run_goes_on_in_the_format_it_began_in(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` is another one on another machine; the run is the same one to the last bit."""
    spec = make_spec(base, rows, model={"dtype": "auto"}, optim={"max_steps": 6, "epochs": 10.0})
    monkeypatch.setattr(auto_dtype, "on_cpu", lambda: "bfloat16")
    whole = Training(spec, tmp_path / "whole").run()
    first = Training(spec, tmp_path / "first", stop_at=3)
    with pytest.raises(Stopped):
        first.run()
    monkeypatch.setattr(auto_dtype, "on_cpu", lambda: "float32")
    second = Training(spec, tmp_path / "second").run(resume=tmp_path / "first")
    assert first.losses + second.losses == whole.losses
    assert first.measured + second.measured == whole.measured
    assert Training(spec, tmp_path / "other").run().losses != whole.losses


def test_memory_is_estimated_in_the_format_of_the_device(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run foretells of itself. So small a base takes more in bfloat16, by the code that is compiled for it."""
    foretold = {}
    for name, asked in (("float32", "auto"), ("bfloat16", "auto"), ("bfloat16", "float32")):
        monkeypatch.setattr(auto_dtype, "on_cpu", lambda name=name: name)
        spec = make_spec(base, rows, model={"dtype": asked}, optim={"max_steps": 1})
        run = Training(spec, tmp_path / f"{name}-{asked}").run()
        foretold[name, asked] = run.of(Memory)[-1].foretold_bytes
    assert foretold["float32", "auto"] == foretold["bfloat16", "float32"] != foretold["bfloat16", "auto"]


def test_auto_is_what_the_machine_computes_in() -> None:
    """The weights of an unquantised 8B fit a 24 GB card in bfloat16, and not in the float32 of a card before Ampere."""

    def told(dtype: Dtype, auto: Dtype) -> Estimate:
        spec = TrainSpec(model=ModelSpec(base="-", quantization="none", dtype=dtype))
        on = Hardware("cuda", 24_000_000_000, auto_dtype=auto)
        return estimate(spec, LLAMA_8B, rows=1000, tokens=200_000, on=on)

    old, new = told("auto", "float32"), told("auto", "bfloat16")
    assert new.high < 24e9 < old.low
    assert (old, new) == (told("float32", "bfloat16"), told("bfloat16", "float32"))


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_layers_that_stay_in_float32_learn_beside_float16(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, quantization: str
) -> None:
    """transformers keeps T5's `wo` in float32 under float16, and its residual stream follows."""
    monkeypatch.setattr("trainer.model.DEQUANTIZED_SHARE", 0.0)  # unpacked they are plain layers, as of none
    folder = make_seq2seq(tmp_path / "base", family)
    lost = []
    for dtype in ("float32", "float16"):
        spec = make_spec(
            folder,
            rows,
            model={"dtype": dtype, "quantization": quantization},
            optim={"max_steps": 2, "learning_rate": 1e-3},
            evaluation={"probes": ["What is 3?"], "forgetting": False},
        )
        training = Training(spec, tmp_path / dtype).run()
        lost.append([*training.losses, *(one.loss for one in training.measured)])
    assert lost[1] == pytest.approx(lost[0], rel=0.02)
