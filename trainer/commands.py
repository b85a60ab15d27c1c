"""The command line of `python -m trainer`: commands, arguments and help texts."""

import argparse
import importlib
import re
import textwrap
from pathlib import Path
from typing import Any

from trainer.errors import EXIT_CODES

EXIT_TEXT = "exit codes: " + ", ".join(f"{number} {name}" for name, number in EXIT_CODES.items())
# Paths that several commands take: name, metavar, help.
OUT = ("--out", "DIR", "output folder")
BASE = ("--base", "FOLDER", "folder of a base model")
ROWS = ("rows", "ROWS", "a rows.parquet written by check or revise")
MAPPING_TEXT = (
    "chat: messages [system tools]; prompt_completion: prompt answer [context system history tools]; preference: "
    "chosen rejected [prompt context system history tools]; labelled: prompt answer label [context system history "
    'tools]; text: text. "turns" says how a chat writes its turns: {"role": "speaker", "text": "said", '
    '"user": ["Ann"], "assistant": ["Bot"]}.'
)
EVENTS_TEXT = (
    "Events are written to stdout: as text on a terminal, else one JSON object a line. All else goes to stderr."
)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(prog="python -m trainer", description=EVENTS_TEXT, epilog=EXIT_TEXT)
    commands = whole.add_subparsers(dest="command", required=True)

    _add_train(commands)
    _add_estimate(commands)
    check = _add(
        commands,
        "check",
        help="check a dataset file",
        description="Write DIR/report.json, every bad line to DIR/bad.jsonl and, when the file can be used, "
        "DIR/rows.parquet. The first errors are reported as events, too. A mapping names a kind and the column of "
        'each of its fields, such as {"kind": "prompt_completion", "fields": {"prompt": "question", "answer": '
        f'"reply"}}}}. {MAPPING_TEXT} For findings (repeated rows, keys, answers that break off, …) run '
        "survey on DIR/rows.parquet.",
    )
    _add_path(check, "file", "FILE", "a dataset file")
    _add_path(check, *OUT)
    check.add_argument("--name", default="", help="the file's original name, if its path does not show the format")
    check.add_argument("--mapping", metavar="FILE", type=Path, help="JSON file with the meaning of each column")
    earlier = "an earlier rows.parquet: rows that FILE still has keep their split"
    check.add_argument("--splits-of", metavar="ROWS", type=Path, help=earlier)
    check.add_argument("--skip-bad-rows", action="store_true", help="skip bad rows instead of rejecting the file")

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
        "SIGTERM or Ctrl-C writes a checkpoint of the last complete step and exits with code 75.",
        add_help=False,
    )
    _add_spec(train)
    _add_path(train, *OUT)
    train.add_argument(
        "--resume",
        metavar="FOLDER",
        type=Path,
        help="an earlier run's DIR, a folder of runs, or a checkpoint: resumes from the latest valid one",
    )


def _add_estimate(commands: Any) -> None:
    estimate = _add(
        commands,
        "estimate",
        help="estimate the memory and time of a training run",
        description="Estimate the memory that training as SPEC says will take, and how to lower it, without training: "
        "on this machine or another one. The rows are read and their tokens counted.",
        add_help=False,
    )
    _add_spec(estimate)
    estimate.add_argument("--rows", type=_count, metavar="N", help="number of rows, instead of reading the spec's file")
    estimate.add_argument("--tokens", type=_count, metavar="N", help="tokens per row; default: data.max_seq_length")
    estimate.add_argument("--device", choices=("cpu", "cuda"), help="device to train on; default: this machine's")
    estimate.add_argument("--memory", type=_amount, metavar="GB", help="memory of the device; default: this machine's")
    estimate.add_argument("--speed", type=_amount, metavar="N", help="tokens per second of an earlier run")


def _add_spec(command: argparse.ArgumentParser) -> None:
    """Add the spec argument. Its table is built only for `--help`, since `check` runs often."""
    _add_path(command, "spec", "SPEC", "YAML or JSON file with the parts model, lora, data, …: see below")
    command.formatter_class = argparse.RawDescriptionHelpFormatter  # keep the table's line breaks
    command.description = textwrap.fill(command.description or "", 110)
    command.add_argument("-h", "--help", nargs=0, action=_HelpWithTable, help="show this and all values of a spec")


