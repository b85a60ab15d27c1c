"""`manage.py create_api_key`: the key alone on stdout, or a sentence on stderr."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.cast import Cast
from webapp.accounts import keys
from webapp.accounts.models import ApiKey


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("create_api_key", *arguments, stdout=out)
    return out.getvalue()


def test_it_prints_just_the_key(cast: Cast) -> None:
    printed = run("--email", "Alice@example.com", "--name", "cron")
    assert keys.user_of(printed.strip()) == cast.alice
    assert printed == printed.strip() + "\n"
    assert ApiKey.objects.get().name == "cron"


@pytest.mark.parametrize(
    "arguments", [["--email", "nobody@example.com"], ["--email", "alice@example.com", "--name", ""]]
)
def test_an_error_is_a_sentence(cast: Cast, arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=r"\."):
        run(*arguments)
    assert not ApiKey.objects.exists()


def test_the_process_says_errors_on_stderr_with_exit_1(tmp_path: Path) -> None:
    env = {"DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=root, env=env, check=True, capture_output=True)
    command = [sys.executable, "manage.py", "create_api_key", "--email", "x@example.com"]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Nobody here has the e-mail address x@example.com." in done.stderr
