"""What answers are compared with is scored by all processes together: each its share, and the same values for all."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny_base
from tests.trainer.test_objective import moved
from tests.trainer.test_several_gpus import finish, start
from tests.trainer.test_sharded_base import in_two
from tests.trainer.training import make_judged, make_pairs, make_spec, write_lines
from trainer.data import LabelledAnswer, Trainable, load_dataset
from trainer.model import AdaptedModel, load_adapted
from trainer.objective import REFERENCE_PASS_TOKENS, objective_of
from trainer.preparation import prepare
from trainer.ranks import Ranks
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

MAKERS = {"dpo": make_pairs, "kto": make_judged}
BY = -0.03  # that makes other answers likelier here, so that the kl_estimate is above zero

SCORE = """
import json, sys
from pathlib import Path
from tests.trainer.test_shared_scoring import score
from trainer.ranks import join_ranks, leave_ranks
from trainer.spec import TrainSpec

ranks = join_ranks()
told = score(TrainSpec.from_dict(json.loads(Path(sys.argv[1]).read_text())), ranks)
Path(sys.argv[2], str(ranks.rank)).write_text(json.dumps(told))
leave_ranks(ranks)
"""


def score(spec: TrainSpec, ranks: Ranks) -> dict[str, Any]:
    """References and kl_estimates of one process, and how many tokens went through its model for the references."""
    base = Path(spec.model.base)
    model = load_adapted(spec, base, lambda event: None, ranks=ranks)
    dataset = load_dataset(spec, Renderer.load(base), lambda event: None)
    objective, passes = objective_of(spec, model, ranks), list[int]()
    genuine = AdaptedModel.states_of

    def counted(self: AdaptedModel, batch: Any) -> Any:
        passes.append(batch.ids.numel())
        return genuine(self, batch)

    AdaptedModel.states_of = counted  # type: ignore[method-assign]
    try:
        objective.prepare(dataset, before_pass=lambda number, of: None)
        tokens, rows = sum(passes), [*dataset.train, *dataset.holdout]
        move(model, BY)
        kl_estimates = [objective.kl_estimate(window, budget=128) for window in (dataset.train[:5], dataset.train[:1])]
    finally:
        AdaptedModel.states_of = genuine  # type: ignore[method-assign]
    return {"references": references(rows), "tokens": tokens, "kl_estimates": kl_estimates}


def move(model: AdaptedModel, by: float) -> None:
    with torch.no_grad():
        for weight in model.lora.values():
            weight.add_(by)


def references(rows: list[Trainable]) -> list[float]:
    mismatches = [row.mismatch for row in rows if isinstance(row, LabelledAnswer) and row.mismatch]
    return [item.reference_logprob for row in [*rows, *mismatches] for item in row.sequences]


@pytest.mark.parametrize(("method", "shard"), [("dpo", "never"), ("kto", "never"), ("kto", "always")])
def test_two_processes_score_half_each_and_know_all(base: Path, tmp_path: Path, method: str, shard: str) -> None:
    spec = make_spec(base, MAKERS[method](tmp_path, count=23), data={"method": method})
    alone, file = score(spec, Ranks()), tmp_path / "spec.json"
    both = dataclasses.replace(spec, model=dataclasses.replace(spec.model, gpus=2, shard=shard))
    file.write_text(json.dumps(both.to_dict()))
    assert in_two(SCORE, file, tmp_path) == [0, 0]
    one, other = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert one["references"] == other["references"] and one["kl_estimates"] == other["kl_estimates"]
    assert one["references"] == pytest.approx(alone["references"], rel=1e-5)
    assert one["kl_estimates"] == pytest.approx(alone["kl_estimates"], rel=1e-4, abs=1e-6)
    assert all(alone["references"]) and bool(alone["kl_estimates"][0]) is (method == "kto")
    for told in (one, other):
        assert told["tokens"] < 0.65 * alone["tokens"]


class Meetings(Ranks):
    """Alone, counting how often it meets others."""

    count = 0

    def totals(self, *values: float) -> list[float]:
        Meetings.count += 1
        return super().totals(*values)


def test_a_window_that_is_made_again_meets_nobody_a_second_time(base: Path, tmp_path: Path) -> None:
    """One process whose memory does not hold a pass makes its part again, and the others do not."""
    spec = make_spec(base, make_judged(tmp_path), data={"method": "kto"})
    model, rows, _ = moved(spec, base)
    objective = objective_of(spec, model, Meetings())
    Meetings.count = 0
    first = objective.kl_estimate(rows[:4], budget=200)
    assert objective.kl_estimate(rows[:4], budget=100) == first and Meetings.count == 1
    objective.kl_estimate(rows[4:8], budget=100)
    assert Meetings.count == 2
    move(model, BY)
    objective.kl_estimate(rows[4:8], budget=100)
    assert Meetings.count == 3, "after a step it is another one"


def test_processes_of_a_sharded_base_score_with_unequal_numbers_of_passes(tmp_path: Path) -> None:
    """One long pair and several short ones: three passes more in one process, which gather layers like all others."""
    base = make_tiny_base(tmp_path / "base", context=4096)
    word = "ab cd " * 90
    long, short = word * 4, word
    rows = [{"prompt": "0", "chosen": long, "rejected": long + "no"}]
    rows += [{"prompt": str(number), "chosen": short, "rejected": short + "no"} for number in range(1, 9)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    data = {"method": "dpo", "max_seq_length": 2048, "holdout": 0.0}
    spec = make_spec(base, path, data=data, model={"gpus": 2, "shard": "always"}, optim={"max_steps": 1})
    dataset = load_dataset(spec, Renderer.load(base), lambda event: None)
    model = load_adapted(make_spec(base, path), base, lambda event: None)
    passes = [len(model.passes(Ranks(rank, 2).share(dataset.train), REFERENCE_PASS_TOKENS["cpu"])) for rank in range(2)]
    assert abs(passes[0] - passes[1]) > 1
    code, told, complained = finish(start(spec, tmp_path / "out"))
    assert code == 0, complained


def test_each_process_is_asked_to_end_as_often_as_the_others(base: Path, tmp_path: Path) -> None:
    """For they agree on it: the one with fewer passes is asked before those that it need not make, too."""
    spec = make_spec(base, make_pairs(tmp_path, count=2), data={"method": "dpo", "holdout": 0.0})
    model = load_adapted(spec, base, lambda event: None)
    dataset = load_dataset(spec, Renderer.load(base), lambda event: None)
    asked: dict[int, list[tuple[int, int]]] = {rank: [] for rank in range(3)}

    class Silent(Ranks):
        def totals(self, *values: float) -> list[float]:
            return list(values)

    for rank, told in asked.items():
        objective_of(spec, model, Silent(rank, 3)).prepare(
            dataset, before_pass=lambda number, of, told=told: told.append((number, of))
        )
    assert asked[0] == asked[1] == asked[2] == [(1, 1)]


def test_references_do_not_follow_the_passes_of_a_step(base: Path, tmp_path: Path) -> None:
    """After a lack of memory these are halved, and a resumed run must compare with the same numbers to the last bit."""
    rows, found = make_judged(tmp_path), []
    for tokens in (128, 4096):
        spec = make_spec(base, rows, data={"method": "kto"}, optim={"micro_batch_tokens": tokens})
        out = tmp_path / str(tokens)
        out.mkdir()
        run = prepare(spec, out=out, resume=None, emit=lambda event: None, should_stop=lambda: False, ranks=Ranks())
        found.append(references([*run.dataset.train, *run.dataset.holdout]))
    assert found[0] == found[1]
