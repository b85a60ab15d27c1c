"""The command line client, run as people run it, against a real server."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from lowrank import uploading
from lowrank.printing import Progress, plain, size_text
from tests.api.live import LiveServer
from tests.cast import Cast
from tests.make import make_adapter, make_base, make_dataset, make_job, make_job_event
from tests.processes import ROOT, wait_for
from webapp.accounts import keys
from webapp.adapters.models import Adapter
from webapp.api.models import PartedUpload, UploadPart
from webapp.api.names import FILE, JOB, adapter_name, uuid_of, wire_id
from webapp.datasets.models import DatasetVersion
from webapp.datasets.tasks import inspect
from webapp.jobs.models import Job, JobStatus

ROW = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
Done = subprocess.CompletedProcess[str]
Lowrank = Callable[..., Done]


@pytest.fixture
def surroundings(live: LiveServer, people: Cast, tmp_path: Path) -> dict[str, str]:
    """What bob's shell has: his key, and nothing of ours besides the code."""
    key = keys.create(user=people.bob, name="laptop")
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return plain | {"LOWRANK_URL": live.address, "LOWRANK_API_KEY": key}


@pytest.fixture
def lowrank(surroundings: dict[str, str], tmp_path: Path) -> Lowrank:
    def run(*arguments: object, text: str = "", **changed: str | None) -> Done:
        environment = {name: value for name, value in (surroundings | changed).items() if value is not None}
        command = [sys.executable, "-m", "lowrank", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def good(done: Done) -> str:
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout.strip()


def rows_file(folder: Path, *lines: str) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def job_of(people: Cast, **values: Any) -> Job:
    version = make_dataset(people.team, name=f"data {Job.objects.count()}").newest
    return make_job(people.team, version=version, base=make_base(name=f"base {Job.objects.count()}"), **values)


# Logging in


def test_login_stores_the_key_for_this_user_alone(
    lowrank: Lowrank, surroundings: dict[str, str], tmp_path: Path
) -> None:
    key, address = surroundings["LOWRANK_API_KEY"], surroundings["LOWRANK_URL"]
    done = lowrank(
        "login", "--url", f"{address}/v1/", "--key", "-", text=f"{key}\n", LOWRANK_API_KEY=None, LOWRANK_URL=None
    )
    good(done)
    file = tmp_path / ".config" / "lowrank" / "login.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {"address": address, "key": key, "team": ""}
    assert key not in done.stdout + done.stderr
    good(lowrank("adapters", "ls", LOWRANK_API_KEY=None, LOWRANK_URL=None))


def test_a_stored_key_goes_to_no_other_server(lowrank: Lowrank) -> None:
    good(lowrank("login"))
    done = lowrank("adapters", "ls", LOWRANK_API_KEY=None, LOWRANK_URL="http://localhost:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no key for http://localhost:1." in done.stderr


def test_a_wrong_key_is_told_and_not_stored(lowrank: Lowrank, tmp_path: Path) -> None:
    done = lowrank("login", LOWRANK_API_KEY="lr_wrong")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not known here" in done.stderr
    assert not (tmp_path / ".config" / "lowrank" / "login.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("jobs",), 2, "usage"),
        (("jobs", "wait", "x", "--timeout", "soon"), 2, "soon"),
        (("datasets", "push", "nowhere.jsonl"), 2, "There is no file nowhere.jsonl."),
        (("jobs", "create", "--model", "x"), 2, "no training file"),
        (("jobs", "wait", "ftjob-1"), 1, "There is no fine-tuning job `ftjob-1`"),
        (("chat", "-m", "none", "Hello"), 1, "The model `none` does not exist"),
        (("adapters", "pull", "ft:none"), 1, "The model `ft:none` does not exist"),
        (("adapters", "push", "x"), 2, "There is no file or folder x."),
        (("adapters", "push", "."), 2, "There is no adapter_config.json in ."),
        (("jobs", "ls", "--team", "strangers"), 1, "names no team of yours"),
        (("jobs", "ls", "--team", "a\nb"), 2, "cannot be sent"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    lowrank: Lowrank, arguments: tuple[str, ...], code: int, text: str
) -> None:
    done = lowrank(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_a_server_that_is_not_there(lowrank: Lowrank) -> None:
    done = lowrank("jobs", "ls", LOWRANK_URL="http://localhost:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "http://localhost:1 does not answer" in done.stderr


# Datasets


def test_check_here_needs_no_server(lowrank: Lowrank, tmp_path: Path) -> None:
    offline = {"LOWRANK_URL": None, "LOWRANK_API_KEY": None}
    assert "1 rows" in good(lowrank("datasets", "check", rows_file(tmp_path, ROW), **offline))
    bad = lowrank("datasets", "check", rows_file(tmp_path, ROW, "{}"), **offline)
    assert bad.returncode == 1
    assert "Line 2" in bad.stdout
    report = json.loads(lowrank("datasets", "check", rows_file(tmp_path, ROW), "--json", **offline).stdout)
    assert report["rows"] == 1


class Inspector(threading.Thread):
    """Checks every file that arrives, as the default worker does."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    def run(self) -> None:
        from django.db import connections

        try:
            while not self.over.wait(0.1):
                for pk in DatasetVersion.objects.filter(status="uploaded").values_list("pk", flat=True):
                    inspect(str(pk))
        finally:
            connections.close_all()


@pytest.fixture
def inspector(people: Cast) -> Iterator[None]:
    thread = Inspector()
    thread.start()
    yield
    thread.over.set()
    thread.join(20)


def test_push_and_list(lowrank: Lowrank, inspector: None, tmp_path: Path) -> None:
    sent = good(lowrank("datasets", "push", rows_file(tmp_path, ROW)))
    version = DatasetVersion.objects.get(pk=uuid_of(sent, FILE))
    assert (version.is_ready, version.row_count, version.dataset.team.slug) == (True, 1, "red-team")
    assert sent in good(lowrank("datasets", "ls"))
    assert json.loads(good(lowrank("datasets", "ls", "--json")))["id"] == sent


def test_a_bad_file_is_told_with_its_lines(lowrank: Lowrank, inspector: None, tmp_path: Path) -> None:
    done = lowrank("datasets", "push", rows_file(tmp_path, ROW, "{}"))
    assert done.returncode == 1
    assert "Line 2" in done.stdout


def test_check_by_the_server_leaves_nothing_there(lowrank: Lowrank, inspector: None, tmp_path: Path) -> None:
    good(lowrank("datasets", "check", rows_file(tmp_path, ROW), "--remote"))
    assert not DatasetVersion.objects.exists()


def test_a_large_file_goes_on_where_it_stood(
    surroundings: dict[str, str], people: Cast, tmp_path: Path, lowrank: Lowrank
) -> None:
    file = rows_file(tmp_path, *[ROW] * ((2 * uploading.PART + 1000) // len(ROW) + 1), *["" for _ in range(200_000)])
    file.write_bytes(file.read_bytes() + b"\n" * uploading.AT_ONCE)
    command = [sys.executable, "-m", "lowrank", "datasets", "push", str(file), "--no-wait"]
    sending = subprocess.Popen(command, cwd=tmp_path, env=surroundings, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(UploadPart.objects.exists, why="a part has arrived")
    wait_for(lambda: list((tmp_path / ".cache" / "lowrank").glob("*.json")), why="it is noted")
    sending.send_signal(signal.SIGKILL)
    sending.communicate(timeout=10)
    done = lowrank("datasets", "push", file, "--no-wait")
    sent = good(done)
    assert "Going on after" in done.stderr
    assert PartedUpload.objects.count() == 1
    version = DatasetVersion.objects.get(pk=uuid_of(sent, FILE))
    assert version.size == file.stat().st_size
    assert not list((tmp_path / ".cache" / "lowrank").glob("*.json"))


# Jobs


def test_create_from_a_spec(lowrank: Lowrank, people: Cast, tmp_path: Path) -> None:
    make_base(name="Tiny")
    rows_file(tmp_path, ROW)
    spec = tmp_path / "spec.yaml"
    spec.write_text("model: {base: tiny, quantization: none}\ndata: {path: rows.jsonl}\nlora: {r: 4}\n")
    made = good(lowrank("jobs", "create", "-f", spec, "--name", "four"))
    job = Job.objects.get(pk=uuid_of(made, JOB))
    assert (job.name, job.base_model.name, job.train_spec.lora.r, job.train_spec.model.quantization) == (
        "four",
        "Tiny",
        4,
        "none",
    )
    assert job.dataset_version.original_name == "rows.jsonl"
    assert made in good(lowrank("jobs", "ls"))
    held = wire_id(FILE, job.dataset_version_id)
    again = json.loads(
        good(lowrank("jobs", "create", "--model", "tiny", "--dataset", held, "--name", "five", "--json"))
    )
    assert again["training_file"] == held


def test_a_wrong_value_is_told_by_its_name(lowrank: Lowrank, people: Cast, tmp_path: Path) -> None:
    make_base(name="Tiny")
    version = make_dataset(people.team).newest
    spec = tmp_path / "spec.yaml"
    spec.write_text("model: {base: tiny}\nlora: {r: -4}\n")
    done = lowrank("jobs", "create", "-f", spec, "--dataset", wire_id(FILE, version.pk))
    assert (done.returncode, done.stdout) == (1, "")
    assert "spec.lora.r" in done.stderr
    spec.write_text("model: [")
    assert lowrank("jobs", "create", "-f", spec).returncode == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [(JobStatus.SUCCEEDED, 0), (JobStatus.FAILED, 1), (JobStatus.CANCELLED, 3), (JobStatus.QUEUED, 124)],
)
def test_wait_exits_with_the_result(lowrank: Lowrank, people: Cast, status: str, code: int) -> None:
    job = job_of(people, status=status)
    done = lowrank("jobs", "wait", wire_id(JOB, job.pk), "--timeout", "0.5", "--json")
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["status"] == status


def test_wait_until_it_ends(surroundings: dict[str, str], people: Cast, tmp_path: Path) -> None:
    job = job_of(people, status=JobStatus.QUEUED)
    command = [sys.executable, "-m", "lowrank", "jobs", "watch", wire_id(JOB, job.pk)]
    # Whoever runs tests in the background of a shell has Ctrl-C ignored, and so would their children.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting = subprocess.Popen(command, cwd=tmp_path, env=surroundings, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    assert waiting.stderr and waiting.stderr.readline() == "queued\n"
    Job.objects.filter(pk=job.pk).update(status=JobStatus.CANCELLED)
    assert waiting.wait(10) == 3


def test_ctrl_c_leaves_the_job(surroundings: dict[str, str], people: Cast, tmp_path: Path) -> None:
    job = job_of(people, status=JobStatus.QUEUED)
    command = [sys.executable, "-m", "lowrank", "jobs", "watch", wire_id(JOB, job.pk)]
    # Whoever runs tests in the background of a shell has Ctrl-C ignored, and so would their children.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting = subprocess.Popen(command, cwd=tmp_path, env=surroundings, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    assert waiting.stderr and waiting.stderr.readline() == "queued\n"
    time.sleep(0.2)
    waiting.send_signal(signal.SIGINT)
    _, told = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    assert "goes on" in told and "Traceback" not in told
    job.refresh_from_db()
    assert (job.status, job.cancel_requested) == (JobStatus.QUEUED, False)


def test_logs_pause_resume_cancel(lowrank: Lowrank, people: Cast) -> None:
    job = job_of(people, status=JobStatus.QUEUED)
    make_job_event(job, "log", text="\x1b[31mhello")
    name = wire_id(JOB, job.pk)
    lines = good(lowrank("jobs", "logs", name)).splitlines()
    assert lines[0].endswith("The job was created.")
    assert lines[1].endswith("  [31mhello")  # nothing that steers a terminal
    assert good(lowrank("jobs", "pause", name)) == f"{name} is paused."
    assert good(lowrank("jobs", "resume", name)) == f"{name} is queued."
    assert good(lowrank("jobs", "cancel", name)) == f"{name} is cancelled."
    assert lowrank("jobs", "logs", "-f", name).returncode == 3
    assert lowrank("jobs", "cancel", name).returncode == 1


# Adapters


def test_pull_gives_a_folder_for_peft(lowrank: Lowrank, adapter: Adapter, tmp_path: Path) -> None:
    name = adapter_name(adapter)
    assert name in good(lowrank("adapters", "ls"))
    assert good(lowrank("adapters", "pull", name)) == "style"
    here = {file.name: file.read_bytes() for file in (tmp_path / "style").iterdir()}
    assert here == {file.name: file.read_bytes() for file in adapter.folder.iterdir()}
    assert lowrank("adapters", "pull", name).returncode == 2
    done = lowrank("adapters", "pull", name, "--zip", "--out", "kept.zip")
    assert good(done) == "kept.zip"
    assert done.stderr == f"{size_text((tmp_path / 'kept.zip').stat().st_size)} received\n"
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".lowrank-")]


def test_the_last_of_a_progress_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    for size in ("1.0", "2.0", "3.0"):
        progress.show(f"{size} MB received")
    progress.end("23.1 MB received")
    assert capsys.readouterr().err.splitlines() == ["1.0 MB received", "23.1 MB received"]


def test_a_damaged_adapter_is_not_sent(lowrank: Lowrank, people: Cast, tmp_path: Path) -> None:
    broken = make_adapter(people.team, make_base(), weights_sha256="0" * 64)
    done = lowrank("adapters", "pull", adapter_name(broken))
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert "missing or changed" in done.stderr


# Chat


def test_one_question(talk: Callable[..., OpenAI], lowrank: Lowrank, adapter: Adapter) -> None:
    address = str(talk().base_url).removesuffix("/v1/")
    asked = ("chat", "-m", adapter_name(adapter), "--temperature", "0", "--max-tokens", "8", "Who are you?")
    streamed = good(lowrank(*asked, LOWRANK_URL=address))
    whole = json.loads(good(lowrank(*asked, "--json", LOWRANK_URL=address)))
    assert plain(whole["choices"][0]["message"]["content"]).strip() == streamed
    piped = good(lowrank(*asked[:-1], text="Who are you?\n", LOWRANK_URL=address))
    assert piped == streamed