class _HelpWithTable(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        table = importlib.import_module("trainer.spec_table").spec_table()
        parser.epilog = f"All values of a spec with their defaults:\n{table}\n\n{EXIT_TEXT}"
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
        help="change checked rows",
        description="Write DIR/rows.parquet and DIR/report.json: the rows of ROWS with the changes of CHANGES, a JSON "
        'object of "remove" (a list of row ids), "edit" (row ids with their new rows), "add" (a list of rows), '
        '"splits" (such as {"method": "random", "shares": {"test": 0.1}, "seed": 42}) and "mask" (a list: '
        '"secret", "personal").',
    )
    _add_path(revise, *ROWS)
    _add_path(revise, "--changes", "CHANGES", "a JSON file")
    _add_path(revise, *OUT)
    revise.add_argument("--test-file", metavar="FILE", type=Path, help='rows of the test split, for the method "file"')
    revise.add_argument("--skip-bad-rows", action="store_true", help="skip bad rows of the test file")


def _add_survey(commands: Any) -> None:
    survey = _add(
        commands,
        "survey",
        help="survey checked rows: findings and a search index",
        description="Write DIR/survey.sqlite, an index to search and filter the rows of ROWS, with a table "
        "findings (row number, kind, detail): repeated and nearly repeated rows, keys and personal data, answers "
        "that are empty or break off, and more. DIR/survey.json has the number of findings of each kind.",
    )
    _add_path(survey, *ROWS)
    _add_path(survey, *OUT)
    compare = _add(
        commands,
        "compare",
        help="compare two files of checked rows",
        description="Write DIR/changes.json: how many rows were added, removed, edited or moved to another split, and "
        "the first ones of each.",
    )
    _add_path(compare, "older", "OLDER", ROWS[2])
    _add_path(compare, "newer", "NEWER", "a later one")
    _add_path(compare, *OUT)
    tokens = _add(
        commands,
        "tokens",
        help="count the tokens of checked rows",
        description="Write DIR/tokens.json: how many tokens the rows of ROWS have for a base model, and how many of "
        "them are trained. Large files are sampled.",
    )
    _add_path(tokens, *ROWS)
    _add_path(tokens, *BASE)
    _add_path(tokens, *OUT)


def _add_adapter(commands: Any) -> None:
    adapter = _add(
        commands,
        "adapter",
        help="import an adapter made elsewhere",
        description="Import an adapter in three steps: unpack the uploaded files, list a base model's layers, and "
        "check the adapter against them. Each step writes DIR/STEP.json.",
    )
    steps = adapter.add_subparsers(dest="what", required=True)
    unpack = _add(steps, "unpack", help="unpack an archive, or files, into DIR/adapter")
    _add_path(unpack, "folder", "SENT", "a folder of files 0, 1, … with names.json")
    unpack.add_argument("--limit", type=int, default=4 << 30, metavar="BYTES", help="most bytes to unpack")
    layers = _add(steps, "layers", help="list the layers of a base model that LoRA can adapt")
    check = _add(steps, "check", help="check an adapter and normalise its folder")
    check.add_argument("folder", metavar="ADAPTER", type=Path)
    _add_path(check, "--layers", "FILE", "output of `layers`")
    for step in (layers, check):
        _add_path(step, *BASE)
    for step in (unpack, layers, check):
        _add_path(step, *OUT)


def _add_fetch(commands: Any) -> None:
    fetch = _add(commands, "fetch", help="fetch a model or dataset", description="Fetch a base model or a dataset.")
    kinds = fetch.add_subparsers(dest="what", required=True)
    demo = _add(kinds, "demo", help="the demo model")
    hub = _add(kinds, "hub", help="a model from the hub, by id and revision")
    hub.add_argument("id", metavar="ID", help="owner/name")
    hub.add_argument("--revision", default="", help="branch, tag or commit; the main branch when left out")
    for kind in (demo, hub):
        _add_path(kind, "--out", "DIR", "folder for the model")
    data = _add(kinds, "data", help="the data files of a hub dataset, as one file")
    data.add_argument("id", metavar="ID", help="owner/name")
    data.add_argument("--revision", default="", help="branch, tag or commit; the main branch when left out")
    data.add_argument("--only", default="", metavar="TEXT", help="only files with this in their path")
    data.add_argument("--limit", type=int, default=4 << 30, metavar="BYTES", help="most bytes to fetch")
    _add_path(data, "--out", "FILE", "output file")
    folder = _add(kinds, "folder", help="check a folder with a model")
    folder.add_argument("path", metavar="PATH", type=Path)


def _add(commands: Any, name: str, *, help: str, description: str = "", **more: Any) -> argparse.ArgumentParser:  # noqa: A002
    """Add a command; its help mentions events and exit codes."""
    about = f"{description} {EVENTS_TEXT}" if description else None
    added: argparse.ArgumentParser = commands.add_parser(name, help=help, description=about, epilog=EXIT_TEXT, **more)
    return added


def _add_path(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    """Add a required path, positional or an option."""
    required = {"required": True} if name.startswith("--") else {}
    parser.add_argument(name, metavar=metavar, type=Path, help=text, **required)  # type: ignore[arg-type]
