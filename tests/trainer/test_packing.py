"""Rows end to end in one pass: each scores and teaches as it does alone, and a family that mixes them is padded."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.trainer.families import FAMILIES, make_family
from tests.trainer.training import Training, make_rows, make_spec
from trainer.data import Item, PreferencePair
from trainer.device import Device
from trainer.loss import token_losses
from trainer.micro_batch import MicroBatch, micro_batches
from trainer.model import AdaptedModel, _checked, eval_mode, load_adapted
from trainer.packing import supports_packing
from trainer.prefixes import Segment, spans
from trainer.short_attention import NAME

PADDED = {
    "bloom": "positions are told from a mask",
    "falcon": "it builds masks of its own",
    "gpt_oss": "attention with sinks",
    "mistral": "its window is shorter than the rows may be",
    "gemma2": "capped scores",
    "gemma3_text": "its window is shorter than the rows may be",
}


def load(folder: Path, **parts: dict[str, Any]) -> AdaptedModel:
    return load_adapted(make_spec(folder, Path("rows"), **parts), folder, lambda event: None)


def make_items(*lengths: int) -> list[Item]:
    """Rows of random tokens, two thirds of which are learnt."""
    torch.manual_seed(5)
    return [make_item(torch.randint(3, 384, (length + 1,)).tolist()) for length in lengths]


def make_item(ids: list[int]) -> Item:
    return Item(array("i", ids), bytes(int(at % 3 > 0) for at in range(len(ids))))


def make_alike_items() -> list[Item]:
    """Rows that begin alike, some for longer than others; one that another goes on from; one that is there twice."""
    torch.manual_seed(6)
    words = torch.randint(3, 384, (400,)).tolist()
    begin, further, other = words[:20], words[20:50], words[50:70]
    rows = [begin + words[70:170], begin + further + words[170:175], begin + further + words[180:183]]
    rows += [begin + further + words[184:186] + words[:140], other + words[190:195], other, begin + words[300:380]]
    return [make_item(row) for row in [*rows, rows[1], words[390:394]]]


def taught(model: AdaptedModel, passes: list[MicroBatch]) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
    """Losses of each row's tokens, by the row's length, and the gradient of all of them together."""
    losses: dict[int, Tensor] = {}
    for batch in passes:
        found = token_losses(model.states_of(batch), batch, model.head)
        found.sum().backward()  # type: ignore[no-untyped-call]
        for item, some in zip(
            batch.items, torch.split(found, [one.trained_tokens for one in batch.items]), strict=True
        ):
            losses[item.length] = some.detach()
    gradients = {name: weight.grad.clone() for name, weight in model.lora.items() if weight.grad is not None}
    for weight in model.lora.values():
        weight.grad = None
    return losses, gradients


def require_equal(model: AdaptedModel, items: list[Item], *, sharing: bool = False) -> MicroBatch:
    model.peft.eval()  # some families drop out at random
    torch.manual_seed(1)
    for name, weight in model.lora.items():  # B starts at zero, and A would have no gradient
        weight.data += 0.02 * torch.randn_like(weight) if name.endswith("lora_B.weight") else 0.0
    [together] = micro_batches(items, 100_000, packed=True, sharing=sharing)
    losses, gradients = taught(model, [together])
    alone, wanted = taught(model, [one for item in items for one in micro_batches([item], 1)])
    torch.testing.assert_close(losses, alone, rtol=2e-5, atol=2e-5)
    assert gradients.keys() == wanted.keys() == model.lora.keys()
    torch.testing.assert_close(gradients, wanted, rtol=5e-4, atol=2e-5)
    return together


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_packed_rows_score_and_teach_as_alone(name: str, tmp_path: Path) -> None:
    model = load(make_family(tmp_path, name))
    assert model.packing is (name not in PADDED)
    if model.packing:
        together = require_equal(model, make_items(37, 5, 1, 150, 12))
        assert [one.length for one in together.segments] == [150, 37, 12, 5, 1]


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - PADDED.keys()))
def test_what_rows_begin_with_alike_goes_through_once(name: str, tmp_path: Path) -> None:
    """And every row scores and teaches as it does alone."""
    model, items = load(make_family(tmp_path, name)), make_alike_items()
    together = require_equal(model, items, sharing=True)
    assert together.ids.numel() == sum(item.length for item in items) - 5 * 20 - 3 * 30 - 19
    assert len(together.rows) == len(items)


@pytest.mark.parametrize("path", ["torch's kernel", "computed again"])
def test_beginnings_are_shared_on_every_path(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(make_family(tmp_path, "llama"))
    if path == "computed again":
        model.recompute(1)
    else:
        monkeypatch.setattr("trainer.short_attention.MAX_LENGTH", 20)
    require_equal(model, make_alike_items(), sharing=True)


def test_a_single_token_that_goes_on_is_handed_on_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers packs the heads of a single query into rows, which a causal mask would take for positions."""
    masks: list[Any] = []
    monkeypatch.setattr("trainer.short_attention.MAX_LENGTH", 2)

    def remembered(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        masks.append(mask)
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    monkeypatch.setattr("trainer.short_attention.sdpa_attention_forward", remembered)
    layer = torch.nn.Module()
    layer.is_causal, layer.num_key_value_groups = True, 2  # type: ignore[assignment]
    query, key, value = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    segments = (Segment(3), Segment(1, 0), Segment(2, 0))
    found, _ = ALL_ATTENTION_FUNCTIONS[NAME](layer, query, key, value, None, packed_segments=segments)
    assert [mask is None for mask in masks] == [True, True, False]
    for span in spans(segments):
        of_row = torch.tensor([place for start, end in span.visible for place in range(start, end)])
        alone = [one[:, :, of_row] for one in (query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1))]
        wanted = torch.nn.functional.scaled_dot_product_attention(*alone, is_causal=True).transpose(1, 2)
        torch.testing.assert_close(found[:, span.start : span.end], wanted[:, span.prefix_length :])


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_positions_that_depend_on_other_rows_are_not_packed(rope: str, tmp_path: Path) -> None:
    model = load(make_family(tmp_path, "llama"))
    config = model.peft.get_base_model().config
    monkeypatched = {"rope_type": rope, "original_max_position_embeddings": 64}
    config.rope_parameters = {**config.rope_parameters, **monkeypatched}
    with eval_mode(model.peft):
        assert supports_packing(model, longest=64, tolerance=1e-3) and not supports_packing(
            model, longest=65, tolerance=1e-3
        )


