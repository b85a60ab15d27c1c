"""`python -m trainer`: train, check and fetch; events as JSON lines on stdout, all else on stderr."""

import argparse
import errno
import importlib
import json
import logging
import os
import signal
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

from trainer import failures
from trainer.errors import EXIT_CODES, Stopped, TrainerError
from trainer.events import Emit, Finished
from trainer.launch import launch
from trainer.process import EventStream, StopWish, die_with_parent
from trainer.spec import SpecError, TrainSpec
from trainer.spec_table import spec_table
from trainer.spec_values import refusal

# Loaded only when their command runs, by name: `check` runs often and must not wait a second for torch.
HEAVY = {
    "train": "trainer.sft",
    "check": "trainer.formats.check",
    "survey": "trainer.formats.survey",
    "compare": "trainer.formats.comparing",
    "tokens": "trainer.token_statistics",
    "mapping": "trainer.formats.mapping",
    "revise": "trainer.formats.revise",
    "adapter": "trainer.adapter_import",
    "adapter layers": "trainer.adapter_layers",
    "fetch": "trainer.bases",
    "fetch data": "trainer.hub_data",
}

EXIT_TEXT = "exit codes: " + ", ".join(f"{number} {name}" for name, number in EXIT_CODES.items())
# Paths that several commands take: name, metavar, help.
OUT = ("--out", "DIR", "folder for what is made")
BASE = ("--base", "FOLDER", "the folder of a base model")
ROWS = ("rows", "ROWS", "a rows.parquet that check or revise wrote")
EVENTS_TEXT = "Events are written to stdout, one JSON object a line; everything else goes to stderr."


def main(arguments: list[str]) -> int:
    """Run one command. Returns the process's exit code."""
    given = _parser().parse_args(arguments)
    given.arguments = arguments
    _quiet_libraries()
    die_with_parent()
    stream = EventStream()
    try:
        given.stream = stream
        given.run(given, stream.emit)
    except Stopped:
        return EXIT_CODES["stopped"]
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 # the one place in the trainer where any failure gets its name
        if failures.is_lost_peer(error):
            return EXIT_CODES["stopped"]
        named = failures.named(error)
        stream.emit(failures.as_event(named))
        return named.exit_code
    return EXIT_CODES["finished"]


