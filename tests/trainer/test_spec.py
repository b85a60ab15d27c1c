"""The spec: read back what is written, and every problem told at once."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.presets import PRESET_NAMES, preset
from trainer.spec import FIELD_ALIASES, PARTS, ModelSpec, OptimSpec, SpecError, TrainSpec, choices_of, option_of
from trainer.spec_table import spec_table
from trainer.spec_values import VALUE_ALIASES, refusal


def make_spec(**parts: dict[str, object]) -> TrainSpec:
    return TrainSpec.from_dict({"model": {"base": "b"}, "data": {"path": "d"}, **parts})


def test_a_word_that_is_no_choice_is_an_issue_however_it_came_there() -> None:
    odd = dataclasses.replace(TrainSpec(), optim=OptimSpec(schedule="polynomial"))  # type: ignore[arg-type]
    assert [one.path for one in odd.issues() if one.path.startswith("optim")] == ["optim.schedule"]


def test_yaml_and_plain_data_read_back_equal() -> None:
    spec = make_spec(lora={"target_modules": ["q_proj"], "r": 4}, evaluation={"probes": ["Hi: there", "日本"]})
    assert TrainSpec.from_yaml(spec.to_yaml()) == spec == TrainSpec.from_dict(spec.to_dict())
    assert spec.issues() == []


def test_numbers_written_as_yaml_reads_them() -> None:
    spec = TrainSpec.from_yaml("optim: {learning_rate: 2e-4, batch_size: '4'}")
    assert spec.optim.learning_rate == 2e-4 and spec.optim.batch_size == 4


def test_every_unknown_name_and_wrong_type_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(lora={"r": "x", "rank": 1}, model={"base": "b", "quantization": "fp4"}, extra={})
    assert [one.path for one in caught.value.issues] == ["extra", "lora.r", "lora.rank", "model.quantization"]
    assert all(one.problem and one.fix for one in caught.value.issues)


@pytest.mark.parametrize("text", ["q_proj", "[q_proj]", " q_proj ", "q_proj,"])
def test_one_module_by_its_name_is_a_list(text: str) -> None:
    assert make_spec(lora={"target_modules": text}).lora.target_modules == ("q_proj",)


@pytest.mark.parametrize("text", ["q_proj v_proj", "q_proj,v_proj", "[q_proj, v_proj]", "q_proj\nv_proj"])
def test_modules_have_spaces_or_commas_between_them(text: str) -> None:
    assert make_spec(lora={"target_modules": text}).lora.target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize("text", ["atention", "", "q_proj|v_proj"])
def test_what_names_neither_modules_nor_a_group(text: str) -> None:
    assert [one.path for one in make_spec(lora={"target_modules": text}).issues()] == ["lora.target_modules"]


def test_everything_is_told_beside_what_cannot_be_read() -> None:
    """Limits, and values that cannot stand together, but where one of the two is what nobody could read."""
    with pytest.raises(SpecError) as caught:
        TrainSpec.from_dict(
            {
                "model": {"shard": "always", "gpus": "all"},
                "lora": {"r": "x", "init_lora_weights": "orthogonal", "rank_pattern": {"q_proj": 3}},
                "data": {"method": "ppo", "path": 5},
                "optim": {"learning_rate": 5},
                "preference": {"label_smoothing": 0.1},
            }
        )
    assert [one.path for one in caught.value.issues] == [
        "data.method",
        "data.path",
        "lora.init_lora_weights",
        "lora.r",
        "model.base",
        "model.gpus",
        "optim.learning_rate",
    ]
    assert caught.value.spec and caught.value.spec.optim.learning_rate == 5


@pytest.mark.parametrize(
    ("data", "path", "hint"),
    [
        ({"lora": {"use_dorra": True}}, "lora.use_dorra", "Did you mean use_dora? Known are r, lora_alpha"),
        ({"lora": {"learning_rate": 1}}, "lora.learning_rate", "Did you mean optim.learning_rate? Known are r"),
        ({"batch_size": 4}, "batch_size", "Did you mean optim.batch_size? The parts are"),
        ({"zzz": {}}, "zzz", "The parts are model, lora"),
        ({"modle": {}}, "modle", "Did you mean model? The parts are"),
        ({"optim": {"schedule": "cosin"}}, "optim.schedule", "Did you mean cosine? Choose one of"),
        ({"optim": {"zzz": 1}}, "optim.zzz", "Known are epochs"),
        ({"optim": {"lr": 1}}, "optim.lr", "Did you mean optim.learning_rate? Known are epochs"),
        ({"lr": 1}, "lr", "Did you mean optim.learning_rate? The parts are"),
        ({"lora": {"Target-Module": "q_proj"}}, "lora.Target-Module", "Did you mean lora.target_modules? Known are r"),
        ({"load_in_4bit": True}, "load_in_4bit", "Did you mean model.quantization: nf4? The parts are"),
        ({"model": {"base": "b", "dtype": "fp16"}}, "model.dtype", "Did you mean float16? Choose one of auto"),
        ({"model": {"base": "b", "quantization": 4}}, "model.quantization", "Did you mean nf4? Choose one of none"),
    ],
    ids=str,
)
def test_a_name_that_is_nearly_right_gets_a_hint(data: dict[str, Any], path: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(**data)
    (issue,) = caught.value.issues
    assert issue.path == path and issue.fix.startswith(hint)


def test_names_of_other_tools_lead_to_values_that_there_are() -> None:
    usual = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "batch": "batch_size", "steps": "max_steps"}
    usual |= {"max_len": "max_seq_length", "max_length": "max_seq_length", "lr_scheduler": "schedule"}
    usual |= {"warmup": "warmup_ratio", "precision": "dtype", "base_model": "base", "model_name": "base"}
    for other, own in usual.items():
        assert FIELD_ALIASES[other].rpartition(".")[2] == own
    for other, place in FIELD_ALIASES.items():
        path, _, word = place.partition(": ")
        part, name = path.split(".")
        assert name in {one.name for one in dataclasses.fields(PARTS[part])}, other
        assert not word or word in choices_of(PARTS[part], name), other
        assert all(other not in {one.name for one in dataclasses.fields(each)} for each in PARTS.values()), other
    words = {word for part in PARTS.values() for one in dataclasses.fields(part) for word in choices_of(part, one.name)}
    assert set(VALUE_ALIASES.values()) <= words and not VALUE_ALIASES.keys() & words


@pytest.mark.parametrize("targets", ["all_linear", ["all-linear"], "All_Linear, q_proj"])
def test_the_group_of_all_layers_is_known_however_it_is_spelt(targets: object) -> None:
    (issue,) = make_spec(lora={"target_modules": targets}).issues()
    assert issue.path == "lora.target_modules" and issue.fix.startswith("Did you mean all-linear? ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {base: x", "Not valid YAML: here/spec.yaml, line 1, column 16: expected ',' or '}'"),
        ("model:\n  base: x\n lora: 3", "Not valid YAML: here/spec.yaml, line 3, column 2: expected <block end>"),
        ("a: \x01", "Not valid YAML: here/spec.yaml, special characters are not allowed."),
        ("lora: {r: 4}\nlora: {r: 8}", "Not valid YAML: here/spec.yaml, line 2, column 1: lora is given twice"),
        ("lora:\n  r: 4\n  r: 8", "Not valid YAML: here/spec.yaml, line 3, column 3: r is given twice"),
        ("[" * 5000, "Not valid YAML: here/spec.yaml, "),
    ],
)
def test_broken_yaml_is_told_with_file_line_and_column(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        TrainSpec.from_yaml(text, name="here/spec.yaml")
    assert str(caught.value).startswith(said) and "unicode string" not in str(caught.value)


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), 1.5, None, [], "1e999"])
def test_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(SpecError, match=r"lora\.r"):
        make_spec(lora={"r": value})


def test_limits_and_combinations_are_issues() -> None:
    spec = TrainSpec.from_dict(
        {
            "lora": {"r": 0, "target_modules": ["q_proj", "a.*"]},
            "optim": {"micro_batch_tokens": 64},
            "evaluation": {"probes": ["x" * 3000] * 5},
        }
    )
    assert {one.path for one in spec.issues()} == {
        "lora.r",
        "lora.target_modules",
        "model.base",
        "data.path",
        "optim.micro_batch_tokens",
        "evaluation.probes",
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*PARTS, "version", "r"]), inner),
        max_leaves=12,
    )
)
def test_no_data_breaks_the_reader(data: object) -> None:
    try:
        TrainSpec.from_dict(data).issues()
    except SpecError as error:
        assert error.issues


@pytest.mark.parametrize("text", ["a: [", "- 1", "&a [*a]", "x: !!python/object:os.system {}", "\x00"])
def test_text_that_is_no_spec(text: str) -> None:
    with pytest.raises(SpecError):
        TrainSpec.from_yaml(text)


def test_every_value_says_what_it_means_and_allows_its_default() -> None:
    for part in PARTS.values():
        for item in dataclasses.fields(part):
            beside = option_of(item)
            assert beside.meaning.endswith(".") and len(beside.meaning) < 120
    assert choices_of(ModelSpec, "quantization") == ("none", "int8", "nf4") and choices_of(ModelSpec, "base") == ()


def test_presets_are_valid_specs() -> None:
    for name in PRESET_NAMES:
        assert make_spec(**{**preset(name), "data": {**preset(name).get("data", {}), "path": "d"}}).issues() == []


def test_several_problems_bring_their_own_ways_out() -> None:
    with pytest.raises(SpecError) as caught:
        TrainSpec.from_dict({"data": {"method": "ppo"}, "optim": {"schedule": "cosin"}, "lora": {"rank": 3}})
    error = refusal(caught.value.issues)
    assert 'data.method: "ppo" is not usable here. Did you mean dpo? Choose one of sft, dpo, kto.' in error.text
    assert (
        "Choose one of constant, linear, cosine." in error.text and "lora.rank: There is no such value." in error.text
    )
    assert error.fix == "Change each of them."
    issue = TrainSpec.from_dict({"lora": {"r": 0}}).issues()[0]
    assert refusal([issue]).fix == issue.fix and issue.fix not in refusal([issue]).text


def test_the_table_names_every_value() -> None:
    table = spec_table()
    for name, part in PARTS.items():
        assert f"\n{name}:\n" in table
        for item in dataclasses.fields(part):
            assert f"\n  {item.name}:" in table
    assert "  quantization: nf4\n" in table and "One of none, int8, nf4." in table and "1 to 512." in table
    assert "0 to 2,097,151." in table and "0 to 10,000,000." in table and "e+0" not in table


def test_what_the_table_shows_can_be_copied() -> None:
    """Its lines without their meanings are a spec: the one that says nothing."""
    lines = [line for line in spec_table().splitlines() if not line.startswith("   ")]
    assert "  layers_to_transform: []" in lines and "  use_dora: false" in lines
    assert TrainSpec.from_yaml("\n".join(lines)) == TrainSpec()


def test_a_table_that_learns_whole_has_no_single_tokens() -> None:
    lora = {"modules_to_save": ["embed_tokens"], "trainable_token_indices": [5]}
    told = [issue.path for issue in TrainSpec.from_dict({"lora": lora}).issues()]
    assert "lora.trainable_token_indices" in told
    other = TrainSpec.from_dict({"lora": {**lora, "modules_to_save": ["lm_head"]}}).issues()
    assert "lora.trainable_token_indices" not in [issue.path for issue in other]
