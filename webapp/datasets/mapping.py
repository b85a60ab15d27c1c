"""Reading a file as a person says: its columns, what each one holds, and what the first rows then are."""

from collections.abc import Mapping as Given
from dataclasses import dataclass, fields
from typing import Any

from django.db import transaction

from trainer.formats.canonical import Content, Row
from trainer.formats.mapping import SHAPES, Mapping, mapped_family, problems, suggest
from trainer.formats.problems import BadRow, Problem
from trainer.formats.sample import SAMPLE, read_sample
from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.datasets.mapping_turns import with_turns
from webapp.datasets.models import REVISED, DatasetVersion
from webapp.datasets.preview import ShownRow, shown_row
from webapp.datasets.storing import add_version, files_removed_on_failure, same_original

MOST_SHOWN = 3  # of the first rows
KINDS = {
    "prompt_completion": ("Question and answer", "One column asks, one answers."),
    "chat": ("Conversation", "One column holds the whole conversation."),
    "preference": ("Preferred answer", "Two answers, of which one is better."),
    "labelled": ("Judged answer", "One answer, and whether it is good."),
    "text": ("Plain text", "One column to be learnt as it stands."),
}
TARGETS = {
    "messages": ("Conversation", "A list of messages, or its JSON."),
    "prompt": ("Question", "What a person asks."),
    "answer": ("Answer", "What the model learns to say."),
    "system": ("System message", "Who the model is to be."),
    "context": ("Context", "More to the question, put below it."),
    "history": ("Earlier turns", "Pairs of a question and its answer."),
    "tools": ("Tools", "What the model may call, as JSON."),
    "chosen": ("Better answer", ""),
    "rejected": ("Worse answer", ""),
    "label": ("Judgement", "True or false, or 1 and 0."),
    "text": ("Text", ""),
}


@dataclass(frozen=True)
class Target:
    """A place that a column can fill, with the column that fills it now and what is wrong with that."""

    name: str
    label: str
    hint: str
    required: bool
    column: str
    problem: Problem | None


@dataclass(frozen=True)
class Read:
    """One of the first rows as a mapping reads it: the row, or what is wrong with it."""

    number: int
    content: Content | None = None
    row: ShownRow | None = None
    found: Problem | None = None


def columns_of(version: DatasetVersion) -> list[dict[str, Any]]:
    """Name, samples and type of each column of its file; none where there is no file to read in another way."""
    if version.origin in REVISED or not version.original_path.is_file():
        return []
    columns: list[dict[str, Any]] = version.report.get("columns", [])
    return columns


def asked_mapping(version: DatasetVersion, asked: Given[str, str]) -> Mapping:
    """What the form says; where it says nothing, what was said before or what the names of the columns suggest."""
    return with_turns(version, _asked_columns(version, asked), asked)


def _asked_columns(version: DatasetVersion, asked: Given[str, str]) -> Mapping:
    kind = asked.get("kind", "")
    if kind not in SHAPES:
        return version.mapping or _suggested(version)
    if asked.get("of") != kind:  # the fields that were sent are those of another kind
        return _suggested(version, kind)
    return {"kind": kind, "fields": {name: asked[name] for name in SHAPES[kind].targets if asked.get(name)}}


def _suggested(version: DatasetVersion, kind: str = "") -> Mapping:
    """By the names of the columns; where they say nothing, a single list of objects is the conversation."""
    columns = columns_of(version)
    guess = suggest([column["name"] for column in columns], kind)
    lists = [column["name"] for column in columns if any(one.startswith("[{") for one in column["samples"])]
    says = all(name in guess["fields"] for name in SHAPES[guess["kind"]].required)
    if says or len(lists) != 1 or kind not in ("", "chat"):
        return guess
    return {"kind": "chat", "fields": {"messages": lists[0]}}


def targets(version: DatasetVersion, mapping: Mapping) -> list[Target]:
    """The places of this kind of mapping, in order."""
    shape = SHAPES[mapping["kind"]]
    wrong = {problem.field.removeprefix("fields."): problem for problem in _problems(version, mapping)}
    return [
        Target(name, *TARGETS[name], name in shape.required, mapping["fields"].get(name, ""), wrong.get(name))
        for name in shape.targets
    ]


def first_rows_as(version: DatasetVersion, mapping: Mapping) -> list[Read]:
    """The first rows of its file as the mapping reads them; none while the mapping itself is wrong."""
    return _sample_as(version, mapping, MOST_SHOWN)


def is_hopeless(version: DatasetVersion, mapping: Mapping) -> bool:
    """Whether none of the rows that are kept to look at can be read so."""
    read = _sample_as(version, mapping, None)
    return bool(read) and not any(one.row for one in read)


def _sample_as(version: DatasetVersion, mapping: Mapping, most: int | None) -> list[Read]:
    if _problems(version, mapping):
        return []
    family = mapped_family(mapping)
    read = []
    for number, row in enumerate(read_sample(version.folder / SAMPLE)[:most], 1):
        try:
            content = family.to_content(row)
        except BadRow as bad:
            read.append(Read(number, found=bad.found))
        else:
            read.append(Read(number, content, shown_row(_row(content, number), number)))
    return read


def read_differently(*, user: User, version: DatasetVersion, mapping: Mapping) -> DatasetVersion:
    """The next version, of the same original, whose columns are read as the mapping says."""
    if not columns_of(version):
        raise UserError("no_columns")
    if wrong := _problems(version, mapping):
        name = wrong[0].field.removeprefix("fields.")
        field = TARGETS[name][0] if name in TARGETS else wrong[0].field
        raise UserError("mapping_wrong", field=field, problem=wrong[0].problem, fix=wrong[0].fix)
    if is_hopeless(version, mapping):
        raise UserError("mapping_reads_nothing")
    copy = same_original(version, mapping=mapping, skip_bad_rows=False)
    with files_removed_on_failure([copy]), transaction.atomic():
        add_version(version.dataset, copy, user=user)
    return copy


def _problems(version: DatasetVersion, mapping: Mapping) -> list[Problem]:
    return problems(mapping, [column["name"] for column in columns_of(version)])


def _row(content: Content, number: int) -> Row:
    return Row(id="", line=number, **{field.name: getattr(content, field.name) for field in fields(Content)})
