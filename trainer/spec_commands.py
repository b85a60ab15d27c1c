"""The commands that take a spec, train and estimate: read it, then call the module that does the work. No torch."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from trainer.errors import TrainerError
from trainer.events import Emit
from trainer.launch import launch
from trainer.process import StopRequest
from trainer.spec import SpecError, TrainSpec
from trainer.spec_values import refusal


def train(given: argparse.Namespace, emit: Emit) -> None:
    should_stop = StopRequest()  # only here: the other commands have nothing to save, and a signal may simply end them
    spec = read_spec(given.spec, out=given.out, resume=given.resume)
    # An invalid spec needs only one process to be reported.
    if spec.model.gpus > 1 and "RANK" not in os.environ and not spec.issues():
        stdout = given.stream.fileno()
        sys.exit(launch(spec.model.gpus, given.arguments, stdout=stdout, should_stop=should_stop))
    sft = importlib.import_module("trainer.sft")
    sft.train(spec, out=given.out, resume=given.resume, emit=emit, should_stop=should_stop)


def estimate(given: argparse.Namespace, emit: Emit) -> None:
    if given.tokens and not given.rows:
        raise TrainerError("user_config", "--tokens needs --rows.", "Give both, or neither.")
    spec = read_spec(given.spec)
    command = importlib.import_module("trainer.estimate_command")
    asked = command.Overrides(given.rows, given.tokens, given.device, given.memory, given.speed)
    command.run(spec, asked, emit)


def read_spec(path: Path, *, out: Path | None = None, resume: Path | None = None) -> TrainSpec:
    """Read a spec from YAML or JSON; its values may still be invalid.

    Raises TrainerError(user_config) if it cannot be read, together with every other problem found.
    """
    try:
        return TrainSpec.from_yaml(path.read_text(encoding="utf-8"), name=str(path))
    except OSError as error:
        text = f"The spec {path} cannot be read: {error.strerror}."
        raise TrainerError("user_config", text, "Name a YAML or JSON file.") from error
    except UnicodeDecodeError as error:
        raise TrainerError("user_config", f"The spec {path} is not a text file.", "Write it as UTF-8.") from error
    except SpecError as error:
        if error.spec is None:
            raise refusal(error.issues) from error
        readiness = importlib.import_module("trainer.readiness")
        raise refusal(readiness.problems_of(error.spec, error.issues, out=out, resume=resume)) from error
