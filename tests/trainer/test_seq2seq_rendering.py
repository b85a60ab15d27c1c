"""What an encoder–decoder reads and writes of a row: two texts as its tokenizer makes them, and how they are cut."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.tiny import CHATML
from tests.trainer.seq2seq_bases import SEQ2SEQ, make_seq2seq
from tests.trainer.training import make_spec
from trainer.data import load_dataset
from trainer.errors import TrainerError
from trainer.formats.canonical import Content
from trainer.rendering import Renderer

families = pytest.mark.parametrize("base", sorted(SEQ2SEQ), indirect=True)


@pytest.fixture(scope="module", params=["t5"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seq2seq(tmp_path_factory.mktemp(request.param), request.param)


SYSTEM = {"role": "system", "content": "Be nice."}
ASKED = {"role": "user", "content": "Who sat?"}
SAID = {"role": "assistant", "content": "The cat."}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([ASKED], "Who sat?"),
        ([SYSTEM, ASKED], "Be nice.\n\nWho sat?"),
        ([ASKED, SAID, ASKED], "User: Who sat?\n\nAssistant: The cat.\n\nUser: Who sat?\n\nAssistant:"),
    ],
)
@families
def test_both_texts_are_as_the_tokenizer_makes_them(base: Path, messages: list[dict[str, str]], text: str) -> None:
    tokenizer, renderer = AutoTokenizer.from_pretrained(base), Renderer.load(base)
    assert renderer.prompt_ids(messages) == tokenizer(text)["input_ids"]
    example = renderer.example([*messages, SAID, ASKED])  # what follows the last answer is left out
    assert example.ids[: example.source] == tokenizer(text)["input_ids"]
    start, *labels = example.ids[example.source :]
    assert start == renderer.start and labels == tokenizer("The cat.")["input_ids"] and labels[-1] in renderer.stop_ids
    assert example.trained == [False] * (example.source + 1) + [True] * len(labels)


def test_a_template_of_the_base_is_used(tmp_path: Path) -> None:
    renderer = Renderer.load(make_seq2seq(tmp_path, template=CHATML))
    text = renderer.decode(renderer.prompt_ids([SYSTEM, ASKED]), skip_special=False)
    assert text.startswith("<|im_start|>system\nBe nice.<|im_end|>") and text.endswith("assistant\n<|im_end|>")


def test_a_long_row_keeps_its_answer_and_both_ends(base: Path) -> None:
    renderer = Renderer.load(base)
    messages = [{"role": "user", "content": "cat " * 90}, SAID]
    whole, cut = renderer.example(messages), renderer.example(messages, max_seq_length=32)
    assert len(cut.ids) == 32 and cut.whole == len(whole.ids) and cut.truncated
    assert cut.ids[cut.source :] == whole.ids[whole.source :]
    assert cut.ids[: cut.source - 1] == whole.ids[: cut.source - 1] and cut.ids[cut.source - 1] in renderer.stop_ids
    both = renderer.example([messages[0], {"role": "assistant", "content": "dog " * 90}], max_seq_length=32)
    assert both.source == 16 and len(both.ids) == 32


@pytest.mark.parametrize("longest", [24, 32, 64, 300])
@pytest.mark.parametrize("lengths", [(1, 40), (40, 1), (12, 14), (60, 60)], ids=str)
def test_answers_that_are_compared_are_to_the_same_source(base: Path, longest: int, lengths: tuple[int, int]) -> None:
    """It is cut for the longer one; what each example says of its whole length, and each answer, is as alone."""
    renderer = Renderer.load(base)
    prompt = [{"role": "user", "content": "cat sat on the mat " * 30}]
    chosen, rejected = ([{"role": "assistant", "content": "dog " * count}] for count in lengths)
    row = Content(prompt=prompt, chosen=chosen, rejected=rejected)
    pair = renderer.examples(row, max_seq_length=longest)
    alone = [renderer.example([*prompt, *answer], max_seq_length=longest) for answer in (chosen, rejected)]
    sources = [one.ids[: one.source] for one in pair]
    assert sources[0] == sources[1] and len(sources[0]) == min(one.source for one in alone)
    for one, single in zip(pair, alone, strict=True):
        assert one.ids[one.source :] == single.ids[single.source :] and one.whole == single.whole
        assert len(one.ids) == len(one.trained) <= longest and sum(one.trained) == sum(single.trained)


def test_an_answer_without_weight_teaches_nothing(base: Path) -> None:
    assert not any(Renderer.load(base).example([ASKED, SAID | {"weight": 0}]).trained)


def test_plain_text_and_tools_are_refused_by_their_line(base: Path, tmp_path: Path) -> None:
    texts = tmp_path / "rows.txt"
    texts.write_text("One text.\n\nAnother text.\n")
    with pytest.raises(TrainerError, match="Line 1 of the dataset: It is plain text"):
        load_dataset(make_spec(base, texts), Renderer.load(base), lambda event: None)
    asked = {"role": "user", "content": "How warm is it?"}
    with pytest.raises(TrainerError, match="could write tools"):
        Renderer.load(base).prompt_ids([asked], [{"type": "function", "function": {"name": "warmth"}}])
