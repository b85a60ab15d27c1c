"""The API's main story on PostgreSQL: the same tests again, in a session of their own whose database is a server."""

import os
import subprocess
import sys

import pytest

from tests.e2e.site import free_port
from tests.postgres import Postgres
from tests.processes import ROOT

# What reads and writes rows: files and uploads, jobs with their events and checkpoints, batches, answers kept for
# repeated requests, pages of lists, rates, shares.
STORY = (
    "test_files.py", "test_uploads.py", "test_jobs.py", "test_job_events.py", "test_checkpoints.py",
    "test_checkpoint_permissions.py", "test_models.py", "test_batches.py", "test_idempotency.py", "test_rate_limits.py",
    "test_call_intake.py", "test_fuzz_jobs.py", "test_fine_tuning_story.py",
)  # fmt: skip


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_story_holds_on_postgresql() -> None:
    with Postgres(free_port()) as server:
        environment = os.environ | {"DATABASE_URL": server.url, "OMP_NUM_THREADS": "1"}
        environment.pop("DATA_DIR", None)  # a folder of its own
        files = [f"tests/api/{name}" for name in STORY]
        command = [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider", "--create-db"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout, "nothing of the story is left out"
