"""The doctor's report: what it says, what it keeps to itself, and when it ends with 1."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Processes
from webapp.system import doctor, health
from webapp.system.doctor import Finding, report


def test_report_marks_what_needs_action() -> None:
    text = report([Finding("python", "3.11.7"), Finding("disk", "0.1 GB free", "Free some space.")])
    assert text.splitlines()[1:] == [
        "ok python      3.11.7",
        "!! disk        0.1 GB free",
        "               → Free some space.",
    ]


def test_torch_that_does_not_import_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ASK_TORCH", "raise OSError('libcuda.so.1: cannot open shared object file')")
    finding = doctor._device()
    assert finding.text == "OSError: libcuda.so.1: cannot open shared object file"
    assert "nvidia-smi" in finding.fix


def test_missing_package_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WEB_PACKAGES", ("django", "no-such-package"))
    assert "no-such-package" in doctor._packages().fix


def test_files_that_others_can_read_are_findings(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    key = tmp_path / "secret_key"
    key.write_text("secret")
    for mode, fine in ((0o600, True), (0o640, False), (0o604, False)):
        key.chmod(mode)
        assert (doctor._secret_key().fix == "") is fine
    for mode, fine in ((0o700, True), (0o750, True), (0o755, False)):
        tmp_path.chmod(mode)
        assert (doctor._data_dir().fix == "") is fine


def test_full_disk_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._disk().fix == ""
    monkeypatch.setattr(health, "MIN_FREE_BYTES", 2**62)
    assert doctor._disk().fix == "Free some space, or move DATA_DIR."


def test_database_is_up_to_date_after_migrating(db: None) -> None:
    assert doctor._database().text.endswith(", up to date")


def test_whole_report_on_a_new_folder(tmp_path: Path) -> None:
    environment = Processes(tmp_path, REDIS_URL="redis://:hunter2@localhost:1/0", SECRET_KEY="").environment
    command = [sys.executable, "manage.py", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "!! database    sqlite3, " in done.stdout
    assert "!! broker      REDIS_URL, does not answer" in done.stdout
    assert "ok secret key  in DATA_DIR, mode 600" in done.stdout
    assert "CUDA" in done.stdout
    assert "hunter2" not in done.stdout
    assert (tmp_path / "secret_key").read_text() not in done.stdout
