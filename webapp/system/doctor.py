"""Looks at everything Lowrank stands on, and says in a block that can be copied what needs action."""

import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from webapp.system import health, valkey
from webapp.version import version

WEB_PACKAGES = ("django", "gunicorn", "celery", "redis", "pyarrow", "tokenizers")
TRAINER_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
# In a process of its own: the web never imports torch, and a broken CUDA installation may take its process along.
ASK_TORCH = """
import torch
if not torch.cuda.is_available():
    print("CPU," , torch.get_num_threads(), "threads; CUDA", torch.version.cuda or "not in this build of torch")
for number in range(torch.cuda.device_count()):
    free, total = torch.cuda.mem_get_info(number)
    name = torch.cuda.get_device_name(number)
    print(f"{name}, {total / 2**30:.0f} GB, {free / 2**30:.0f} GB free, CUDA {torch.version.cuda};", end=" ")
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is set when somebody must act."""

    name: str
    text: str
    fix: str = ""


def examine() -> list[Finding]:
    looks: list[Callable[[], Finding]] = [
        _python, _packages, _trainer_packages, _device, _data_dir, _secret_key, _disk, _database, _broker, _workers,
    ]  # fmt: skip
    return [look() for look in looks]


def report(findings: list[Finding]) -> str:
    """The findings as text that can go into a bug report: no secrets, no addresses with passwords."""
    lines = [f"Lowrank {version()}"]
    for finding in findings:
        lines.append(f"{'!!' if finding.fix else 'ok'} {finding.name:<11} {finding.text}")
        if finding.fix:
            lines.append(f"   {'':<11} → {finding.fix}")
    return "\n".join(lines)


def _python() -> Finding:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", text, "" if sys.version_info >= (3, 11) else "Use Python 3.11 or newer.")


def _versions(names: tuple[str, ...]) -> tuple[str, list[str]]:
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {package_version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return ", ".join(found), missing


def _packages() -> Finding:
    text, missing = _versions(WEB_PACKAGES)
    fix = f"Install requirements/web.txt; missing: {', '.join(missing)}." if missing else ""
    return Finding("packages", text, fix)


def _trainer_packages() -> Finding:
    text, missing = _versions(TRAINER_PACKAGES)
    fix = f"To train or chat here, install requirements.txt; missing: {', '.join(missing)}." if missing else ""
    return Finding("trainer", text, fix)


def _device() -> Finding:
    try:
        done = subprocess.run(
            [sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("device", "torch does not answer within 120 s", "Look at the driver: nvidia-smi.")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Finding("device", last[:200], "Install torch for this machine, or look at the driver: nvidia-smi.")
    text = done.stdout.strip()
    if shutil.which("nvidia-smi") and text.startswith("CPU"):
        return Finding("device", text, "This machine has nvidia-smi; install torch with CUDA to use its GPU.")
    return Finding("device", text)


def _data_dir() -> Finding:
    folder = settings.DATA_DIR
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o007:
        return Finding("data", f"{folder}, mode {mode:o}", f"Anyone on this machine may read it: chmod 700 {folder}")
    return Finding("data", f"{folder}, mode {mode:o}")


def _secret_key() -> Finding:
    file = settings.DATA_DIR / "secret_key"
    if not file.exists():
        return Finding("secret key", "from SECRET_KEY")
    mode = stat.S_IMODE(file.stat().st_mode)
    return Finding("secret key", f"in DATA_DIR, mode {mode:o}", f"chmod 600 {file}" if mode & 0o077 else "")


def _disk() -> Finding:
    usage = shutil.disk_usage(settings.DATA_DIR)
    text = f"{usage.free / 2**30:.1f} GB free of {usage.total / 2**30:.1f} GB"
    return Finding("disk", text, "" if health.disk_has_room() else "Free some space, or move DATA_DIR.")


def _database() -> Finding:
    name = str(settings.DATABASES["default"]["ENGINE"]).rsplit(".", 1)[-1]
    try:
        executor = MigrationExecutor(connection)
        waiting = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except DatabaseError as error:
        return Finding("database", f"{name}: {str(error).splitlines()[0]}", "Look at DATABASE_URL.")
    if waiting:
        return Finding("database", f"{name}, {waiting} migrations wait", "Run `manage.py up` or `manage.py prepare`.")
    return Finding("database", f"{name}, up to date")


def _broker() -> Finding:
    answers = health.broker_answers()
    if settings.EMBEDDED_VALKEY:
        try:
            text = f"embedded, {valkey.find_server()}"
        except valkey.ValkeyFailed as error:
            return Finding("broker", "embedded", str(error))
        return Finding("broker", f"{text}, {'answers' if answers else 'not running (it starts with `manage.py up`)'}")
    fix = "" if answers else "Start that server, or look at REDIS_URL."
    return Finding("broker", f"REDIS_URL, {'answers' if answers else 'does not answer'}", fix)


def _workers() -> Finding:
    return Finding("workers", "one lives" if health.worker_lives() else "none lives (they start with `manage.py up`)")
