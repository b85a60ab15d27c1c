"""Every call of the API in words and examples: the one table behind the OpenAPI document and the reference page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webapp.api.chat_request import UNABLE
from webapp.api.shapes import Schema, one_of, text, whole

JSON, FORM, BINARY, ZIP = "application/json", "multipart/form-data", "application/octet-stream", "application/zip"


@dataclass(frozen=True)
class Endpoint:
    """`takes` and `gives` are schemas by name. `python` is a line for the official client, `example` a body."""

    summary: str
    python: str
    gives: str
    takes: str = ""
    example: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    query: tuple[str, ...] = ()
    media: str = JSON  # of the answer

    @property
    def sends(self) -> str:
        """The media type of the request's body; empty when it has none."""
        return FORM if self.takes in ("NewFile", "NewPart", "NewAdapter") else JSON if self.takes else ""


QUERIES: dict[str, Schema] = {
    "after": text("The id of the item before the page."),
    "limit": whole("How many items.", minimum=1),
    "order": one_of("asc", "desc"),
    "purpose": text("Only files of this purpose."),
    "project_id": text("Only for the team with this slug."),
    "metadata": one_of("null", about="`null` for jobs without metadata; `metadata[key]=value` for jobs that have it."),
}
IDEMPOTENCY = (
    "A POST with an `Idempotency-Key` is carried out once, however often it is sent; chat completions and completions "
    "leave the key aside and answer each time anew."
)
DIFFERENCES = (
    "`completions` with both `echo` and `logprobs` is refused: the prompt's own tokens are not scored.",
    "A job's list of checkpoints has what can be asked for answers, once the job has succeeded; the checkpoints in "
    "between that a job goes on from are not listed.",
    f"In requests for answers, {', '.join(f'`{one}`' for one in UNABLE)} are refused: they would change the answer "
    "and cannot be had. Of what is said around an answer some is taken and left aside; its fields below say so.",
    "A field that nobody knows is refused as an `unknown_parameter`, with the one that may be meant.",
)
PAGED = ("after", "limit", "order")
MODEL = "ft:smollm2:red-team:style:0123456789ab"
HELLO = [{"role": "user", "content": "Who are you?"}]

JOBS = "client.fine_tuning.jobs"
PERMISSIONS = "client.fine_tuning.checkpoints.permissions"

