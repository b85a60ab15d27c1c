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
    "email_taken": Entry("There is an account with the address {email} already.", "Log in with it.", 409),
    "personal_team": Entry("A personal team stays with its person.", "Use another team for this."),
    "team_in_use": Entry("{team} still owns datasets, jobs or adapters.", "Delete those first.", 409),
    # datasets
    "upload_empty": Entry("The file is empty.", "Choose a file with at least one row."),
    "upload_too_large": Entry("The file is larger than {limit}.", "Split it, or raise MAX_UPLOAD_MB.", 413),
    "upload_gone": Entry("What was sent of this file is no longer here.", "Begin the upload anew.", 410),
    "upload_busy": Entry("Another part of this file is being written.", "Wait a moment, then go on.", 423),
    "upload_offset": Entry("The next byte of this file is number {offset}.", "Go on from there.", 409),
    "upload_too_long": Entry("More was sent than the file was said to have.", "Begin the upload anew.", 413),
    "upload_damaged": Entry("The part arrived damaged.", "Send it again.", 460),
    "upload_no_room": Entry("The server's disk is too full for this file.", "Ask whoever runs it for room.", 507),
    "too_many_uploads": Entry("{limit} uploads of yours are not finished.", "Finish or discard some.", 429),
    "upload_unfinished": Entry("{name} is not here as a whole yet.", "Choose the file again to go on sending it.", 409),
    "no_columns": Entry("This version was not read from columns.", "Upload the file again to map its columns.", 409),
    "mapping_wrong": Entry("The columns do not fit: {field}: {problem}.", "{fix}", 422),
    "mapping_reads_nothing": Entry(
        "None of the first rows can be read so.", "Choose other columns, or another kind of rows.", 422
    ),
    "dataset_in_use": Entry("The dataset stays: {what}.", "Delete that first, on its page.", 409),
    "dataset_not_ready": Entry("This dataset cannot be used yet: it is {status}.", "Wait for the inspection.", 409),
    "too_many_tags": Entry("This dataset has {limit} different tags.", "Use one of them, or remove some.", 409),
    "search_not_ready": Entry("The rows cannot be searched yet.", "Wait for the survey to end.", 409),
    "no_good_rows": Entry("There are no good rows to go on with.", "Correct the file and upload it again.", 409),
    "nothing_to_inspect": Entry("Version {number} was inspected to the end.", "Look at what was found.", 409),
    "nothing_to_fetch": Entry("Version {number} has its file.", "Use it, or fetch a new dataset.", 409),
    "nothing_to_change": Entry("There is nothing to change.", "Edit, add or remove a row first.", 409),
    "row_gone": Entry("This row is not in version {number}.", "Go back to the rows.", 404),
    "row_removed": Entry("Your draft removes this row.", "Undo that first.", 409),
    "row_changed_meanwhile": Entry(
        "This row was changed meanwhile, in another tab perhaps.", "Open it again and repeat your change.", 409
    ),
    "newer_version": Entry(
        "Version {number} was made meanwhile by {who}.", "Save on top of it, or as another version of {own}.", 409
    ),
    "draft_conflict": Entry(
        "Version {number} changed rows that your draft changes too: {rows}.", "Undo those in your draft.", 409
    ),
    "finding_gone": Entry("Version {number} has nothing of this kind to fix.", "Look at its findings again.", 409),
    "finding_of_older": Entry(
        "Version {newest} was made after version {number}.", "Fix what was found in the newest one.", 409
    ),
    "nothing_left": Entry("No row would be left.", "Look at the rows, and remove some of them.", 409),
    "version_in_use": Entry("Version {number} stays: {what}.", "{fix}", 409),
    # adapters
    "base_not_ready": Entry("The base model {name} is not ready.", "Wait for the download, or choose another.", 409),
    "base_in_use": Entry("The base model {name} has adapters or jobs.", "Delete those first.", 409),
    "base_not_allowed": Entry("The folder {folder} is outside the allowed roots.", "Put it below {roots}."),
    "base_missing": Entry("There is no folder {folder}.", "Correct the path, or put the model there first."),
    "base_exists": Entry("There is a base model named {name} already.", "Use that one, or give another name.", 409),
    "share_own_team": Entry("The adapter belongs to {team} already.", "Name another team."),
    "import_refused": Entry("{text}", "{fix}"),
    "import_base_unknown": Entry("The adapter was made for {named}.", "Choose the base model here that is the same."),
    "adapter_damaged": Entry("Files of this adapter are missing or changed.", "Restore or delete it.", 409),
    # jobs
    "job_finished": Entry("This job has ended already: it {ending}.", "There is nothing left to do.", 409),
    "job_cancelling": Entry("This job is being cancelled.", "Wait a moment; it can be started again then.", 409),
    "form_used": Entry("This form was sent before, by somebody else.", "Open the form anew.", 409),
    "job_running": Entry("This job has not ended yet: it is {status}.", "Wait for it, or cancel it.", 409),
    # chat
    "too_many_targets": Entry("At most {limit} models can answer side by side.", "Remove some."),
    "no_target": Entry("No model is chosen.", "Choose a base model or an adapter."),
    "mixed_bases": Entry("All models of a chat stand on one base model.", "Choose adapters of the same base."),
    "prompt_too_long": Entry(
        "The conversation has {tokens} tokens and {room} are kept for the answer; the model reads {limit}.",
        "Shorten the message, allow fewer tokens for the answer, or start a new conversation.",
    ),
    "empty_message": Entry("The message is empty.", "Write something first."),
    "target_gone": Entry(
        "An adapter of this chat was deleted or is no longer shared with you.", "Choose the models again.", 409
    ),
    "prompt_refused": Entry(
        "The chat template of {base} refuses this conversation: {reason}", "Change the system prompt.", 409
    ),
    "turn_running": Entry("The last question is still being answered.", "Wait for the answers, or stop them.", 409),
    "turn_past": Entry("Only the last question can be asked again.", "Ask it as a new message.", 409),
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
