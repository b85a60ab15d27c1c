"""The compose files: valid by the specification's schema, sound in what they promise, and every command really runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.postgres import Postgres
from tests.processes import Processes, wait_for
from webapp.system import processes

ROOT = Path(__file__).resolve().parent.parent
SECRETS = {"POSTGRES_PASSWORD": "pgsecret", "VALKEY_PASSWORD": "vksecret"}
WEB_PORT, VALKEY_PORT, POSTGRES_PORT = 8151, 8152, 8153
CELERY_SERVICES = {"worker": "gpu", "chat": "chat", "default": "default"}


def substituted(text: str, values: dict[str, str]) -> str:
    """A compose file's text with its variables filled in: ${NAME:-default}, ${NAME:?message}, $$ for a dollar."""
    inner = re.compile(r"\$\{(\w+)(?::([-?])([^${}]*))?\}")

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if values.get(name):
            return values[name]
        assert kind == "-", f"{name} must be set: {rest}"
        return str(rest)

    while inner.search(text):
        text = inner.sub(value, text)
    return text.replace("$$", "$")


def merged(under: Any, over: Any) -> Any:
    """An overlay on a file, by the rules of Compose that our overlay needs: mappings merge, the rest is replaced."""
    if isinstance(under, dict) and isinstance(over, dict):
        return under | {key: merged(under.get(key), value) for key, value in over.items()}
    return over


def compose(*names: str, values: dict[str, str] = SECRETS) -> dict[str, Any]:
    together: dict[str, Any] = {}
    for name in names:
        together = merged(together, yaml.safe_load(substituted((ROOT / name).read_text(), values)))
    return together


BASE = ("docker-compose.yml",)
WITH_GPU = ("docker-compose.yml", "docker-compose.gpu.yml")


def schema() -> Draft202012Validator:
    return Draft202012Validator(json.loads((ROOT / "tests/data/compose-spec.json").read_text()))


@pytest.mark.parametrize("names", [BASE, ("docker-compose.gpu.yml",), WITH_GPU])
def test_files_follow_the_specification(names: tuple[str, ...]) -> None:
    problems = [f"{error.json_path}: {error.message}" for error in schema().iter_errors(compose(*names))]
    assert problems == []


def test_the_schema_finds_mistakes() -> None:
    wrong = merged(compose(*BASE), {"services": {"web": {"restarts": "always"}}})
    assert not schema().is_valid(wrong)


def test_no_start_without_passwords() -> None:
    with pytest.raises(AssertionError, match="PASSWORD must be set"):
        compose(*BASE, values={})


def test_only_the_web_is_published_and_only_to_this_machine() -> None:
    services = compose(*BASE)["services"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "web": ["127.0.0.1:8000:8000"]
    }


def test_services_wait_for_what_they_need() -> None:
    services = compose(*BASE)["services"]
    for name in ("web", "scheduler", *CELERY_SERVICES):
        assert services[name]["depends_on"] == {
            "prepare": {"condition": "service_completed_successfully"},
            "postgres": {"condition": "service_healthy"},
            "valkey": {"condition": "service_healthy"},
        }
    for name, service in services.items():
        assert ("healthcheck" in service) == (name != "prepare"), name
        assert service["restart"] == ("no" if name == "prepare" else "unless-stopped"), name


