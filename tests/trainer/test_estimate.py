"""The estimate: right where it can be exact, in order where it cannot, and useful in words. Without torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from tests.tiny import make_tiny_base
from tests.trainer.training import make_rows, make_spec
from trainer import SHAPES_KEPT, loss, short_attention
from trainer.base_facts import inspect_folder
from trainer.base_layers import linear_paths
from trainer.device import Device
from trainer.estimate import (
    Estimate,
    Hardware,
    activation_bytes_per_token,
    estimate,
    evaluations_after,
    layer_shapes,
    lora_parameters,
    micro_batch_tokens,
    recompute_every,
)
from trainer.estimate_layers import BLOCK, MAX_SHORT_LENGTH
from trainer.estimate_memory import CODE_BYTES, HEAD_CHUNK
from trainer.lora_layers import add_lora
from trainer.model import AdaptedModel, adapt, load_adapted
from trainer.short_attention import NAME
from trainer.spec import TrainSpec

LLAMA_8B = {
    "parameters": 8_030_261_248,
    "layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "heads": 32,
    "kv_heads": 8,
    "context_length": 8192,
    "tied_embeddings": False,
    "architecture": "LlamaForCausalLM",
}

PLAIN = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 64}


def make(**parts: dict[str, Any]) -> TrainSpec:
    return make_spec(
        Path("base"),
        Path("rows"),
        **{
            **parts,
            "model": {"quantization": "nf4", "dtype": "auto"} | parts.get("model", {}),
            "lora": {"r": 16} | parts.get("lora", {}),
        },
    )


@pytest.mark.parametrize("targets", ["all-linear", "attention", "mlp", ["q_proj", "down_proj"]])
def test_lora_parameters_are_exact(tmp_path: Path, targets: Any) -> None:
    base = make_tiny_base(tmp_path)
    spec = make_spec(base, make_rows(tmp_path), lora={"target_modules": targets, "r": 3})
    model = load_adapted(spec, base, lambda event: None)
    assert lora_parameters(spec, inspect_folder(base)) == sum(one.numel() for one in model.lora.values())


@pytest.mark.parametrize(
    "lora",
    [
        {"use_dora": True, "rank_pattern": {"q_proj": 2, "mlp.up_proj": 7}, "layers_to_transform": [1]},
        {"modules_to_save": ["lm_head", "down_proj", "input_layernorm"]},
        {"trainable_token_indices": [3, 4, 5], "target_modules": ["q_proj"]},
    ],
    ids=str,
)
def test_what_learns_beside_plain_updates_is_counted(tmp_path: Path, lora: dict[str, Any]) -> None:
    base = make_tiny_base(tmp_path)
    spec = make_spec(base, make_rows(tmp_path), lora=lora)
    model = load_adapted(spec, base, lambda event: None)
    assert lora_parameters(spec, inspect_folder(base)) == sum(one.numel() for one in model.lora.values())


def test_linear_layers_of_a_known_model() -> None:
    in_layers = sum(shape.size for shape in layer_shapes(LLAMA_8B).values()) * 32
    assert in_layers == 6_979_321_856
    assert LLAMA_8B["parameters"] - in_layers == 2 * 128256 * 4096 + 65 * 4096  # embeddings, head, norms


def test_weights_of_an_8b_model() -> None:
    by_kind = {
        kind: estimate(make(model={"quantization": kind}), LLAMA_8B, rows=1000, tokens=200_000).items[0].expected
        for kind in ("nf4", "int8", "none")
    }
    assert by_kind["none"] == pytest.approx(16.06e9, rel=0.01)
    assert by_kind["int8"] == pytest.approx(9.1e9, rel=0.02)
    assert by_kind["nf4"] == pytest.approx(5.7e9, rel=0.02)


def test_what_costs_more_is_estimated_higher() -> None:
    def total(**parts: dict[str, Any]) -> int:
        found = estimate(make(**parts), LLAMA_8B, rows=1000, tokens=400_000)
        assert found.low <= found.expected <= found.high
        return found.expected

    plain = total()
    assert total(lora={"r": 64}) > plain
    assert total(data={"max_seq_length": 4096}, optim={"batch_size": 64}) >= plain
    assert total(optim={"gradient_checkpointing": True}) < plain
    assert total(model={"quantization": "none"}) > total(model={"quantization": "int8"}) > plain


def test_the_advice_is_about_the_largest_item() -> None:
    heavy = estimate(make(model={"quantization": "none"}), LLAMA_8B, rows=10, tokens=100)
    assert heavy.largest.name == "the base model's weights" and "nf4" in heavy.advice
    long = estimate(make(optim={"batch_size": 64}), LLAMA_8B, rows=1000, tokens=500_000)
    assert long.largest.name == "activations" and "gradient_checkpointing" in long.advice


@pytest.mark.parametrize("every", [0, 1, 2, 3])
def test_activations_are_what_autograd_keeps(tmp_path: Path, every: int) -> None:
    """Per layer and token, on torch's own attention: the difference between models of eight and of two layers."""
    found = []
    for layers in (2, 8):
        config = LlamaConfig(
            hidden_size=64,
            intermediate_size=192,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            num_hidden_layers=layers,
            vocab_size=32,
        )
        causal = LlamaForCausalLM(config).to(torch.bfloat16).requires_grad_(requires_grad=False)
        device = Device(torch.device("cpu"), torch.bfloat16)
        spec = make()
        model = adapt(causal, spec, device, print)
        if every:
            model.recompute(every)
        found.append(kept_bytes(model, torch.arange(32).repeat(1, 8)))
    facts = inspect_facts(64, 192, 4, 2)
    two, eight = (activation_bytes_per_token(spec, {**facts, "layers": layers}, every=every) for layers in (2, 8))
    assert (found[1] - found[0]) / 256 == pytest.approx(eight - two, rel=0.02)


