"""The commands of `python -m trainer`: their names, what they take, and what `--help` says of them."""

import argparse
import importlib
import re
import textwrap
from pathlib import Path
from typing import Any

from trainer.errors import EXIT_CODES

EXIT_TEXT = "exit codes: " + ", ".join(f"{number} {name}" for name, number in EXIT_CODES.items())
# Paths that several commands take: name, metavar, help.
OUT = ("--out", "DIR", "folder for what is made")
BASE = ("--base", "FOLDER", "the folder of a base model")
ROWS = ("rows", "ROWS", "a rows.parquet that check or revise wrote")
MAPPING_TEXT = (
    "chat: messages [system tools]; prompt_completion: prompt answer [context system history tools]; preference: "
    "chosen rejected [prompt context system history tools]; labelled: prompt answer label [context system history "
    'tools]; text: text. How the turns of a chat are written is said by "turns": {"role": "speaker", "text": "said", '
    '"user": ["Ann"], "assistant": ["Bot"]}.'
)
EVENTS_TEXT = "Events are written to stdout, one JSON object a line; everything else goes to stderr."


def parser() -> argparse.ArgumentParser:
    """The parser of them all."""
    whole = argparse.ArgumentParser(prog="python -m trainer", description=EVENTS_TEXT, epilog=EXIT_TEXT)
    commands = whole.add_subparsers(dest="command", required=True)

    _add_train(commands)
    _add_estimate(commands)
    check = _add(
        commands,
        "check",
        help="check a dataset file",
        description="Write DIR/report.json, every bad line to DIR/bad.jsonl and, when the file can be used, "
        "DIR/rows.parquet. The first errors are told as events too. A mapping is such as "
        '{"kind": "prompt_completion", "fields": {"prompt": "question", "answer": "reply"}}: a kind, and the column '
        f"of each of its fields. {MAPPING_TEXT} For findings (repeated rows, keys, answers that break off, …) run "
        "survey on DIR/rows.parquet.",
    )
    _add_path(check, "file", "FILE", "a dataset file")
    _add_path(check, *OUT)
    check.add_argument("--name", default="", help="what the file is called, where its own name does not say")
    check.add_argument("--mapping", metavar="FILE", type=Path, help="JSON that says what each column is")
    earlier = "a rows.parquet of an earlier state: rows that FILE has again keep their split"
    check.add_argument("--splits-of", metavar="ROWS", type=Path, help=earlier)
    check.add_argument("--skip-bad-rows", action="store_true", help="use the good rows of a file that has bad ones")

    _add_revise(commands)
    _add_survey(commands)
    _add_adapter(commands)
    _add_fetch(commands)
    return whole


def _add_train(commands: Any) -> None:
    train = _add(
        commands,
        "train",
        help="train an adapter",
        description="Train as SPEC says, write checkpoints to DIR/checkpoints and the adapter to DIR/adapter. "
        "SIGTERM or Ctrl-C writes a checkpoint of the last whole step and ends with exit code 75.",
        add_help=False,
    )
    _add_spec(train)
    _add_path(train, *OUT)
    train.add_argument(
        "--resume",
        metavar="FOLDER",
        type=Path,
        help="an earlier run's DIR, a folder of such, or a checkpoint: the furthest sound one is gone on from",
    )


def _add_estimate(commands: Any) -> None:
    foretold = _add(
        commands,
        "estimate",
        help="tell what a training will take",
        description="Tell the memory that training as SPEC says will take, and what would lower it, without training: "
        "on this machine, or on another one. The rows are read and counted.",
        add_help=False,
    )
    _add_spec(foretold)
    foretold.add_argument("--rows", type=_count, metavar="N", help="so many rows, in place of reading the spec's file")
    foretold.add_argument("--tokens", type=_count, metavar="N", help="of each of them; data.max_seq_length without it")
    foretold.add_argument("--device", choices=("cpu", "cuda"), help="what to train on; without it what is here")
    foretold.add_argument("--memory", type=_amount, metavar="GB", help="what it has; without it what is here")
    foretold.add_argument("--speed", type=_amount, metavar="N", help="tokens a second that an earlier training told")


def _add_spec(command: argparse.ArgumentParser) -> None:
    """The spec, whose table is in the help: made only for who asks, since `check` runs often."""
    _add_path(command, "spec", "SPEC", "YAML or JSON file with the parts model, lora, data, …: see below")
    command.formatter_class = argparse.RawDescriptionHelpFormatter  # the table keeps its lines
    command.description = textwrap.fill(command.description or "", 110)
    command.add_argument("-h", "--help", nargs=0, action=_HelpWithTable, help="show this, and all that a spec may say")