def _quiet_libraries() -> None:
    """Keep out of the log what libraries tell their developers: missing optional kernels, names that will change."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of steps too small to be worth a line
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)


def run_train(given: argparse.Namespace, emit: Emit) -> None:
    should_stop = StopWish()  # here alone: the other commands have nothing to save, so a signal may simply end them
    spec = read_spec(given.spec)
    _make_folder(given.out)
    if spec.model.gpus > 1 and "RANK" not in os.environ:
        sys.exit(launch(spec.model.gpus, given.arguments, stdout=given.stream.fileno()))
    sft = importlib.import_module(HEAVY["train"])
    sft.train(spec, out=given.out, resume=given.resume, emit=emit, should_stop=should_stop)


def run_check(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out)
    check = importlib.import_module(HEAVY["check"])
    mapping = importlib.import_module(HEAVY["mapping"]).read_mapping(given.mapping) if given.mapping else None
    check.check_file(
        given.file, given.out, skip_bad_rows=given.skip_bad_rows, emit=emit, name=given.name, mapping=mapping
    )


def run_revise(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out)
    revise = importlib.import_module(HEAVY["revise"])
    revise.revise_file(given.rows, given.changes, given.out, test_file=given.test_file, emit=emit)


def run_survey(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out)
    importlib.import_module(HEAVY["survey"]).survey_rows(given.rows, given.out, emit)


def run_compare(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out)
    importlib.import_module(HEAVY["compare"]).compare_files(given.older, given.newer, given.out, emit)


def run_tokens(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out)
    importlib.import_module(HEAVY["tokens"]).count_tokens(given.rows, given.base, given.out, emit)


def run_adapter(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out)
    importing = importlib.import_module(HEAVY["adapter"])
    if given.what == "layers":
        facts = importlib.import_module(HEAVY["adapter layers"]).layers_of(given.base).to_dict()
    elif given.what == "unpack":
        facts = importing.unpack_sent(given.folder, given.out, limit=given.limit)
    else:
        facts = importing.import_folder(given.folder, given.base, importing.BaseParts.read(given.layers))
    (given.out / f"{given.what}.json").write_text(json.dumps(facts), encoding="utf-8")
    emit(Finished(folder=str(given.out)))


def run_fetch_data(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out.parent)
    hub_data = importlib.import_module(HEAVY["fetch data"])
    facts = hub_data.fetch_data(given.id, given.revision, given.out, only=given.only, limit=given.limit, emit=emit)
    emit(Finished(folder=str(given.out), facts=facts))


def run_fetch(given: argparse.Namespace, emit: Emit) -> None:
    bases = importlib.import_module(HEAVY["fetch"])
    if given.what == "folder":
        facts = bases.inspect_folder(given.path)
        folder = given.path
    else:
        folder = given.out
        _make_folder(folder.parent)
        if given.what == "demo":
            facts = bases.fetch_demo(folder, emit)
        else:
            facts = bases.fetch_hub(given.id, given.revision, folder, emit)
    emit(Finished(folder=str(folder), facts=facts))


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"No folder can be made at {out}: {error.strerror}."
        raise TrainerError("user_config", text, "Choose another --out.") from error


def read_spec(path: Path) -> TrainSpec:
    """A spec from YAML or JSON. Raises TrainerError(user_config) with every problem of it."""
    try:
        spec = TrainSpec.from_yaml(path.read_text(encoding="utf-8"))
        if problems := spec.issues():
            raise SpecError(problems)
    except OSError as error:
        raise TrainerError("user_config", f"The spec {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise TrainerError("user_config", f"The spec {path} is no text.", "Write it as UTF-8.") from error
    except SpecError as error:
        raise refusal(error.issues) from error
    return spec


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=EVENTS_TEXT, epilog=EXIT_TEXT)
    commands = parser.add_subparsers(dest="command", required=True)

    train = _add(
        commands,
        "train",
        help="train an adapter",
        description="Train as SPEC says, write checkpoints to DIR/checkpoints and the adapter to DIR/adapter. "
        "SIGTERM or Ctrl-C writes a checkpoint of the last whole step and ends with exit code 75.",
    )
    _add_path(train, "spec", "SPEC", "YAML or JSON file with the parts model, lora, data, …: see below")
    train.formatter_class = argparse.RawDescriptionHelpFormatter  # the table keeps its lines
    train.description = textwrap.fill(train.description or "", 110)
    train.epilog = f"What a spec may say, with what holds where it says nothing:\n{spec_table()}\n\n{EXIT_TEXT}"
    _add_path(train, *OUT)
    train.add_argument(
        "--resume",
        metavar="FOLDER",
        type=Path,
        help="a checkpoint, or a folder of them or of earlier runs: the furthest sound one is taken",
    )
    train.set_defaults(run=run_train)

    check = _add(
        commands,
        "check",
        help="check a dataset file",
        description="Write DIR/report.json, every bad line to DIR/bad.jsonl and, when the file can be used, "
        "DIR/rows.parquet.",
    )
    _add_path(check, "file", "FILE", "a dataset file")
    _add_path(check, *OUT)
    check.add_argument("--name", default="", help="what the file is called, where its own name does not say")
    check.add_argument("--mapping", metavar="FILE", type=Path, help="JSON that says what each column is")
    check.add_argument("--skip-bad-rows", action="store_true", help="use the good rows of a file that has bad ones")
    check.set_defaults(run=run_check)

    _add_revise(commands)
    _add_survey(commands)
    _add_adapter(commands)
    _add_fetch(commands)
    return parser


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
    revise.set_defaults(run=run_revise)


def _add_survey(commands: Any) -> None:
    survey = _add(
        commands,
        "survey",
        help="make checked rows searchable",
        description="Write DIR/survey.sqlite, by which the rows of ROWS can be searched and filtered, and "
        "DIR/survey.json with what was counted.",
    )
    _add_path(survey, *ROWS)
    _add_path(survey, *OUT)
    survey.set_defaults(run=run_survey)
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
    compare.set_defaults(run=run_compare)
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
    tokens.set_defaults(run=run_tokens)


def _add_adapter(commands: Any) -> None:
    adapter = _add(
        commands,
        "adapter",
        help="take in an adapter that was made elsewhere",
        description="In three steps: take its files out of what was sent, tell a base model's layers, and hold the one "
        "to the other. Each writes DIR/STEP.json.",
    )
    adapter.set_defaults(run=run_adapter)
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
    fetch.set_defaults(run=run_fetch)
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
    data.set_defaults(run=run_fetch_data)
    folder = _add(kinds, "folder", help="check a folder that holds a model")
    folder.add_argument("path", metavar="PATH", type=Path)


def _add(commands: Any, name: str, *, help: str, description: str = "") -> argparse.ArgumentParser:  # noqa: A002
    """A command, by argparse's own words; every one tells of events and exit codes."""
    told = f"{description} {EVENTS_TEXT}" if description else None
    found: argparse.ArgumentParser = commands.add_parser(name, help=help, description=told, epilog=EXIT_TEXT)
    return found


def _add_path(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    """A path that must be given, in its place or by its option."""
    must = {"required": True} if name.startswith("--") else {}
    parser.add_argument(name, metavar=metavar, type=Path, help=text, **must)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
