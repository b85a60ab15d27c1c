"""Rows as a base model sees them: the very tokens and mask that training learns from, shown, cut and counted."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from django.utils.html import escape

from tests.cast import Cast
from tests.datasets.surveyed import make_surveyed
from tests.make import make_base, make_checked, make_dataset, make_version
from tests.tiny import make_tiny_base
from tests.trainer.training import make_spec
from trainer.data import Item, LabelledAnswer, PreferencePair, load_dataset
from trainer.errors import TrainerError
from trainer.rendering import Renderer
from trainer.token_statistics import count_tokens, suggested_length
from webapp.adapters import tasks, token_counts
from webapp.adapters.models import BaseModel
from webapp.adapters.tokens import Conversation, SeenRow, seen_rows
from webapp.datasets.models import DatasetVersion

pytestmark = pytest.mark.django_db

USER = {"role": "user", "content": "What is the capital of France? 🇫🇷 <|im_end|>"}
CHAT: list[dict[str, Any]] = [
    {"messages": [USER, {"role": "assistant", "content": "The capital of France is Paris. 日本 😀"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "The cat?"},
            {"role": "assistant", "content": "Sat.", "weight": 0},
            {"role": "user", "content": "And the dog?"},
            {"role": "assistant", "content": "Ran after the ball, and after that it ran after the cat. " * 5},
        ]
    },
]
PAIRS = [{"prompt": "Is the cat here?", "chosen": "The cat sat on the mat.", "rejected": "No idea 🐈."}]
JUDGED = [
    {"prompt": "Is the cat here?", "completion": "The cat sat.", "label": True},
    {"prompt": "Where is the dog?", "completion": "It ran after the ball.", "label": False},
]
TEXTS = [{"text": "The cat sat on the mat.\nThe dog ran. 🐕"}, {"text": "Paris is the capital."}]


@pytest.fixture
def base(cast: Cast, tmp_path: Path) -> BaseModel:
    return make_base(path=make_tiny_base(tmp_path / "base"))


def make(cast: Cast, folder: Path, rows: list[dict[str, Any]]) -> DatasetVersion:
    return make_checked(make_dataset(cast.team), folder, rows)


def ids_of(one: Conversation) -> list[int]:
    return [token for shown in one.kept for token in shown.ids]


def mask_of(one: Conversation) -> list[int]:
    return [int(shown.trained) for shown in one.kept for _ in shown.ids]


def same(one: Conversation, item: Item) -> None:
    """Training leaves off what follows the last token that is learnt."""
    ids, mask = ids_of(one), mask_of(one)
    end = len(item.ids)
    assert ids[:end] == list(item.ids)
    assert mask[:end] == list(item.loss_mask)
    assert not any(mask[end:])


def items_of(row: Any) -> list[Item]:
    if isinstance(row, PreferencePair):
        return [row.chosen, row.rejected]
    return [row.answer] if isinstance(row, LabelledAnswer) else [row]


@pytest.mark.parametrize("length", [512, 40, 21])
@pytest.mark.parametrize(
    ("rows", "method", "train_on"),
    [
        (CHAT, "sft", "answers"),
        (CHAT, "sft", "everything"),
        (TEXTS, "sft", "answers"),
        (PAIRS, "dpo", "answers"),
        (JUDGED, "kto", "answers"),
    ],
)
def test_what_is_shown_is_what_is_trained(
    cast: Cast, tmp_path: Path, base: BaseModel, *, rows: list[dict[str, Any]], method: str, train_on: str, length: int
) -> None:
    version = make(cast, tmp_path, rows)
    data = {"max_seq_length": length, "train_on": train_on, "method": method, "holdout": 0.0}
    shown = seen_rows(version, base, start=1, train_on=train_on, max_seq_length=length)  # type: ignore[arg-type]
    learnt = [row for row in shown if not row.left_out]
    assert all(not row.refused for row in shown)
    if not learnt:
        return
    spec = make_spec(base.folder, version.rows_path, data=data)
    dataset = load_dataset(spec, Renderer.load(base.folder), lambda event: None)
    assert len(learnt) == len(dataset.train)
    for row, trained in zip(learnt, dataset.train, strict=True):
        for one, item in zip(row.conversations, items_of(trained), strict=True):
            same(one, item)
            assert one.trained == item.trained_tokens


def row_of(cast: Cast, folder: Path, base: BaseModel, *, length: int = 512) -> SeenRow:
    version = make(cast, folder, CHAT[:1])
    return seen_rows(version, base, start=1, train_on="answers", max_seq_length=length)[0]


def test_the_text_is_whole_where_tokens_are_parts_of_characters(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    one = row_of(cast, tmp_path, base).conversations[0]
    text = "".join(token.text for token in one.tokens)
    assert text == Renderer.load(base.folder).text(CHAT[0]["messages"])
    assert any(token.text == "😀" and len(token.ids) > 1 for token in one.tokens)
    assert "�" not in text
    learnt = "".join(token.text for token in one.tokens if token.trained)
    assert learnt == "The capital of France is Paris. 日本 😀<|im_end|>"
    assert "".join(piece.text for piece in one.kept_text) == text


def test_what_a_person_spells_is_no_special_token(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    one = row_of(cast, tmp_path, base).conversations[0]
    special = [token.text for token in one.tokens if token.special]
    assert special == ["<|im_start|>", "<|im_end|>"] * 3


def test_the_cut_is_where_it_is_made(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    whole = row_of(cast, tmp_path, base).conversations[0]
    one = row_of(cast, tmp_path, base, length=whole.count - 3).conversations[0]
    assert one.lost == 3
    assert sum(len(token.ids) for token in one.beyond) == 3
    assert ids_of(one) == ids_of(whole)[:-3]
    assert row_of(cast, tmp_path, base, length=16).left_out


def page(cast: Cast, version: DatasetVersion, who: str = "bob", **query: Any) -> str:
    answer = cast.client(who).get(reverse("version_seen", args=[version.pk]), query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_page_shows_tokens_text_and_chat(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, CHAT)
    tokens = page(cast, version, "vera")
    assert "tok-trained" in tokens
    assert escape("<|im_start|>") in tokens
    assert "cut at" not in tokens
    cut = page(cast, version, length=40, view="text")
    assert "cut at 40 tokens" in cut
    assert "cut away" in cut
    chat = page(cast, version, view="chat")
    assert "bubble-assistant" in chat
    assert "read, not learned" in chat


def test_both_answers_are_shown(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    text = page(cast, make(cast, tmp_path, PAIRS))
    assert text.index(">Chosen<") < text.index(">Rejected<")


def test_a_base_without_a_chat_template_says_so(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, CHAT)
    (base.folder / "chat_template.jinja").unlink(missing_ok=True)
    config = base.folder / "tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "chat_template"}))
    assert "The base model has no chat template." in page(cast, version)
    tasks.count_tokens(str(version.pk), str(base.pk))
    assert "The base model has no chat template." in str(token_counts.counts_of(version, base))


def test_without_a_base_model_or_rows_it_says_so(cast: Cast, tmp_path: Path) -> None:
    version = make(cast, tmp_path, CHAT)
    assert "No base model is ready yet" in page(cast, version)
    make_base()
    assert "it has no rows to train on" in page(cast, make_version(version.dataset, status="rejected"))


@pytest.mark.parametrize("query", [{"base": "x", "length": "-1", "start": "0", "view": "?"}, {"start": 10**9}])
def test_nonsense_shows_what_there_is(cast: Cast, tmp_path: Path, base: BaseModel, query: dict[str, Any]) -> None:
    assert 'id="row-' in page(cast, make(cast, tmp_path, CHAT), **query)


def test_rows_are_paged(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, [{"prompt": f"{n}?", "completion": "The cat."} for n in range(12)])
    assert 'id="row-6"' in page(cast, version, start=6)
    assert "start=11" in page(cast, version, start=6)
    assert 'id="row-5"' not in page(cast, version, start=6)


def test_tokens_are_counted_by_a_worker_and_kept(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, CHAT)
    assert "The tokens are being counted" in page(cast, version)
    tasks.count_tokens(str(version.pk), str(base.pk))
    counts = token_counts.counts_of(version, base)
    assert counts
    renderer = Renderer.load(base.folder)
    lengths = [len(renderer.example(row["messages"]).ids) for row in CHAT]
    trained = [sum(renderer.example(row["messages"]).learnt) for row in CHAT]
    assert counts["all_tokens"] == sum(lengths)
    assert counts["trained_share"] == sum(trained) / sum(lengths)
    assert counts["tokens"]["max"] == max(lengths)
    assert sum(bar["rows"] for bar in counts["tokens"]["bars"]) == 2
    assert not list(version.folder.glob(".tmp-*")), "what the child wrote aside is gone"
    text = page(cast, version)
    assert "<rect " in text
    link = f"{reverse('job_new')}?dataset={version.pk}&amp;base={base.pk}&amp;max_seq_length={counts['suggested']}"
    assert link in text


def test_the_counts_are_asked_for_until_they_are_there(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, CHAT)
    place = reverse("version_tokens", args=[version.pk])
    client = cast.client("vera")
    assert 'hx-trigger="every 2s"' in client.get(place).content.decode()
    tasks.count_tokens(str(version.pk), str(base.pk))
    assert "every 2s" not in client.get(place).content.decode()


def test_a_count_of_what_is_gone_does_nothing(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, CHAT)
    version.dataset.delete()
    tasks.count_tokens(str(version.pk), str(base.pk))


def test_a_fault_of_our_own_names_its_log(
    cast: Cast, tmp_path: Path, base: BaseModel, caplog: pytest.LogCaptureFixture
) -> None:
    version = make(cast, tmp_path, CHAT)
    version.rows_path.unlink()
    tasks.count_tokens(str(version.pk), str(base.pk))
    failure = str(token_counts.counts_of(version, base))
    assert "ended unexpectedly" in failure or "on our side" in failure
    assert caplog.text


THOUGHT = {"role": "assistant", "content": "Sat.", "reasoning_content": "A cat sits."}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
REFUSED = {
    "messages": [
        {"role": "user", "content": "Add"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "a", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
}


def test_what_the_template_passes_over_or_refuses_is_told(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, [*CHAT, {"messages": [CHAT[1]["messages"][1], THOUGHT]}, REFUSED])
    tasks.count_tokens(str(version.pk), str(base.pk))
    text = " ".join(page(cast, version).split())
    assert "1 row has reasoning that the chat template of" in text
    assert "1 row cannot be trained on with this base model; a job would fail.</strong> Line 4: The base model" in text
    assert "writes none, or not all, of the row’s reasoning" in text
    assert text.count("cannot render an answer with tool calls") == 2, "with the counts, and at the row itself"
    spec = make_spec(base.folder, version.rows_path)
    with pytest.raises(TrainerError, match="Line 4 of the dataset: The base model's chat template cannot render an"):
        load_dataset(spec, Renderer.load(base.folder), lambda event: None)


def test_reasoning_is_shown_with_the_answer(cast: Cast, tmp_path: Path) -> None:
    version = make(cast, tmp_path, [{"messages": [CHAT[1]["messages"][1], THOUGHT]}])
    for name, args in (("row", [version.pk, 1]), ("dataset", [version.dataset_id])):
        text = cast.client("vera").get(reverse(name, args=args)).content.decode()
        assert "A cat sits." in text.split('class="raw"')[0]
    row = cast.client("vera").get(reverse("row", args=[version.pk, 1])).content.decode()
    assert f"{reverse('version_seen', args=[version.pk])}?start=1" in row


def test_the_chosen_length_is_counted_and_leads_to_its_rows(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make_surveyed(
        make_dataset(cast.team), tmp_path, [{"prompt": "The cat?", "completion": "The dog. " * n} for n in (1, 2, 90)]
    )
    tasks.count_tokens(str(version.pk), str(base.pk))
    text = page(cast, version, length=100)
    over = text.split('id="token-over"')[1].split("</section>")[0]
    assert re.findall(r"length=(\d+)", over)[:2] == ["100", "128"]
    links = re.findall(r'href="([^"]+shortest=\d+)"', over)
    counts = token_counts.counts_of(version, base)
    assert counts
    assert len(links) == sum(one.rows > 0 for one in token_counts.rows_over(counts, 100))
    found = cast.client("vera").get(links[0]).content.decode()
    assert re.findall(r'<tr data-number="(\d+)"', found) == ["3"]


def test_counts_of_an_earlier_release_are_made_again(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, CHAT)
    (version.folder / f"tokens-{base.pk}.json").write_text('{"rows": 2}')
    assert token_counts.counts_of(version, base) is None
    tasks.count_tokens(str(version.pk), str(base.pk))
    assert token_counts.counts_of(version, base)


def test_of_many_rows_a_sample_is_counted(
    tmp_path: Path, cast: Cast, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": "The cat?", "completion": "The dog. " * (1 + n % 4)} for n in range(400)]
    version = make(cast, tmp_path, rows)
    renderer = Renderer.load(base.folder)
    exact = sum(len(renderer.example(row["messages"]).ids) for row in _as_chat(rows))
    monkeypatch.setattr("trainer.token_statistics.SAMPLE_ROWS", 50)
    count_tokens(version.rows_path, base.folder, tmp_path, lambda event: None)
    counts = json.loads((tmp_path / "tokens.json").read_text())
    assert (counts["rows"], counts["sampled"]) == (400, 50)
    assert counts["all_tokens"] == pytest.approx(exact, rel=0.1)
    (tmp_path / "tokens.json").replace(version.folder / f"tokens-{base.pk}.json")
    assert "Counted on 50 rows spread evenly over all 400" in page(cast, version)


def _as_chat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in rows
    ]


@pytest.mark.parametrize(
    ("lengths", "suggested"),
    [([10, 20], 128), ([128], 128), ([129], 256), ([200] * 99 + [240], 256), ([200] * 198 + [9000], 256), ([], 0)],
)
def test_the_suggested_length_keeps_nearly_all_rows_whole(lengths: list[int], suggested: int) -> None:
    assert suggested_length(lengths) == suggested


def test_the_form_of_a_job_takes_what_the_link_says(cast: Cast, tmp_path: Path, base: BaseModel) -> None:
    version = make(cast, tmp_path, PAIRS)
    client = cast.client("bob")
    query = {"dataset": version.pk, "base": base.pk, "max_seq_length": 384}
    form = client.get(reverse("job_new"), query).context["form"]
    assert (form["data_max_seq_length"].value(), form["data_method"].value()) == (384, "dpo")
    usual = client.get(reverse("job_new"), {"max_seq_length": "x"}).context["form"]
    assert usual["data_max_seq_length"].value() != "x"


@pytest.mark.parametrize(("rows", "method"), [(CHAT, "sft"), (PAIRS, "dpo"), (JUDGED, "kto"), (TEXTS, "sft")])
def test_the_method_fits_the_rows(
    cast: Cast, tmp_path: Path, base: BaseModel, rows: list[dict[str, Any]], method: str
) -> None:
    version = make(cast, tmp_path, rows)
    form = cast.client("bob").get(reverse("job_new"), {"dataset": version.pk}).context["form"]
    assert form["data_method"].value() == method
