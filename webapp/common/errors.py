"""Failures a person can act on: one catalogue of what happened and what to do next, by code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """`text` and `fix` are shown to people and may name the error's parameters; `status` is the HTTP status."""

    text: str
    fix: str
    status: int = 400


CATALOGUE: dict[str, Entry] = {
    # accounts
    "invitation_used": Entry("This invitation was used already or has expired.", "Ask for a new link.", 410),
    "last_owner": Entry("A team needs an owner.", "Make somebody else owner first."),
    "already_set_up": Entry("This server has its owner already.", "Log in, or ask for an invitation.", 410),
    # datasets
    "upload_empty": Entry("The file is empty.", "Choose a file with at least one row."),
    "upload_too_large": Entry("The file is larger than {limit}.", "Split it, or raise MAX_UPLOAD_MB.", 413),
    "dataset_in_use": Entry("The job {job} is using this dataset.", "Wait for it or cancel it first.", 409),
    "dataset_not_ready": Entry("This dataset cannot be used yet: it is {status}.", "Wait for the inspection.", 409),
    "no_good_rows": Entry("No row of this file could be read.", "Correct the file and upload it again.", 409),
    # adapters
    "base_not_ready": Entry("The base model {name} is not ready.", "Wait for the download, or choose another.", 409),
    "base_in_use": Entry("The base model {name} has adapters or jobs.", "Delete those first.", 409),
    "base_not_allowed": Entry("The folder {folder} is outside the allowed roots.", "Put it below one of BASES_ROOTS."),
    "base_exists": Entry("There is a base model named {name} already.", "Use that one, or give another name.", 409),
    "adapter_damaged": Entry("Files of this adapter are missing or changed.", "Restore or delete it.", 409),
    # jobs
    "job_finished": Entry("This job has ended already: it {status}.", "There is nothing left to do.", 409),
    "job_running": Entry("This job has not ended yet: it is {status}.", "Wait for it, or cancel it.", 409),
    "no_device_memory": Entry("No machine has the memory for this job.", "{advice}"),
    # chat
    "too_many_targets": Entry("At most {limit} models can answer side by side.", "Remove some."),
    "no_target": Entry("No model is chosen.", "Choose a base model or an adapter."),
    "mixed_bases": Entry("All models of a chat stand on one base model.", "Choose adapters of the same base."),
    "prompt_too_long": Entry(
        "The conversation has {tokens} tokens; the model reads {limit}.", "Start a new conversation."
    ),
    "empty_message": Entry("The message is empty.", "Write something first."),
}


class UserError(Exception):
    """Something a person can act on. `code` is in CATALOGUE, `params` fill its text."""

    def __init__(self, code: str, **params: object) -> None:
        self.entry = CATALOGUE[code]
        self.code = code
        self.text = self.entry.text.format(**params)
        self.fix = self.entry.fix.format(**params)
        self.status = self.entry.status
        super().__init__(f"{self.text} {self.fix}")