def test_attention_with_a_dropout_of_its_own_keeps_its_scores(tmp_path: Path) -> None:
    """On a processor, in float32 and for whole rows, whatever our own attention would keep."""
    found = []
    for layers in (1, 3):
        sizes = {"n_embd": 64, "n_head": 4, "vocab_size": 32, "n_positions": 64, "attn_implementation": NAME}
        causal = GPT2LMHeadModel(GPT2Config(**sizes, n_layer=layers)).to(torch.bfloat16).requires_grad_(False)
        model = adapt(causal.train(), make(), Device(torch.device("cpu"), torch.bfloat16), print)
        found.append(kept_bytes(model, torch.arange(64).remainder(32).repeat(2, 1)))
    facts = inspect_facts(64, 256, 4, 4) | {"architecture": "GPT2LMHeadModel", "parameters": 1, "vocab_size": 32}
    one, three = (
        activation_bytes_per_token(make(), {**facts, "layers": layers}, device="cpu", width=64) for layers in (1, 3)
    )
    assert (found[1] - found[0]) / 128 == pytest.approx(three - one, rel=0.02)


def inspect_facts(hidden: int, middle: int, heads: int, kv_heads: int) -> dict[str, int]:
    return {"hidden_size": hidden, "intermediate_size": middle, "heads": heads, "kv_heads": kv_heads}


