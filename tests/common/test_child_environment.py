"""Our own secrets reach no child; the hub's token reaches the one that fetches models and not the trainer."""

import os
import re
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.source import ROOT
from webapp.adapters import fetching
from webapp.adapters.models import BaseModel
from webapp.common.child_environment import HUB_TOKENS, OURS, child_environment
from webapp.jobs.child import Child

HARMLESS = {"BASE_URL"}  # the address that people type


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OURS, *HUB_TOKENS):
        monkeypatch.setenv(name, f"secret-of-{name}")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:1")


def test_every_secret_that_is_documented_is_withheld(secrets: None) -> None:
    example = (ROOT / ".env.example").read_text()
    documented = set(re.findall(r"(?m)^(?:# )?([A-Z_]*(?:PASSWORD|TOKEN|SECRET|KEY|_URL)[A-Z_]*)=", example)) - HARMLESS
    assert {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "HF_TOKEN", "SECRET_KEY"} <= documented
    assert not documented & child_environment(with_hub_token=False).keys()
    assert documented & child_environment(with_hub_token=True).keys() == {"HF_TOKEN"}
    assert child_environment(with_hub_token=True)["HTTPS_PROXY"] == "http://proxy.invalid:1"


def test_the_trainer_sees_no_secret(secrets: None, tmp_path: Path) -> None:
    child = Child(["/usr/bin/env"], tmp_path)
    child.drain()
    child.close()
    said = (tmp_path / "log.txt").read_text()
    assert "PATH=" in said
    assert "LOWRANK_DIE_WITH_PARENT=1" in said
    assert "secret-of" not in said


def test_a_fetch_sees_the_token_of_the_hub_alone(
    secrets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"  # in the place of the interpreter that would run the trainer
    program.write_text(f"#!/bin/sh\n/usr/bin/env > {tmp_path}/seen\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert fetching._run(BaseModel(pk=uuid4()), 1, ["hub", "someone/model"]) is None
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)
    secret = {name for name, value in seen.items() if value.startswith("secret-of")}
    assert secret == set(HUB_TOKENS)
    assert seen["PATH"] == os.environ["PATH"]
