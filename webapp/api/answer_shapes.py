"""Schemas of what the API answers; a test holds real answers against them."""

from typing import Any

from webapp.api.models import BatchStatus
from webapp.api.shapes import (
    Schema,
    answer,
    flag,
    free,
    many,
    moment,
    number,
    one_of,
    or_null,
    page_of,
    ref,
    text,
    whole,
    words,
)  # fmt: skip
from webapp.jobs.models import FailureReason, JobStatus

ID = text()


def _deleted() -> Schema:
    return answer("", id=ID, object=text(), deleted={"const": True})


def _error() -> Schema:
    inner = answer("", message=text("What is wrong, and what to do."), type=text(), param=or_null(text("The field.")),
                   code=or_null(text()))  # fmt: skip
    return answer("", error=inner)


def _model() -> Schema:
    parents = {"parent": or_null(text("An adapter's base model.")), "root": text("The base model's name on the pages.")}
    return answer("model", id=ID, created=moment(), owned_by=text("The team's slug, or lowrank."), **parents)


def _adapter() -> Schema:
    facts = {"name": text(), "base_model": text("A model's id."), "bytes": whole(), "weights_sha256": text()}
    lora = {"r": or_null(whole()), "lora_alpha": or_null(number()), "target_modules": many(text())}
    return answer("adapter", id=text("Its model name."), created_at=moment(), **facts, **lora,
                  imported_from=text("The file it came in; empty for one that was trained here."),
                  is_new=flag("False: the team had it already."), url=text("Its page."))  # fmt: skip


def _file() -> Schema:
    facts: dict[str, Any] = {"bytes": whole(), "filename": text(), "purpose": text()}
    state = one_of("uploaded", "processed", "error", about="A file of rows is `uploaded` until all are checked.")
    told = or_null(text("Why it cannot be used: the first bad lines, each with its number and what to do."))
    times = {"created_at": moment(), "expires_at": or_null(moment())}
    return answer("file", id=ID, **facts, **times, status=state, status_details=told)


def _upload() -> Schema:
    facts: dict[str, Any] = {"bytes": whole(), "filename": text(), "purpose": text()}
    state = one_of("pending", "completed", "cancelled", "expired")
    file = or_null(ref("File"))
    return answer("upload", id=ID, **facts, created_at=moment(), expires_at=moment(), status=state, file=file)


RESULTS = (
    "A CSV with a line for each step. Accuracy is the share of trained tokens that the model would have chosen itself; "
    "with dpo and kto, of rows whose rewards are on the right side."
)


def _job() -> Schema:
    failure = answer(
        "", code=text(f"Such as {', '.join(FailureReason.values)}."), message=text(), param=or_null(text())
    )
    hyper = {"n_epochs": number(), "batch_size": whole(), "learning_rate_multiplier": number()}
    files = {"training_file": ID, "validation_file": or_null(text()), "result_files": many(text(), RESULTS)}
    said = {"model": text(), "method": free(), "hyperparameters": answer("", **hyper), "seed": whole()}
    said |= {"metadata": or_null(words()), "integrations": many(free()), "user_provided_suffix": or_null(text())}
    times = {"created_at": moment(), "finished_at": or_null(moment()), "estimated_finish": or_null(moment())}
    came_to = {"error": or_null(failure), "fine_tuned_model": or_null(text()), "trained_tokens": or_null(whole())}
    own = {
        "paused": flag("Held until it is resumed; there is no status for that on the wire."),
        "shown_status": text("The word that the pages show."),
        "spec": free("Every value of the training, as `spec` of a request takes it."),
    }
    status = one_of("validating_files", *JobStatus.values)
    return answer("fine_tuning.job", id=ID, organization_id=text("The team's slug."), status=status,
                  **said, **files, **times, **came_to, **own)  # fmt: skip


def _event() -> Schema:
    kinds = {"level": one_of("info", "warn", "error"), "type": one_of("message", "metrics")}
    return answer("fine_tuning.job.event", id=ID, created_at=moment(), message=text(), data=free(), **kinds)


def _checkpoint() -> Schema:
    names = {"fine_tuned_model_checkpoint": text("A model name to chat with."), "fine_tuning_job_id": ID}
    kind = "fine_tuning.job.checkpoint"
    return answer(kind, id=ID, created_at=moment(), step_number=whole(), metrics=free(), **names)


def _usage() -> Schema:
    return answer("", prompt_tokens=whole(), completion_tokens=whole(), total_tokens=whole())


def _chat() -> Schema:
    message = answer("", role={"const": "assistant"}, content=or_null(text()), refusal={"type": "null"})
    message["properties"]["tool_calls"] = many(free())
    return _completion("chat.completion", {"message": message})


def _completion(kind: str, said: dict[str, Schema]) -> Schema:
    finish = one_of("stop", "length", "tool_calls")
    choice = answer("", index=whole(), **said, logprobs=or_null(free()), finish_reason=finish)
    tier = {"service_tier": {"const": "default"}} if kind == "chat.completion" else {}
    facts: dict[str, Schema] = {"created": moment(), "model": text(), "system_fingerprint": text()}
    return answer(kind, id=ID, **facts, choices=many(choice), usage=ref("Usage"), **tier)


def _chunk() -> Schema:
    """Of a stream. The last, when usage was asked for, has no choices."""
    choice = answer("", index=whole(), delta=free(), logprobs=or_null(free()),
                    finish_reason=or_null(one_of("stop", "length", "tool_calls")))  # fmt: skip
    facts: dict[str, Schema] = {"created": moment(), "model": text(), "system_fingerprint": text()}
    made = answer("chat.completion.chunk", id=ID, **facts, choices=many(choice))
    made["properties"]["usage"] = or_null(ref("Usage"))
    return made


def _batch() -> Schema:
    ends = (
        "in_progress_at",
        "finalizing_at",
        "cancelling_at",
        "completed_at",
        "failed_at",
        "cancelled_at",
        "expired_at",
    )
    times = {name: or_null(moment()) for name in ends}
    wrong = answer("list", data=many(free("line, code, message and param of one request.")))
    files = {"input_file_id": ID, "output_file_id": or_null(text()), "error_file_id": or_null(text())}
    counts = answer("", total=whole(), completed=whole(), failed=whole())
    said = {"endpoint": text(), "completion_window": {"const": "24h"}, "metadata": or_null(words())}
    return answer("batch", id=ID, status=one_of(*BatchStatus.values), errors=or_null(wrong), created_at=moment(),
                  expires_at=moment(), request_counts=counts, **times, **files, **said)  # fmt: skip


def answer_schemas() -> dict[str, Schema]:
    """By name, with a page of each that is listed."""
    part = answer("upload.part", id=ID, created_at=moment(), upload_id=ID)
    permission = answer("checkpoint.permission", id=ID, created_at=moment(),
                        project_id=text("A team's slug, or * for everyone on this server."))  # fmt: skip
    single = {
        "Error": _error(), "Deleted": _deleted(), "Model": _model(), "File": _file(), "Upload": _upload(),
        "Adapter": _adapter(),
        "UploadPart": part, "FineTuningJob": _job(), "JobEvent": _event(), "JobCheckpoint": _checkpoint(),
        "CheckpointPermission": permission, "Usage": _usage(), "ChatCompletion": _chat(),
        "ChatCompletionChunk": _chunk(),
        "Completion": _completion("text_completion", {"text": text()}), "Batch": _batch(),
    }  # fmt: skip
    listed = ("Model", "File", "FineTuningJob", "JobEvent", "JobCheckpoint", "CheckpointPermission", "Batch")
    return single | {f"{name}List": page_of(name) for name in listed}
