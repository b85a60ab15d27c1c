"""The environment becomes settings, or a sentence that names the variable."""

import ast
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.exceptions import ImproperlyConfigured

from webapp import env

ROOT = Path(__file__).resolve().parents[2]
READERS = {"text", "words", "choice", "flag", "number", "whole"}


@pytest.mark.parametrize(
    ("read", "given", "says"),
    [
        (lambda: env.whole("LR_TEST", default=1, lowest=1, highest=65535), "abc", "LR_TEST is 'abc'; use a number."),
        (lambda: env.whole("LR_TEST", default=1), "1.5", "LR_TEST is 1.5; use a whole number."),
        (lambda: env.whole("LR_TEST", default=1, lowest=1, highest=65535), "0", "use a number from 1 to 65535."),
        (lambda: env.number("LR_TEST", default=1), "nan", "use a number from"),
        (lambda: env.flag("LR_TEST", default=True), "maybe", "LR_TEST is 'maybe'; use true or false."),
        (lambda: env.choice("LR_TEST", "a", ("a", "b")), "c", "LR_TEST is 'c'; use one of a, b."),
    ],
)
def test_wrong_value_is_named(read: Any, given: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LR_TEST", given)
    with pytest.raises(ImproperlyConfigured, match=re.escape(says)):
        read()


def test_empty_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LR_TEST", " ")
    assert env.text("LR_TEST", "default") == "default"
    assert env.words("LR_TEST") == []
    assert env.flag("LR_TEST", default=True) is True
    assert env.whole("LR_TEST", default=7) == 7


def test_broker_url_in_both_dialects() -> None:
    assert env.broker_urls("redis://:pw@h:1/2") == ("redis://:pw@h:1/2", "redis://:pw@h:1/2")
    celery, cache = env.broker_urls("unix:///a%20b/v.sock?db=3")
    assert (celery, cache) == ("redis+socket:///a%20b/v.sock?virtual_host=3", "unix:///a%20b/v.sock?db=3")
    with pytest.raises(ImproperlyConfigured, match="REDIS_URL starts with 'http'"):
        env.broker_urls("http://h")


def test_sqlite_beside_a_broker_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for local in ("unix:///x", "redis://localhost:6379/0", "redis://:p@127.0.0.1:1", "redis://[::1]:6379"):
        assert env.database(tmp_path, local)["NAME"] == str(tmp_path / "db.sqlite3")
    with pytest.raises(ImproperlyConfigured, match=r"host gpu-box.*SQLite serves a single one"):
        env.database(tmp_path, "redis://gpu-box:6379/0")
    monkeypatch.setenv("DATABASE_URL", "postgres://u:p@db:5432/n")
    assert env.database(tmp_path, "redis://gpu-box:6379/0")["HOST"] == "db"
    monkeypatch.setenv("DATABASE_URL", "mysql://u:p@db/n")
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL must name"):
        env.database(tmp_path, "redis://gpu-box:6379/0")


def test_hosts_of_every_kind_of_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALLOWED_HOSTS", raising=False)
    local = {"localhost", "127.0.0.1", "[::1]"}
    assert set(env.allowed_hosts("127.0.0.1", "http://localhost:8000")) == local
    assert set(env.allowed_hosts("::1", "http://[::1]:8000")) == local
    assert "[2001:db8::5]" in env.allowed_hosts("127.0.0.1", "https://[2001:db8::5]")
    assert "lowrank.example" in env.allowed_hosts("127.0.0.1", "https://lowrank.example")
    assert "*" not in env.allowed_hosts("0.0.0.0", "http://localhost:8000")
    monkeypatch.setenv("ALLOWED_HOSTS", "a.example, b.example")
    assert env.allowed_hosts("127.0.0.1", "http://localhost")[:2] == ["a.example", "b.example"]
    assert [env.in_url(host) for host in ("0.0.0.0", "::", "::1", "h")] == ["localhost", "localhost", "[::1]", "h"]


def test_secret_key_is_made_once_and_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    folder = tmp_path / "data"
    with ThreadPoolExecutor(8) as pool:  # as many processes start at once
        keys = set(pool.map(lambda _: env.make_folders(folder) or env.secret_key(folder), range(32)))
    assert len(keys) == 1
    assert len(keys.pop()) >= 50
    assert stat.S_IMODE((folder / "secret_key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["secret_key"]


def read_settings(name: str, **environment: str) -> str:
    """One setting as a fresh process reads it."""
    program = f"from webapp import settings; print(settings.{name})"
    env = {"PATH": os.environ["PATH"], **environment}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_the_data_folder_is_private_with_a_key_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    read_settings("DATA_DIR", DATA_DIR=str(folder), SECRET_KEY="x" * 50)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_data_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)  # a volume that a group shares
    read_settings("DATA_DIR", DATA_DIR=str(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_the_headers_that_a_proxy_is_believed_are_documented(tmp_path: Path) -> None:
    environment = {"BEHIND_PROXY": "true", "DATA_DIR": str(tmp_path)}
    proto = read_settings("SECURE_PROXY_SSL_HEADER[0]", **environment).removeprefix("HTTP_")
    assert read_settings("ALLAUTH_TRUSTED_PROXY_COUNT", **environment) == "1"
    nginx = (ROOT / "docs" / "operations.md").read_text().upper().replace("-", "_")
    example = (ROOT / ".env.example").read_text().upper().replace("-", "_")
    for header in (proto, "X_FORWARDED_FOR"):  # the second is allauth's
        assert f"PROXY_SET_HEADER {header} $" in nginx
        assert header in example


def test_socket_path_is_short_and_the_same_for_everyone() -> None:
    assert env.embedded_socket(Path("/srv/data")) == Path("/srv/data/valkey/v.sock")
    long = Path("/srv") / ("ü" * 60)
    short = env.embedded_socket(long)
    assert len(os.fsencode(short)) <= env.SOCKET_PATH_BYTES
    assert short == env.embedded_socket(long) != env.embedded_socket(long / "other")


def test_wrong_setting_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "PORT": "eight", "DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "manage.py", "check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Lowrank cannot start: PORT is 'eight'; use a number.\n"
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImproperlyConfigured, match=r"DATA_DIR is .*file/data, .*: Not a directory\. Choose another\."):
        env.make_folders(tmp_path / "file" / "data")


def test_a_database_that_does_not_answer_is_a_sentence(tmp_path: Path) -> None:
    values = {**os.environ, "DATA_DIR": str(tmp_path), "DATABASE_URL": "postgres://us:secret@127.0.0.1:9/none"}
    command = [sys.executable, "manage.py", "prepare"]
    done = subprocess.run(command, cwd=ROOT, env=values, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Lowrank cannot start: the database does not answer: connection failed")
    assert done.stderr.endswith("Connection refused. Look at DATABASE_URL.\n")
    assert "secret" not in done.stderr


def documented() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    found = (re.fullmatch(r"(?:# )?([A-Z_]+)=(.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def variables_read() -> dict[str, object]:
    """Every variable that the web's code reads, with its default where that is a literal."""
    found: dict[str, object] = {}
    for path in sorted((ROOT / "webapp").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if name := _variable(node):
                assert isinstance(node, ast.Call)
                values = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "default")]
                found.setdefault(name, values[0].value if values and isinstance(values[0], ast.Constant) else None)
    return found


def _variable(node: ast.AST) -> str | None:
    """`NAME` for env.text("NAME", …), text("NAME", …) and os.environ.get("NAME", …)."""
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return None
    called = ast.unparse(node.func).removeprefix("env.")
    name = node.args[0].value
    ours = called in READERS or called in ("os.environ.get", "os.getenv")
    return name if ours and isinstance(name, str) and name.isupper() else None


def test_every_variable_is_documented() -> None:
    compose = "".join(path.read_text() for path in ROOT.glob("docker-compose*.yml"))
    of_compose = set(re.findall(r"\$\{([A-Z_]+)", compose))
    of_libraries = {"HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"}
    assert set(documented()) == set(variables_read()) | of_compose | of_libraries


def test_documented_defaults_are_the_real_ones() -> None:
    described, real = documented(), variables_read()
    for name, default in real.items():
        if default is not None and described[name]:
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert described[name] == shown, name


def test_every_variable_has_its_sentence() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    for before, line in zip(lines, lines[1:], strict=False):
        if re.fullmatch(r"(?:# )?[A-Z_]+=.*", line):
            assert re.fullmatch(r"# .*[^=]\.", before), line


def test_example_file_works_as_it_is(tmp_path: Path) -> None:
    """Copied to .env without a change it must not break anything: no empty value may hide a GPU or a cache."""
    uncommented = [line for line in (ROOT / ".env.example").read_text().splitlines() if re.match(r"[A-Z_]+=", line)]
    values = dict(line.split("=", 1) for line in uncommented) | {"DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "manage.py", "check"]
    subprocess.run(command, cwd=ROOT, env=values, capture_output=True, check=True)


def test_compose_file_passes_only_known_variables() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services["web"]["environment"]) <= set(documented())
