"""Which number format a device computes in when nobody chooses one, and that training learns the same in each."""

from pathlib import Path

import pytest
import torch

from tests.trainer.seq2seq_bases import make_seq2seq
from tests.trainer.training import Training, make_spec
from trainer import device as devices
from trainer.device import find_device
from trainer.events import Log


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
    monkeypatch.setattr(devices, "Path", lambda path: tmp_path / Path(path).name)
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
