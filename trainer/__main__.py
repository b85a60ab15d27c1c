"""`python -m trainer`: train, check and fetch; events on stdout, all else on stderr."""

import argparse
import errno
import importlib
import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from trainer import failures
from trainer.commands import parser
from trainer.errors import EXIT_CODES, Stopped, TrainerError
from trainer.events import Emit, Finished
from trainer.process import EventStream, die_with_parent, end

# Imported by name only when their command runs: `check` runs often and must not wait a second for torch.
HEAVY = {
    "train": "trainer.spec_commands",
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


def main(arguments: list[str]) -> int:
    """Run one command. Returns the process's exit code."""
    given = parser().parse_args(arguments)
    given.arguments = arguments
    _quiet_libraries()
    die_with_parent()
    stream = EventStream()
    try:
        given.stream = stream
        RUNS[given.command](given, stream.emit)
    except Stopped:
        return EXIT_CODES["stopped"]
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 # the one place where any exception becomes a reported failure
        if failures.is_lost_peer(error):
            return EXIT_CODES["stopped"]
        failure = failures.to_trainer_error(error)
        if not failures.may_report():
            return EXIT_CODES["stopped"]
        stream.emit(failures.as_event(failure))
        return failure.exit_code
    return EXIT_CODES["finished"]


def _quiet_libraries() -> None:
    """Keep library messages for developers out of the log, such as missing optional kernels and deprecations."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of small steps
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)


def run_train(given: argparse.Namespace, emit: Emit) -> None:
    importlib.import_module(HEAVY["train"]).train(given, emit)


def run_estimate(given: argparse.Namespace, emit: Emit) -> None:
    importlib.import_module(HEAVY["train"]).estimate(given, emit)


def run_check(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out)
    check = importlib.import_module(HEAVY["check"])
    mapping = importlib.import_module(HEAVY["mapping"]).read_mapping(given.mapping) if given.mapping else None
    known = check.Known(name=given.name, mapping=mapping, splits_of=given.splits_of)
    check.check_file(given.file, given.out, skip_bad_rows=given.skip_bad_rows, emit=emit, known=known)


def run_revise(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out)
    revise = importlib.import_module(HEAVY["revise"])
    files = (given.rows, given.changes, given.out)
    revise.revise_file(*files, test_file=given.test_file, emit=emit, skip_bad_rows=given.skip_bad_rows)


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


def run_fetch(given: argparse.Namespace, emit: Emit) -> None:
    if given.what == "data":
        _fetch_data(given, emit)
        return
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


def _fetch_data(given: argparse.Namespace, emit: Emit) -> None:
    _make_folder(given.out.parent)
    hub_data = importlib.import_module(HEAVY["fetch data"])
    facts = hub_data.fetch_data(given.id, given.revision, given.out, only=given.only, limit=given.limit, emit=emit)
    emit(Finished(folder=str(given.out), facts=facts))


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"No folder can be made at {out}: {error.strerror}."
        raise TrainerError("user_config", text, "Choose another --out.") from error


RUNS = {
    "train": run_train,
    "estimate": run_estimate,
    "check": run_check,
    "revise": run_revise,
    "survey": run_survey,
    "compare": run_compare,
    "tokens": run_tokens,
    "adapter": run_adapter,
    "fetch": run_fetch,
}

if __name__ == "__main__":
    end(main(sys.argv[1:]))
