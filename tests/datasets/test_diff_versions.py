"""What changed between two versions: counted, paged, edits word by word; told by ids, shown to those who may look."""

from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import ROWS, make_checked, make_dataset, make_version
from trainer.formats import comparing, iter_rows
from trainer.formats.canonical import Row
from webapp.datasets import comparisons, tasks, versions
from webapp.datasets.diff import ROWS_PER_PAGE, row_changes, words_changed
from webapp.datasets.models import DatasetVersion
from webapp.datasets.tasks import inspect


def chat(*texts: str, **extra: Any) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} | extra for at, text in enumerate(texts)]


def many(count: int, answer: str = "Yes.") -> list[dict[str, Any]]:
    return [{"messages": chat(f"question {n}", answer)} for n in range(count)]


def changed(cast: Cast, version: DatasetVersion, **changes: Any) -> DatasetVersion:
    made = versions.revise(user=cast.bob, version=version, changes=changes)
    inspect(str(made.pk))
    made.refresh_from_db()
    return made


def page(cast: Cast, version: DatasetVersion, query: str = "", status: int = 200) -> str:
    answer = cast.client("vera").get(reverse("version_diff", args=[version.pk]) + query)
    assert answer.status_code == status
    return answer.content.decode()


def test_edits_are_shown_word_by_word(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    first = next(iter_rows(version.rows_path)).id
    made = changed(cast, version, edit={first: {"messages": chat("Who are you?", "I am <b>Lowrank</b>.")}})
    text = page(cast, made)
    assert "<del>Lowrank</del>" in text or "<ins>&lt;</ins>" in text or "<ins>&lt;b&gt;</ins>" in text
    assert "<b>" not in text
    assert "Who are you?" in text
    assert "What is 2 + 2?" not in text, "rows that stayed are not shown"


def test_each_kind_has_its_tab_and_pages(cast: Cast) -> None:
    version = make_dataset(cast.team, rows=many(ROWS_PER_PAGE + 5)).versions.get()
    made = make_version(version.dataset, rows=many(1))
    text = page(cast, made)
    assert "from=1&amp;kind=removed" in text
    assert f'<span class="num muted">{ROWS_PER_PAGE + 4}</span>' in text
    assert "question 1<" in text
    assert f"question {ROWS_PER_PAGE + 1}<" not in text
    second = page(cast, made, "?from=1&kind=removed&page=2")
    assert f"question {ROWS_PER_PAGE + 1}<" in second
    assert "No such change" in page(cast, made, "?kind=edited")


def test_rows_whose_other_columns_alone_changed_are_shown(cast: Cast, tmp_path: Path) -> None:
    both = [{"messages": chat("Who?", "Me."), "lang": "en", "n": n} for n in range(3)]
    dataset = make_dataset(cast.team)
    version = make_checked(dataset, tmp_path, both)
    made = make_checked(dataset, tmp_path, [both[0], both[1] | {"lang": "de", "source": "x"}, both[2]])
    text = page(cast, made)
    assert 'kind=beside" aria-current="page">Other columns <span class="num muted">1</span>' in text
    assert "<del>en</del><ins>de</ins>" in text and "Source · added" in text
    counts = {"added": 0, "removed": 0, "edited": 0, "moved": 0, "beside": 1}
    assert comparing.change_report(version.rows_path, made.rows_path)["counts"] == counts
    made.changes = counts
    made.save()
    story = cast.client("vera").get(reverse("dataset", args=[dataset.pk]), {"tab": "versions"}).content.decode()
    assert "other columns changed in 1 row<" in story


@pytest.mark.parametrize("query", ["?page=x", "?page=-1", "?page=99999999999", "?kind=magic&page=7"])
def test_odd_addresses_show_a_page(cast: Cast, query: str) -> None:
    version = make_dataset(cast.team).versions.get()
    page(cast, make_version(version.dataset, rows=ROWS[:1]), query)


def test_of_very_many_changes_the_first_are_shown_and_all_are_counted(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "MAX_LISTED", ROWS_PER_PAGE + 1)
    older = make_version(make_dataset(cast.team), rows=many(3))
    newer = make_version(older.dataset, rows=many(30, "No."))
    address = f"{reverse('version_diff', args=[newer.pk])}?from={older.number}&kind=added&page=9"
    for _ in range(2):  # compared, and then remembered
        page = cast.client("vera").get(address).content.decode()
        assert f"the first {ROWS_PER_PAGE + 1} rows" in page
        assert 'Page <span class="num">2</span> of' in page
        assert 'Added <span class="num muted">30</span>' in page


def test_large_versions_are_compared_by_the_worker(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    older = make_version(make_dataset(cast.team), rows=many(3))
    newer = make_version(older.dataset, rows=many(4))
    monkeypatch.setattr(comparisons, "MOST_AT_ONCE", 6)
    monkeypatch.setattr(comparisons, "change_report", None)  # so nothing can be compared in this process
    rung: list[tuple[Any, Any]] = []
    monkeypatch.setattr(tasks, "ring_for_comparison", lambda *both: rung.append(both))
    for _ in range(2):
        text = page(cast, newer, f"?from={older.number}")
        assert "being compared" in text and 'hx-trigger="every 2s"' in text
    assert rung == [(older.pk, newer.pk)], "one bell for both looks"
    tasks.compare(str(older.pk), str(newer.pk))
    for _ in range(2):  # read from the file, and from the cache
        text = page(cast, newer, f"?from={older.number}")
        assert 'Added <span class="num muted">1</span>' in text and "question 3" in text
        assert "every 2s" not in text
    assert not list(newer.folder.glob(".tmp-*"))


def test_the_waiting_page_asks_for_the_changes_alone(cast: Cast) -> None:
    newer = make_version(make_dataset(cast.team).versions.get().dataset, rows=ROWS[:1])
    answer = cast.client("vera").get(reverse("version_diff", args=[newer.pk]), headers={"HX-Request": "true"})
    text = answer.content.decode()
    assert text.startswith('<div class="stack" id="changes">') and "<header" not in text


def test_a_comparison_that_fails_says_why(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    older = make_version(make_dataset(cast.team), rows=many(3))
    newer = make_version(older.dataset, rows=many(4))
    monkeypatch.setattr(comparisons, "MOST_AT_ONCE", 0)
    older.rows_path.write_bytes(b"no rows")
    tasks.compare(str(older.pk), str(newer.pk))
    assert "One of the two files holds no canonical rows." in page(cast, newer, f"?from={older.number}")


def test_any_two_versions_are_compared(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    make_version(version.dataset, rows=ROWS[:1])
    third = make_version(version.dataset, rows=ROWS[:2])
    assert "version 2</a> to" in page(cast, third)
    assert "version 1</a> to" in page(cast, third, "?from=1")
    page(cast, third, "?from=9", status=404)
    page(cast, third, "?from=3", status=404)


def test_the_first_version_has_nothing_before_it(cast: Cast) -> None:
    assert "Nothing to compare with" in page(cast, make_dataset(cast.team).versions.get())


def test_a_missing_file_is_said(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    second = make_version(version.dataset)
    version.rows_path.unlink()
    assert "files of one of the two are missing" in page(cast, second)


def test_words_keep_what_stayed() -> None:
    pieces = words_changed("I am a small model.", "I am a large model!")
    assert "".join(text for mark, text in pieces if mark != "ins") == "I am a small model."
    assert "".join(text for mark, text in pieces if mark != "del") == "I am a large model!"
    assert ("del", "small") in pieces
    assert words_changed("a " * 4000, "b " * 4000)[0][0] == "del", "too long to compare word by word"


def test_messages_are_aligned() -> None:
    first = Row(id="a", line=1, messages=chat("one", "two"))
    second = Row(id="a", line=1, messages=[{"role": "system", "content": "Be brief."}, *chat("one", "three")])
    (section,) = row_changes(first, second)
    assert [(one.role, one.state) for one in section.messages] == [
        ("system", "added"),
        ("user", "same"),
        ("assistant", "edited"),
    ]


def test_weights_labels_and_tools_are_part_of_a_row() -> None:
    answer = chat("no")[0] | {"role": "assistant"}
    first = Row(id="a", line=1, prompt=chat("?"), completion=[answer], label=True, tools=[{"function": {"name": "f"}}])
    second = Row(id="a", line=1, prompt=chat("?"), completion=[answer], label=False)
    found = {section.name: [one.state for one in section.messages] for section in row_changes(first, second)}
    assert found == {"Prompt": ["same"], "Completion": ["same"], "Label": ["edited"], "Tools": ["removed"]}
    heavy = Row(id="a", line=1, messages=[*chat("?"), answer | {"weight": 0}])
    light = Row(id="a", line=1, messages=[*chat("?"), answer])
    assert [one.state for one in row_changes(heavy, light)[0].messages] == ["same", "edited"]


@pytest.mark.parametrize(
    ("before", "after", "pieces"),
    [
        (
            "Ask John.Doe-123@firma-nord.de, now.",
            "Ask [e-mail address], now.",
            [("", "Ask "), ("del", "John.Doe-123@firma-nord.de"), ("ins", "[e-mail address]"), ("", ", now.")],
        ),
        ("one two three", "one 2 three", [("", "one "), ("del", "two"), ("ins", "2"), ("", " three")]),
        ("我是一个助手。", "你是一个老师。", None),
    ],
)
def test_words_that_share_signs_are_not_mixed(before: str, after: str, pieces: list[tuple[str, str]] | None) -> None:
    found = words_changed(before, after)
    assert "".join(text for mark, text in found if mark != "ins") == before
    assert "".join(text for mark, text in found if mark != "del") == after
    assert pieces is None or found == pieces
