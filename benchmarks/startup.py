"""Seconds from `manage.py up` on an installed machine to a page that answers, on a new and on a used data folder."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMISED_SECONDS = 10


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("new data folder", "used data folder", "used data folder"):
            seconds = until_a_page_answers(folder)
            print(f"{kind:<18} {seconds:5.1f} s   promised: under {PROMISED_SECONDS} s")


def until_a_page_answers(folder: str) -> float:
    port = free_port()
    environment = {**os.environ, "DATA_DIR": folder, "PORT": str(port), "REDIS_URL": "", "DEMO_MODEL": "false"}
    begun = time.monotonic()
    command = [sys.executable, "manage.py", "up"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as up:
        try:
            while not login_page(port):
                if up.poll() is not None or time.monotonic() - begun > 120:
                    raise SystemExit("manage.py up did not start")
                time.sleep(0.02)
            return time.monotonic() - begun
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(30)


def login_page(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/accounts/login/", timeout=5) as page:
            return bool(page.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
