"""Losses of a tiny model to four digits: any change to the rows' order, the loss, the gradient or AdamW moves them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.trainer.training import Training, make_judged, make_pairs, make_rows, make_spec


class Golden(NamedTuple):
    """Losses of six steps, and on the held-out rows before and after them."""

    rows: Callable[[Path], Path]
    steps: tuple[float, ...]
    held_out: tuple[float, ...]


GOLDEN = {
    "sft": Golden(make_rows, (6.1384, 5.9146, 5.4922, 5.2878, 5.0821, 4.9536), (6.0855, 5.0764)),
    "dpo": Golden(make_pairs, (0.6931, 0.4235, 0.2255, 0.1030, 0.1009, 0.1073), (0.6931, 0.0317)),
    "kto": Golden(make_judged, (0.5000, 0.4998, 0.3973, 0.3794, 0.3288, 0.2941), (0.5000, 0.2827)),
}


@pytest.mark.parametrize("method", GOLDEN)
def test_losses_are_what_they_were(base: Path, tmp_path: Path, method: str) -> None:
    golden = GOLDEN[method]
    spec = make_spec(base, golden.rows(tmp_path), data={"method": method}, optim={"max_steps": 6})
    run = Training(spec, tmp_path / "out").run()
    assert run.losses == pytest.approx(golden.steps, abs=1e-4)
    assert [one.loss for one in run.measured] == pytest.approx(golden.held_out, abs=1e-4)
