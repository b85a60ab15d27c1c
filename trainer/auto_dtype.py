"""What `model.dtype: auto` is on a device: bfloat16 where it is fast, else float32. No torch."""

from pathlib import Path

from trainer.spec import Dtype

CUDA_BFLOAT16 = (8, 0)  # older GPUs emulate it, slower than float32
CPU_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def on_gpu(capability: tuple[int, int]) -> Dtype:
    """For a GPU of this CUDA compute capability."""
    return "bfloat16" if capability >= CUDA_BFLOAT16 else "float32"


def on_cpu() -> Dtype:
    """For the processor of this machine."""
    return "bfloat16" if CPU_BFLOAT16 & _cpu_flags() else "float32"


def _cpu_flags() -> set[str]:
    """The CPU's feature flags from /proc/cpuinfo; empty where it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