def test_broker_keeps_what_it_holds_and_asks_for_a_password() -> None:
    command = compose(*BASE)["services"]["valkey"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--requirepass"] == "vksecret"
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_training_has_time_to_write_its_checkpoint() -> None:
    worker = compose(*BASE)["services"]["worker"]
    assert worker["stop_grace_period"] == "2m"
    assert 60 <= float(worker["environment"]["HAND_BACK_SECONDS"]) < 120 - 10
    assert worker["environment"]["DATA_DIR"] == "/data"


def test_commands_are_those_of_one_machine() -> None:
    services = compose(*BASE)["services"]
    concurrency = {"gpu": 1, "chat": 8, "default": 4}
    for service, queue in CELERY_SERVICES.items():
        ours = list(processes.worker(queue, concurrency=concurrency[queue]).command)
        quiet_root = ours.index("-W")  # in the image nobody is root
        assert services[service]["command"] == ["python", *ours[1:quiet_root], *ours[quiet_root + 2 :]]
    for service, program in (("web", processes.web()), ("scheduler", processes.scheduler())):
        assert services[service]["command"] == ["python", *program.command[1:]]


def test_gpu_overlay_gives_training_and_chat_a_gpu() -> None:
    services = compose(*WITH_GPU, values={**SECRETS, "GPU_COUNT": "2"})["services"]
    device = {"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}
    with_gpu = [name for name, one in services.items() if "deploy" in one]
    assert with_gpu == ["worker", "chat"]
    for name in with_gpu:
        assert services[name]["deploy"]["resources"]["reservations"]["devices"] == [device]
        assert services[name]["command"] == compose(*BASE)["services"][name]["command"]


class Stack:
    """The services of the compose file as processes of this machine: its commands, its environment, other addresses."""

    def __init__(self, folder: Path) -> None:
        self.services = compose(*BASE)["services"]
        self.processes = Processes(folder)
        programs = folder / "programs"
        programs.mkdir()
        for name, stands_in in (("valkey-server", "redis-server"), ("valkey-cli", "redis-cli")):
            found = shutil.which(stands_in)
            assert found, f"{stands_in} is not installed; `make test` installs it"
            (programs / name).symlink_to(found)
        self.path = f"{programs}:{os.environ['PATH']}"

    def environment(self, name: str) -> dict[str, str]:
        given: dict[str, str] = self.services[name].get("environment", {})
        moved = {
            **given,
            "DATA_DIR": str(self.processes.data_dir),
            "PORT": str(WEB_PORT),
            "BASE_URL": f"http://localhost:{WEB_PORT}",
            "DATABASE_URL": given.get("DATABASE_URL", "").replace("@postgres:5432", f"@127.0.0.1:{POSTGRES_PORT}"),
            "REDIS_URL": given.get("REDIS_URL", "").replace("@valkey:6379", f"@127.0.0.1:{VALKEY_PORT}"),
        }
        needed = {"PATH": self.path, "DEMO_MODEL": "false", "OMP_NUM_THREADS": "1", "WEB_CONCURRENCY": "1"}
        mark = {"TEST_PROCESSES": self.processes.environment["TEST_PROCESSES"], "HOME": str(self.processes.data_dir)}
        return {**moved, **needed, **mark}

    def start(self, name: str, *more: str) -> None:
        self.processes.environment = self.environment(name)
        command = [self.program(self.services[name]["command"][0]), *self.services[name]["command"][1:], *more]
        self.processes.start(name, *command)

    def program(self, name: str) -> str:
        # The interpreter by its own path: through a link it would not find its virtual environment.
        return sys.executable if name == "python" else str(self.processes.data_dir / "programs" / name)

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check passes, run as Compose runs it."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        if kind == "CMD-SHELL":
            shell = test[0].replace("python -m", f"{sys.executable} -m")
            test = ["sh", "-c", shell.replace("valkey-cli", f"valkey-cli -p {VALKEY_PORT}")]
        elif test[0] == "python":
            test[0] = sys.executable
        environment = self.environment(name)
        done = subprocess.run(test, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        def settled() -> bool:
            return self.processes.ended(name) or self.healthy(name)

        wait_for(settled, seconds=90, every=0.5, why=f"{name} is healthy")
        assert not self.processes.ended(name), f"{name} ended:\n{self.processes.log(name)}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    with Postgres(POSTGRES_PORT, password=SECRETS["POSTGRES_PASSWORD"]), stack.processes:
        stack.start("valkey", "--port", str(VALKEY_PORT), "--dir", str(stack.processes.data_dir))
        stack.wait_until_healthy("valkey")
        stack.start("prepare")
        prepare = stack.processes.running.pop("prepare")
        assert prepare.wait(60) == 0, stack.processes.log("prepare")
        for name in ("web", "scheduler", *CELERY_SERVICES):
            stack.start(name)
        yield stack


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["web", "scheduler", *CELERY_SERVICES])
def test_service_runs_and_its_health_check_passes(stack: Stack, name: str) -> None:
    stack.wait_until_healthy(name)


@pytest.mark.chaos
def test_prepare_prints_the_owners_link(stack: Stack) -> None:
    assert re.search(rf"http://localhost:{WEB_PORT}/setup/\S+", stack.processes.log("prepare"))


@pytest.mark.chaos
def test_health_checks_notice_a_missing_service(stack: Stack) -> None:
    for name in ("web", "default", "valkey"):  # the broker last: the others need it to answer
        stack.wait_until_healthy(name)
        stack.processes.stop(name)
        assert not stack.healthy(name)