class _HelpWithTable(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        table = importlib.import_module("trainer.spec_table").spec_table()
        parser.epilog = f"What a spec may say, with what holds where it says nothing:\n{table}\n\n{EXIT_TEXT}"
        parser.print_help()
        parser.exit()


def _amount(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not float(text):
        raise argparse.ArgumentTypeError("write a number above 0")
    return float(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("write a whole number above 0")
    return int(text)


def _add_revise(commands: Any) -> None:
    revise = _add(
        commands,
        "revise",
        help="change rows that were checked",
        description="Write DIR/rows.parquet and DIR/report.json: the rows of ROWS with the changes of CHANGES, a JSON "
        'object of "remove" (a list of row ids), "edit" (row ids with their new rows), "add" (a list of rows), '
        '"splits" (such as {"method": "random", "shares": {"test": 0.1}, "seed": 42}) and "mask" (a list: '
        '"secret", "personal").',
    )
    _add_path(revise, *ROWS)
    _add_path(revise, "--changes", "CHANGES", "a JSON file")
    _add_path(revise, *OUT)
    revise.add_argument("--test-file", metavar="FILE", type=Path, help='rows of their own split, for the method "file"')
    revise.add_argument("--skip-bad-rows", action="store_true", help="use its good rows alone")


def _add_survey(commands: Any) -> None:
    survey = _add(
        commands,
        "survey",
        help="look through checked rows: findings, and what they can be searched by",
        description="Write DIR/survey.sqlite, by which the rows of ROWS can be searched and filtered, with a table "
        "findings (number of the row, kind, detail): repeated and nearly repeated rows, keys and personal data, "
        "answers that are empty or break off, and more. DIR/survey.json has how many there are of each kind.",
    )
    _add_path(survey, *ROWS)
    _add_path(survey, *OUT)
    compare = _add(
        commands,
        "compare",
        help="tell what changed from one file of checked rows to another",
        description="Write DIR/changes.json: how many rows were added, removed, edited or moved to another split, and "
        "which the first of each are.",
    )
    _add_path(compare, "older", "OLDER", ROWS[2])
    _add_path(compare, "newer", "NEWER", "another one")
    _add_path(compare, *OUT)
    tokens = _add(
        commands,
        "tokens",
        help="count the tokens of checked rows",
        description="Write DIR/tokens.json: how many tokens the rows of ROWS have for a base model, and how many of "
        "them are learnt. Of very many rows a sample is counted.",
    )
    _add_path(tokens, *ROWS)
    _add_path(tokens, *BASE)
    _add_path(tokens, *OUT)


def _add_adapter(commands: Any) -> None:
    adapter = _add(
        commands,
        "adapter",
        help="take in an adapter that was made elsewhere",
        description="In three steps: take its files out of what was sent, tell a base model's layers, and hold the one "
        "to the other. Each writes DIR/STEP.json.",
    )
    steps = adapter.add_subparsers(dest="what", required=True)
    unpack = _add(steps, "unpack", help="an archive, or files, into DIR/adapter")
    _add_path(unpack, "folder", "SENT", "a folder of files 0, 1, … with names.json")
    unpack.add_argument("--limit", type=int, default=4 << 30, metavar="BYTES", help="the most that is unpacked")
    layers = _add(steps, "layers", help="the layers of a base model that take an update")
    check = _add(steps, "check", help="check an adapter, and put its folder in order")
    check.add_argument("folder", metavar="ADAPTER", type=Path)
    _add_path(check, "--layers", "FILE", "what `layers` told")
    for step in (layers, check):
        _add_path(step, *BASE)
    for step in (unpack, layers, check):
        _add_path(step, *OUT)


def _add_fetch(commands: Any) -> None:
    fetch = _add(commands, "fetch", help="bring a base model here", description="Bring a base model here.")
    kinds = fetch.add_subparsers(dest="what", required=True)
    demo = _add(kinds, "demo", help="the demo model")
    hub = _add(kinds, "hub", help="a model of the hub, by id and revision")
    hub.add_argument("id", metavar="ID", help="owner/name")
    hub.add_argument("--revision", default="", help="branch, tag or commit; the main branch when left out")
    for kind in (demo, hub):
        _add_path(kind, "--out", "DIR", "where the model is to lie")
    data = _add(kinds, "data", help="the data files of a dataset of the hub, as one file")
    data.add_argument("id", metavar="ID", help="owner/name")
    data.add_argument("--revision", default="", help="branch, tag or commit; the main branch when left out")
    data.add_argument("--only", default="", metavar="TEXT", help="only files with this in their path")
    data.add_argument("--limit", type=int, default=4 << 30, metavar="BYTES", help="the most that is fetched")
    _add_path(data, "--out", "FILE", "where the file is to lie")
    folder = _add(kinds, "folder", help="check a folder that holds a model")
    folder.add_argument("path", metavar="PATH", type=Path)


def _add(commands: Any, name: str, *, help: str, description: str = "", **more: Any) -> argparse.ArgumentParser:  # noqa: A002
    """A command, by argparse's own words; every one tells of events and exit codes."""
    told = f"{description} {EVENTS_TEXT}" if description else None
    found: argparse.ArgumentParser = commands.add_parser(name, help=help, description=told, epilog=EXIT_TEXT, **more)
    return found


def _add_path(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    """A path that must be given, in its place or by its option."""
    must = {"required": True} if name.startswith("--") else {}
    parser.add_argument(name, metavar=metavar, type=Path, help=text, **must)  # type: ignore[arg-type]