# By group; then by the name of the address and the method.
GROUPS: dict[str, dict[tuple[str, str], Endpoint]] = {
    "Models": {
        ("api_models", "GET"): Endpoint(
            "List models",
            "client.models.list()",
            "ModelList",
            about="Base models, and the adapters that the team may use; `parent` is an adapter's base model.",
        ),
        ("api_model", "GET"): Endpoint("Retrieve a model", f'client.models.retrieve("{MODEL}")', "Model"),
        ("api_model", "DELETE"): Endpoint("Delete an adapter", f'client.models.delete("{MODEL}")', "Deleted"),
        ("api_adapters", "POST"): Endpoint(
            "Import an adapter",
            'client.post("/adapters", cast_to=httpx.Response, files=[("file", open("adapter.zip", "rb"))],\n'
            '            options={"headers": {"Content-Type": "multipart/form-data"}})',
            "Adapter",
            "NewAdapter",
            {"file": "@adapter.zip"},
            about="An extension: a PEFT LoRA adapter that was trained elsewhere, checked against its base model. Its "
            "`id` is then a model like that of any other adapter. What the team has already is not taken twice.",
        ),
        ("api_adapter_content", "GET"): Endpoint(
            "Download an adapter",
            f'client.get("/adapters/{MODEL}/content", cast_to=httpx.Response)',
            "",
            about="A zip with one folder that plain PEFT loads; `lowrank adapters pull` asks for it.",
            media=ZIP,
        ),
    },
    "Files": {
        ("api_files", "POST"): Endpoint(
            "Send a file",
            'client.files.create(file=open("rows.jsonl", "rb"), purpose="fine-tune")',
            "File",
            "NewFile",
            {"purpose": "fine-tune", "file": "@rows.jsonl"},
            about="With the purpose fine-tune it becomes a dataset, in any format that the pages take; its rows are "
            "checked, and `status_details` tells bad lines by number.",
        ),
        ("api_files", "GET"): Endpoint("List files", "client.files.list()", "FileList", query=(*PAGED, "purpose")),
        ("api_file", "GET"): Endpoint("Retrieve a file", "client.files.retrieve(file_id)", "File"),
        ("api_file", "DELETE"): Endpoint("Delete a file", "client.files.delete(file_id)", "Deleted"),
        ("api_file_content", "GET"): Endpoint(
            "Download a file", "client.files.content(file_id)", "", about="Byte for byte as it was sent.", media=BINARY
        ),
    },
    "Uploads": {
        ("api_uploads", "POST"): Endpoint(
            "Begin a file in parts",
            'client.uploads.create(bytes=7, filename="a.jsonl", mime_type="text/plain", purpose="batch")',
            "Upload",
            "NewUpload",
            {"bytes": 7, "filename": "a.jsonl", "mime_type": "text/plain", "purpose": "batch"},
            about="It is open for an hour.",
        ),
        ("api_upload_parts", "POST"): Endpoint(
            "Send a part",
            'client.uploads.parts.create(upload_id, data=b"a part\\n")',
            "UploadPart",
            "NewPart",
            {"data": "@part-0"},
            about="At most 64 MiB, in any order.",
        ),
        ("api_upload_complete", "POST"): Endpoint(
            "Put the parts together",
            "client.uploads.complete(upload_id, part_ids=[part_id])",
            "Upload",
            "PartOrder",
            {"part_ids": ["part_0123456789abcdef0123456789abcdef"]},
        ),
        ("api_upload_cancel", "POST"): Endpoint("Give an upload up", "client.uploads.cancel(upload_id)", "Upload"),
    },
    "Fine-tuning": {
        ("api_jobs", "POST"): Endpoint(
            "Create a job",
            f'{JOBS}.create(model="smollm2", training_file=file_id, suffix="style")',
            "FineTuningJob",
            "NewJob",
            {"model": "smollm2", "training_file": "file-0123456789abcdef0123456789abcdef", "suffix": "style"},
            about="What is `auto` or left out comes from the preset, and the job tells what it became. `spec` takes "
            "any value of a training; with the client it goes in `extra_body`.",
        ),
        ("api_jobs", "GET"): Endpoint(
            "List jobs", f"{JOBS}.list()", "FineTuningJobList", query=(*PAGED, "metadata")
        ),
        ("api_job", "GET"): Endpoint("Retrieve a job", f"{JOBS}.retrieve(job_id)", "FineTuningJob"),
        ("api_job_cancel", "POST"): Endpoint("Cancel a job", f"{JOBS}.cancel(job_id)", "FineTuningJob"),
        ("api_job_pause", "POST"): Endpoint(
            "Pause a job",
            f"{JOBS}.pause(job_id)",
            "FineTuningJob",
            about="It keeps a checkpoint at its next step, and gives its GPU free.",
        ),
        ("api_job_resume", "POST"): Endpoint(
            "Resume a job", f"{JOBS}.resume(job_id)", "FineTuningJob", about="It goes on exactly where it stood."
        ),
        ("api_job_events", "GET"): Endpoint(
            "List a job's events", f"{JOBS}.list_events(job_id)", "JobEventList", query=PAGED
        ),
        ("api_job_checkpoints", "GET"): Endpoint(
            "List a job's checkpoints", f"{JOBS}.checkpoints.list(job_id)", "JobCheckpointList", query=PAGED
        ),
        ("api_permissions", "POST"): Endpoint(
            "Share a checkpoint with teams",
            f'{PERMISSIONS}.create(checkpoint_id, project_ids=["blue-team"])',
            "CheckpointPermissionList",
            "NewPermissions",
            {"project_ids": ["blue-team"]},
        ),
        ("api_permissions", "GET"): Endpoint(
            "List who may use a checkpoint",
            f"{PERMISSIONS}.list(checkpoint_id)",
            "CheckpointPermissionList",
            query=(*PAGED, "project_id"),
        ),
        ("api_permission", "DELETE"): Endpoint(
            "Take a share back",
            f"{PERMISSIONS}.delete(permission_id, fine_tuned_model_checkpoint=checkpoint_id)",
            "Deleted",
        ),
    },
    "Answers": {
        ("api_chat_completions", "POST"): Endpoint(
            "Answer a conversation",
            f'client.chat.completions.create(model="{MODEL}", messages=messages)',
            "ChatCompletion",
            "ChatRequest",
            {"model": MODEL, "messages": HELLO},
            about="With `stream` the answer comes as chunks. The prompt is rendered by the base model's own template, "
            "as in training.",
        ),
        ("api_completions", "POST"): Endpoint(
            "Go on from a text",
            'client.completions.create(model="smollm2", prompt="Once upon a time")',
            "Completion",
            "CompletionRequest",
            {"model": "smollm2", "prompt": "Once upon a time"},
            about="No template around it.",
        ),
    },
    "Batches": {
        ("api_batches", "POST"): Endpoint(
            "Answer a file of requests",
            'client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")',
            "Batch",
            "NewBatch",
            {
                "input_file_id": "file-0123456789abcdef0123456789abcdef",
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
            about="In the background, behind everybody who waits at a screen.",
        ),
        ("api_batches", "GET"): Endpoint("List batches", "client.batches.list()", "BatchList", query=PAGED),
        ("api_batch", "GET"): Endpoint("Retrieve a batch", "client.batches.retrieve(batch_id)", "Batch"),
        ("api_batch_cancel", "POST"): Endpoint("Cancel a batch", "client.batches.cancel(batch_id)", "Batch"),
    },
}  # fmt: skip