def kept_bytes(model: AdaptedModel, ids: torch.Tensor) -> int:
    """Bytes of all tensors that autograd keeps, weights left out."""
    weights = {one.untyped_storage().data_ptr() for one in model.peft.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(ids)
    assert hidden.requires_grad
    return sum(kept.values())


def test_steps_tokens_and_time() -> None:
    spec = make(optim={"epochs": 2.0, "batch_size": 8}, data={"holdout": 0.1}, evaluation={"forgetting": False})
    found = estimate(spec, LLAMA_8B, rows=100, tokens=10_000, on=Hardware(tokens_per_second=100.0))
    assert found.steps == 24 and found.tokens == 24 * 8 * 100
    measured = 3 * 10 * 100 / 3  # before the first step and after both epochs, at a third of a step's cost
    assert found.seconds == pytest.approx(192.0 + measured / 100)
    unmeasured = make(optim={"epochs": 2.0, "batch_size": 8}, data={"holdout": 0.0})
    assert estimate(unmeasured, LLAMA_8B, rows=90, tokens=9000, on=Hardware(tokens_per_second=100.0)).seconds == 192.0
    assert estimate(spec, LLAMA_8B, rows=100, tokens=10_000).seconds is None
    capped = estimate(make(optim={"max_steps": 5}), LLAMA_8B, rows=100, tokens=10_000)
    assert capped.steps == 5


@pytest.mark.parametrize(("every", "steps"), [(1, 1), (1, 7), (3, 7), (3, 9), (4, 3), (10, 10)])
def test_evaluations_to_come_are_counted_as_they_fall_due(every: int, steps: int) -> None:
    due = [step for step in range(steps + 1) if step % every == 0 or step == steps]
    for step in range(steps + 1):
        assert evaluations_after(step, every=every, steps=steps) == sum(one > step for one in due)


def test_the_pass_fits_the_memory_and_holds_the_longest_row() -> None:
    spec = make(data={"max_seq_length": 2048})
    assert micro_batch_tokens(spec, LLAMA_8B, free_bytes=1 << 30) == 2048
    assert micro_batch_tokens(spec, LLAMA_8B, free_bytes=400 << 30) == 16384
    assert micro_batch_tokens(make(optim={"micro_batch_tokens": 777}), LLAMA_8B, free_bytes=0) == 777


def test_layers_are_computed_again_only_as_memory_asks_for_it() -> None:
    spec = make(data={"max_seq_length": 8192})
    a_token = activation_bytes_per_token(spec, LLAMA_8B)

    def every(share: float, **optim: Any) -> int:
        asked = make(data={"max_seq_length": 8192}, optim=optim)
        return recompute_every(asked, LLAMA_8B, tokens=8192, free_bytes=int(share * 8192 * a_token / 0.6))

    assert [every(share) for share in (1.01, 0.9, 0.75, 0.6, 0.1)] == [0, 4, 3, 2, 1]
    assert every(1.01, gradient_checkpointing=True) == 1


def test_a_base_that_stays_packed_takes_most_while_it_is_read() -> None:
    """Its file stands beside what is made of it for a moment; but not in a GPU's memory, nor where it is taken as it
    is."""
    facts = LLAMA_8B | {"bytes": 16_060_522_496, "dtype": "bfloat16"}
    short = {"data": {"max_seq_length": 128}, "optim": {"batch_size": 1, "gradient_checkpointing": True}}

    def told(hardware: Hardware, **model: str) -> Estimate:
        return estimate(make(model=model, **short), facts, rows=100, tokens=10_000, lengths=[100], on=hardware)

    packed = told(Hardware("cpu", 24 << 30))
    assert packed.expected == pytest.approx(16.06e9 + 5.7e9 + 0.5e9, rel=0.01)
    assert packed.low < 10e9, "pages of the file are given up where memory is short"
    assert told(Hardware("cuda", 24 << 30)).expected < 10e9
    taken = told(Hardware("cpu", 24 << 30), quantization="none")
    assert 16.06e9 < taken.expected < 18e9
    other = told(Hardware("cpu", 64 << 30), quantization="none", dtype="float32")
    assert other.expected > 48e9, "of a file in half of the bytes"


def test_the_ends_are_near_where_the_rows_are_known() -> None:
    """A machine with a tenth to spare is not refused: what fits is told by the upper end."""
    known = estimate(make(), LLAMA_8B, rows=100, tokens=40_000, lengths=[400] * 50, on=Hardware("cuda", 80 << 30))
    assert 0.9 * known.expected < known.low and known.high < 1.1 * known.expected
    guessed = estimate(make(), LLAMA_8B, rows=100, tokens=40_000, on=Hardware("cuda", 80 << 30))
    assert guessed.high / guessed.expected > known.high / known.expected


def test_a_machine_with_less_memory_needs_less() -> None:
    """Before a spec is told not to fit, its passes are cut and its layers computed again, as training does."""
    spec = make(data={"max_seq_length": 4096}, optim={"batch_size": 64})
    needs = [
        estimate(spec, LLAMA_8B, rows=1000, tokens=3_000_000, on=Hardware("cuda", memory << 30)).expected
        for memory in (140, 40, 24, 16)
    ]
    assert needs == sorted(needs, reverse=True) and needs[-1] < 16 << 30 < needs[0]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32), GPT2LMHeadModel),
        (GPTNeoXConfig(**PLAIN, num_hidden_layers=2), GPTNeoXForCausalLM),
        (OPTConfig(hidden_size=32, ffn_dim=64, num_attention_heads=4, num_hidden_layers=2, vocab_size=64,
                   word_embed_proj_dim=32, max_position_embeddings=32), OPTForCausalLM),
    ],
    ids=["gpt2", "neox", "opt"],
)  # fmt: skip
def test_layers_of_families_without_a_gate(config: Any, kind: Any) -> None:
    """Queries, keys and values in one layer or in three; two layers in the MLP, as the number of weights tells."""
    causal = kind(config).requires_grad_(requires_grad=False)
    parameters = sum(one.numel() for one in causal.parameters())
    sizes = {"hidden_size": 32, "heads": 4, "layers": 2, "vocab_size": 64, "parameters": parameters}
    middle = getattr(config, "ffn_dim", None) or getattr(config, "intermediate_size", None)
    facts = sizes | {"architecture": kind.__name__, "intermediate_size": middle}
    linear = sum(causal.get_submodule(path).weight.numel() for path in linear_paths(causal))
    assert sum(shape.size for shape in layer_shapes(facts).values()) * 2 == linear
    _, learn = add_lora(causal, make().lora)
    assert lora_parameters(make(), facts) == sum(one.numel() for one in learn.values())