@pytest.mark.parametrize(
    "parts", [{"lora": {"lora_dropout": 0.1}}, {"optim": {"neftune_noise_alpha": 5.0}}], ids=["dropout", "noise"]
)
def test_rows_with_draws_of_their_own_share_nothing(parts: dict[str, Any], tmp_path: Path) -> None:
    model = load(make_family(tmp_path, "llama"), **parts)
    assert model.packing and not model.prefix_sharing
    [batch] = model.passes(make_alike_items(), 100_000)
    assert all(segment.parent < 0 for segment in batch.segments)


def test_dropout_that_is_no_module_is_found(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "opt")
    assert not load(folder).prefix_sharing
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dropout": 0.0}))
    assert load(folder).prefix_sharing


@pytest.mark.parametrize("budget", [64, 200, 100_000])
def test_shared_passes_keep_to_the_budget(budget: int) -> None:
    """A window whose rows all begin alike, some of them pairs: a prompt and two answers."""
    torch.manual_seed(7)
    begin = torch.randint(3, 384, (30,)).tolist()
    rows = [make_item(begin + torch.randint(3, 384, (length,)).tolist()) for length in range(2, 50)]
    pairs = [PreferencePair(make_item([*row.ids, 1, 2]), make_item([*row.ids, 2])) for row in rows[::8]]
    passes = micro_batches([*rows, *pairs], budget, packed=True, sharing=True)
    assert sorted(row.length for batch in passes for row in batch.rows) == sorted(row.length for row in [*rows, *pairs])
    assert all(batch.ids.numel() <= budget or len(batch.rows) == 1 for batch in passes)
    assert all(sum(row.trained_tokens for row in batch.rows) <= budget or len(batch.rows) == 1 for batch in passes)
    if budget == 100_000:
        assert passes[0].ids.numel() < sum(row.length for row in [*rows, *pairs]) / 2


@pytest.mark.parametrize("budget", [64, 200, 100_000])
def test_passes_keep_to_the_budget_and_hold_each_row_once(budget: int) -> None:
    items = make_items(*range(1, 60), 300)
    passes = micro_batches(items, budget, packed=True)
    assert sorted(item.length for batch in passes for item in batch.items) == [*range(1, 60), 300]
    for batch in passes:
        assert batch.ids.shape == (1, sum(one.length for one in batch.segments))
        assert batch.ids.numel() <= budget or len(batch.rows) == 1
    fewest = -(-sum(item.length for item in items) // budget)
    assert len(passes) <= fewest * 11 / 9 + 300 // budget + 1


def test_noise_on_packed_rows_is_that_of_each_row(tmp_path: Path) -> None:
    """NEFTune's reach falls with the length of the row, not with that of the pass."""
    model = load(make_family(tmp_path, "llama"), optim={"neftune_noise_alpha": 5.0})
    seen: list[Tensor] = []
    embeddings = model.peft.get_base_model().get_input_embeddings()
    embeddings.register_forward_hook(lambda module, given, found: seen.append(found - module.weight[given[0]]))
    [batch] = micro_batches(make_items(100, 4), 1000, packed=True)
    model.states_of(batch)
    [noise] = seen
    width = noise.shape[-1]
    for row, length in zip(torch.split(noise[0], [100, 4]), (100, 4), strict=True):
        reach = 5.0 / (length * width) ** 0.5
        assert 0.9 * reach < float(row.abs().max()) <= reach * 1.001


def test_a_packed_run_has_the_losses_of_a_padded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_family(tmp_path / "base", "llama")
    spec = make_spec(folder, make_rows(tmp_path), optim={"max_steps": 3, "batch_size": 4})
    packed = Training(spec, tmp_path / "packed").run().losses
    monkeypatch.setattr("trainer.model.supports_packing", lambda *given, **named: False)
    assert Training(spec, tmp_path / "padded").run().losses == pytest.approx(packed, rel=1e-5)


def test_on_a_gpu_rows_are_packed_and_share_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(base, tmp_path / "rows.jsonl")
    model = load_adapted(spec, base, lambda event: None)
    assert model.packing and model.prefix_sharing
    monkeypatch.setattr(Device, "is_cuda", True)
    again = _checked(model, spec)
    assert again.packing and not again.prefix_sharing
