"""What a device says of its memory: in a container, and on a GPU, where its words are made up here."""

from pathlib import Path

import pytest
import torch

from tests.trainer.test_estimate import LLAMA_8B
from tests.trainer.training import make_spec
from trainer import device as devices
from trainer.device import Device
from trainer.estimate import PROCESS_BYTES, Estimate, Hardware, ObservedPeak, calibrated, estimate

GIB = 1 << 30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A card of 80 GiB: 3 are torch's, of which 2 are in use, and the driver's context has taken its part."""
    told = {
        "mem_get_info": (77 * GIB - round(PROCESS_BYTES["cuda"]), 80 * GIB),
        "memory_reserved": 3 * GIB,
        "memory_allocated": 2 * GIB,
        "max_memory_reserved": 5 * GIB,
    }
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda place, value=value: value)
    return Device(torch.device("cuda", 0), torch.bfloat16)


def predicted(device: str) -> Estimate:
    spec = make_spec(Path("base"), Path("rows.jsonl"))
    return estimate(spec, LLAMA_8B, rows=100, tokens=20_000, on=Hardware(device))


def test_all_of_a_card_is_what_is_free_and_what_this_process_holds(gpu: Device) -> None:
    """Its context too: the estimate has an item for that, and would else take it off a second time."""
    assert gpu.free_bytes() + gpu.held_bytes() == 80 * GIB


def test_a_peak_on_a_gpu_is_held_to_what_was_foretold_of_it() -> None:
    """A job that took just what was predicted leaves the next estimate as it is: the peak has no context in it."""
    found = predicted("cuda")
    assert (
        found.in_peak
        == found.expected - PROCESS_BYTES["cuda"]
        == sum(one.expected for one in found.items if one.in_peak)
    )
    assert calibrated(found, [ObservedPeak(found.in_peak, found.in_peak)]).expected == found.expected
    moved = calibrated(found, [ObservedPeak(found.in_peak, round(1.5 * found.in_peak))] * 3)
    assert moved.expected == pytest.approx(1.5 * found.in_peak + PROCESS_BYTES["cuda"], abs=10), "a context stays one"
    assert predicted("cpu").in_peak == predicted("cpu").expected


def test_files_at_hand_are_no_memory_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of a container are taken, but two thirds of that by files that Linux gives up when asked."""
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    whole = devices._free_ram()
    (tmp_path / "memory.max").write_text(f"{GIB // 4}\n")
    (tmp_path / "memory.current").write_text(f"{GIB // 4 * 3 // 4}\n")
    (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {GIB // 8}\nactive_file 9\n")
    assert devices._free_ram() == GIB // 16 + GIB // 8 < whole
    (tmp_path / "memory.stat").write_text("anon 7\n")
    assert devices._free_ram() == GIB // 16
    (tmp_path / "memory.max").write_text("max\n")
    assert devices._free_ram() > GIB // 4