def test_updates_of_fused_layers_are_counted_by_their_own_names() -> None:
    """Phi-3-mini joins queries, keys and values, and gate and up; NeoX and GPT-2 call their layers otherwise."""
    phi = {"architecture": "Phi3ForCausalLM", "parameters": 3_821_079_552, "layers": 32, "hidden_size": 3072}
    phi |= {"intermediate_size": 8192, "vocab_size": 32064, "heads": 32, "kv_heads": 32}
    named = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    assert lora_parameters(make(lora={"r": 128, "target_modules": named}), phi) == 201_326_592
    assert lora_parameters(make(lora={"r": 128}), phi) == 201_326_592
    sizes = {"layers": 2, "hidden_size": 32, "intermediate_size": 128, "heads": 4, "kv_heads": 4, "vocab_size": 64}
    for family, names in (
        ("GPTNeoXForCausalLM", ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]),
        ("GPT2LMHeadModel", ["c_attn", "c_proj", "c_fc"]),
    ):
        facts = sizes | {"architecture": family, "parameters": 2 * 12 * 32 * 32 + 64 * 32}
        each = [32 + 96, 32 + 32, 32 + 128, 128 + 32]
        assert lora_parameters(make(lora={"r": 4, "target_modules": names}), facts) == 2 * 4 * sum(each)


def test_loftq_reads_the_base_again_in_main_memory() -> None:
    facts = LLAMA_8B | {"bytes": 16_060_522_496, "dtype": "bfloat16"}

    def told(device: str, start: str) -> Estimate:
        spec = make(lora={"init_lora_weights": start})
        return estimate(spec, facts, rows=100, tokens=10_000, lengths=[100], on=Hardware(device, 80 << 30))

    whole = 4 * 8_030_261_248
    assert told("cpu", "loftq").low > whole + 16e9, "float32 beside the weights it trains on"
    assert told("cpu", "loftq").expected == pytest.approx(0.53e9 + whole + 2 * 16.06e9, rel=0.01)
    assert told("cuda", "loftq").expected == told("cuda", "default").expected


