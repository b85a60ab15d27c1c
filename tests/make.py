"""`make_*`: one object each, in the state it usually has, with the files that its row promises."""

import hashlib
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.utils import timezone

from trainer.formats.canonical import Content
from trainer.formats.check import check_file
from trainer.formats.row_writer import RowWriter
from trainer.spec import TrainSpec
from webapp.accounts.models import ApiKey, Invitation, Role, Team, User
from webapp.adapters.models import Adapter, BaseModel, BaseSource, BaseStatus, Share
from webapp.chat.models import Completion, CompletionStatus, Conversation, Turn
from webapp.datasets.models import Dataset, DatasetVersion, DraftChange, VersionStatus
from webapp.jobs.models import Attempt, Job, JobEvent, JobStatus, Worker

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am Lowrank."}]},
    {"messages": [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Name a colour."},
            {"role": "assistant", "content": "Blue."},
        ]
    },
]

ADAPTER_FILES = {
    "README.md": "# An adapter\n",
    "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}),
    "adapter_model.safetensors": "not real weights",
    "spec.json": json.dumps(TrainSpec().to_dict()),
    "metrics.jsonl": json.dumps({"kind": "progress", "step": 1, "loss": 2.0}) + "\n",
    "manifest.json": "{}",
}


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def make_invitation(team: Team, created_by: User, *, token: str = "a" * 43, **extra: Any) -> Invitation:
    values: dict[str, Any] = {"role": Role.MEMBER, "expires_at": timezone.now() + timedelta(days=7)}
    return Invitation.objects.create(team=team, created_by=created_by, token_hash=token_hash(token), **values | extra)


def make_api_key(user: User, *, key: str = "lr_0123456789ab_" + "s" * 43, **extra: Any) -> ApiKey:
    values: dict[str, Any] = {"name": "laptop", "prefix": key.split("_")[1], "key_hash": token_hash(key)}
    return ApiKey.objects.create(user=user, **values | extra)


def make_dataset(team: Team, *, created_by: User | None = None, name: str = "capitals", **version: Any) -> Dataset:
    """A dataset with one ready version (`dataset.newest`) of `ROWS`; extra values are the version's."""
    dataset = Dataset.objects.create(team=team, name=name, created_by=created_by)
    make_version(dataset, created_by=created_by, **version)
    return dataset


def make_version(dataset: Dataset, *, rows: list[dict[str, Any]] | None = None, **extra: Any) -> DatasetVersion:
    """The dataset's next version; `original` always lies on disk, `rows.parquet` and `report.json` when it is ready."""
    rows = ROWS if rows is None else rows
    original = "".join(json.dumps(row) + "\n" for row in rows).encode()
    values: dict[str, Any] = {
        "number": dataset.versions.count() + 1,
        "status": VersionStatus.READY,
        "original_name": "rows.jsonl",
        "original_sha256": hashlib.sha256(original).hexdigest(),
        "size": len(original),
        "content_hash": hashlib.sha256(b"canonical" + original).hexdigest(),
        "row_count": len(rows),
        "report": make_report(rows),
    }
    version = DatasetVersion.objects.create(dataset=dataset, **values | extra)
    version.folder.mkdir(parents=True)
    (version.folder / "original").write_bytes(original)
    if version.is_ready:
        write_rows(version.rows_path, rows)
        (version.folder / "report.json").write_text(json.dumps(version.report))
    return version


def make_added_row(version: DatasetVersion, user: User) -> DraftChange:
    """A row that is only in the user's draft."""
    told = {"shape": json.dumps(ROWS[0]), "label": "Who are you?"}
    return DraftChange.objects.create(version=version, user=user, action=DraftChange.Action.ADD, **told)


def make_checked(dataset: Dataset, folder: Path, rows: list[dict[str, Any]]) -> DatasetVersion:
    """A version of rows of any format, as the check itself writes them."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    check_file(file, folder, skip_bad_rows=False, emit=lambda event: None)
    report = json.loads((folder / "report.json").read_text())
    version = make_version(dataset, report=report, row_count=report["rows"])
    shutil.copyfile(folder / "rows.parquet", version.rows_path)
    return version


def make_report(rows: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    """What `python -m trainer check` reports for rows without a fault."""
    lengths = sorted(sum(len(m["content"] or "") for m in row["messages"]) for row in rows) or [0]
    spread = {"p50": lengths[len(lengths) // 2], "p95": lengths[-1], "max": lengths[-1]}
    return {
        "format": "messages",
        "rows": len(rows),
        "bad_rows": 0,
        "errors": [],
        "error_counts": {},
        "content_hash": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "statistics": {"turns": {"p50": 1, "p95": 1, "max": 1}, "characters": spread, "with_system": 0},
    } | extra


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Canonical rows of chat as Parquet."""
    with RowWriter(path) as writer:
        for line, row in enumerate(rows, 1):
            writer.add(line, Content(messages=row["messages"], tools=row.get("tools")), split=row.get("split"))


