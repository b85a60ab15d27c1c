"""Failures the trainer reports by name: a code, a text and a fix a person can act on, and the process's exit code."""

from typing import Literal, get_args

FailureCode = Literal[
    "user_config",
    "dataset_invalid",
    "input_changed",
    "out_of_memory",
    "diverged",
    "disk_full",
    "internal",
]
FAILURE_CODES: tuple[str, ...] = get_args(FailureCode)

# What the process of `python -m trainer` ends with. 75 is EX_TEMPFAIL: asked to stop; run it again.
# What was trained lies in a checkpoint then; while the model still loads there is nothing to keep.
EXIT_CODES: dict[str, int] = {
    "finished": 0,
    "internal": 1,
    "user_config": 2,
    "dataset_invalid": 3,
    "input_changed": 4,
    "out_of_memory": 5,
    "diverged": 6,
    "disk_full": 7,
    "stopped": 75,
}


class TrainerError(Exception):
    """An expected failure.

    `code` is one of FAILURE_CODES, `text` says what happened and where, `fix` what the person can do about it.
    """

    def __init__(self, code: FailureCode, text: str, fix: str = "") -> None:
        super().__init__(text)
        self.code: FailureCode = code
        self.text = text
        self.fix = fix

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.code]


class Stopped(Exception):
    """Training ended early: on request (with a checkpoint, if a step was made), or because another process failed."""