def test_rows_are_held_in_main_memory() -> None:
    def told(rows: int, device: str, method: str = "sft") -> int:
        spec = make(data={"method": method}, optim={"max_steps": 2})
        hardware = Hardware(device, 80 << 30)
        return estimate(spec, LLAMA_8B, rows=rows, tokens=rows * 100, lengths=[100], on=hardware).expected

    sixty = told(60_000, "cpu") - told(1, "cpu")
    assert sixty == pytest.approx(86e6, rel=0.1)
    assert told(60_000, "cpu", "kto") - told(1, "cpu", "kto") == pytest.approx(2 * sixty, rel=0.01)
    assert told(60_000, "cuda") == told(1, "cuda")


def test_what_comparing_reads_is_in_the_time() -> None:
    """A pass forward is a third of a step: DPO reads all rows once more, KTO twice, and other answers in each step."""

    def seconds(method: str) -> float:
        spec = make(data={"method": method, "holdout": 0.0}, optim={"epochs": 2.0})
        found = estimate(spec, LLAMA_8B, rows=100, tokens=10_000, on=Hardware(tokens_per_second=100.0)).seconds
        assert found is not None
        return found

    assert seconds("sft") == pytest.approx(200.0)
    assert seconds("dpo") == pytest.approx(200.0 + 100 / 3)
    assert seconds("kto") == pytest.approx(200.0 + 200 / 3 + 200 / 3)


def test_lengths_of_rows_tell_the_largest_pass() -> None:
    """Rows are packed up to the budget: what counts is how many tokens stand in it, and how long their rows are."""

    def kept(*lengths: int, **optim: Any) -> int:
        spec = make(data={"max_seq_length": 1024}, optim={"batch_size": 4, "micro_batch_tokens": 2048, **optim})
        found = estimate(spec, LLAMA_8B, rows=100, tokens=100 * 400, lengths=lengths)
        return next(item.expected for item in found.items if item.name == "activations")

    assert kept(100, 100) == pytest.approx(4 * kept(100, 100, batch_size=1))
    assert kept(1024, 1024) == pytest.approx(2048 / 400 * kept(100, 100)), "no more than the budget"
    assert kept(100, 100) < kept(100, 1024) <= kept(1024, 1024)
    assert kept(5000) == kept(1024), "longer rows are cut"


def test_rows_of_many_lengths_need_code_for_each_on_a_processor() -> None:
    """Up to what is kept of it; rows of one length need what the process has anyway."""
    taken = {}
    for device, dtype in (("cpu", "bfloat16"), ("cpu", "float32"), ("cuda", "bfloat16")):
        spec = make(model={"dtype": dtype, "quantization": "none"}, optim={"batch_size": 8, "epochs": 4.0})
        for name, lengths in (("one", [400] * 100), ("two", [399, 400] * 50), ("many", list(range(301, 401)))):
            found = estimate(spec, LLAMA_8B, rows=100, tokens=40_000, lengths=lengths, on=Hardware(device, 80 << 30))
            code = [item.expected for item in found.items if item.name.startswith("kernels compiled")]
            taken[device, dtype, name] = sum(code)
    assert not [key for key, size in taken.items() if size and (key[:2] != ("cpu", "bfloat16") or key[2] == "one")]
    two, many = (taken["cpu", "bfloat16", name] for name in ("two", "many"))
    assert 0 < two < many == SHAPES_KEPT * CODE_BYTES


def test_sizes_written_down_twice_are_the_same() -> None:
    """The estimate cannot import them: they stand beside torch."""
    assert HEAD_CHUNK == loss.MAX_LOGITS
    assert (MAX_SHORT_LENGTH, BLOCK) == (short_attention.MAX_LENGTH, short_attention.BLOCK)


def test_it_needs_no_torch() -> None:
    code = "import sys, trainer.estimate, trainer.rendering, trainer.formats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