def make_base(*, name: str = "tiny", path: Path | str | None = None, **extra: Any) -> BaseModel:
    """A ready base model. Without `path` its folder exists but holds no model: see tests/tiny.py for a real one."""
    folder = Path(path) if path else Path(settings.FILES_DIR) / "bases" / str(uuid4())
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"architecture": "LlamaForCausalLM", "parameters": 134_515_008, "layers": 30, "hidden_size": 576}
    facts |= {"vocab_size": 49_152, "context_length": 2048, "license": "apache-2.0"}
    values: dict[str, Any] = {"source": BaseSource.FOLDER, "status": BaseStatus.READY, "facts": facts}
    return BaseModel.objects.create(name=name, path=str(folder), location=str(folder), **values | extra)


def make_adapter(team: Team, base: BaseModel, *, name: str = "lowrank-style", **extra: Any) -> Adapter:
    """A published adapter whose files have the right names and placeholder contents."""
    weights = ADAPTER_FILES["adapter_model.safetensors"].encode()
    values = {"spec": TrainSpec().to_dict(), "weights_sha256": hashlib.sha256(weights).hexdigest()}
    adapter = Adapter.objects.create(team=team, base_model=base, name=name, **values | extra)
    adapter.folder.mkdir(parents=True)
    for file, text in ADAPTER_FILES.items():
        (adapter.folder / file).write_text(text)
    return adapter


def make_share(adapter: Adapter, team: Team | None = None, *, created_by: User | None = None) -> Share:
    return Share.objects.create(adapter=adapter, team=team, created_by=created_by)


def make_job(team: Team, *, version: DatasetVersion | None = None, base: BaseModel | None = None, **extra: Any) -> Job:
    """A queued job; a missing dataset version or base model is made for it."""
    values: dict[str, Any] = {"name": "first try", "spec": TrainSpec().to_dict(), "status": JobStatus.QUEUED}
    return Job.objects.create(
        team=team,
        dataset_version=version or make_dataset(team).versions.get(),
        base_model=base or BaseModel.objects.first() or make_base(),
        **values | extra,
    )


def make_attempt(job: Job, *, worker: Worker | None = None, log: str = "loading\n", **extra: Any) -> Attempt:
    """The job's next attempt, its newest from now on, with a log on disk."""
    number = job.attempt_number + 1
    attempt = Attempt.objects.create(job=job, number=number, worker=worker, **extra)
    Job.objects.filter(pk=job.pk).update(attempt_number=number)
    job.refresh_from_db()
    attempt.folder.mkdir(parents=True)
    (attempt.folder / "log.txt").write_text(log)
    return attempt


def make_job_event(job: Job, kind: str, **data: Any) -> JobEvent:
    Job.objects.filter(pk=job.pk).update(last_seq=job.last_seq + 1)
    job.refresh_from_db()
    number = job.attempt_number
    return JobEvent.objects.create(job=job, seq=job.last_seq, attempt_number=number, kind=kind, data=data)


def make_worker(name: str = "worker-1", **extra: Any) -> Worker:
    return Worker.objects.create(name=name, **{"device": "CPU, 2 cores", "memory_bytes": 8 << 30} | extra)


def make_conversation(team: Team, user: User, base: BaseModel, **extra: Any) -> Conversation:
    return Conversation.objects.create(team=team, created_by=user, base_model=base, **{"title": "Hello"} | extra)


def make_turn(conversation: Conversation, *, message: str = "Who are you?", **completion: Any) -> Turn:
    """The conversation's next turn, answered by the base model; extra values are the completion's."""
    turn = Turn.objects.create(conversation=conversation, number=conversation.turns.count() + 1, message=message)
    values: dict[str, Any] = {"place": 0, "is_base": True, "label": conversation.base_model.name, "text": "A model."}
    Completion.objects.create(turn=turn, **values | {"status": CompletionStatus.FINISHED} | completion)
    return turn
