"""The supervisor on small programs: one log, restarts with back-off, an orderly stop, nothing left behind."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import wait_for
from webapp.system import supervise
from webapp.system.processes import Program, Stage
from webapp.system.supervise import Log, Supervisor

ROOT = Path(__file__).resolve().parents[2]
SLEEP = (sys.executable, "-S", "-c", "import time; print('ready', flush=True); time.sleep(60)")
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"


class Scene:
    def __init__(self) -> None:
        self.out = io.StringIO()
        self.supervisor = Supervisor(Log(self.out))

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    def until(self, line: str, *, times: int = 1, seconds: float = 10) -> None:
        found = self.supervisor.wait_for(lambda: self.lines().count(line) >= times, seconds=seconds)
        assert found, self.out.getvalue()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(supervise, "STOP_SECONDS", {Stage.WEB: 0.5, Stage.WORKERS: 0.5, Stage.BROKER: 0.5})
    return Scene()


def test_each_line_stands_behind_its_program(scene: Scene) -> None:
    say = "import sys; print('one\\ntwo'); sys.stdout.flush(); sys.stderr.buffer.write(b'caf\\xff without an end')"
    scene.supervisor.start(Program("web", (sys.executable, "-c", say), Stage.WEB))
    scene.until("web     │ caf\ufffd without an end")
    assert scene.lines() == ["web     │ one", "web     │ two", "web     │ caf\ufffd without an end"]
    scene.supervisor.stop()


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    Log(out).line("web", "text")
    assert out.getvalue() == "\x1b[36mweb     │\x1b[0m text\n"
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    Log(out).line("web", "text")
    assert out.getvalue() == "web     │ text\n"


def test_hidden_lines_stay_out_of_the_log(scene: Scene) -> None:
    command = (sys.executable, "-c", "print('Memory overcommit must be on'); print('other')")
    scene.supervisor.start(Program("valkey", command, Stage.BROKER, hides="Memory overcommit"))
    scene.until("valkey  │ other")
    assert scene.lines() == ["valkey  │ other"]
    scene.supervisor.stop()


def test_crashed_program_starts_again_with_growing_pauses(scene: Scene) -> None:
    scene.supervisor.start(Program("web", (sys.executable, "-S", "-c", "raise SystemExit(3)"), Stage.WEB))
    end = time.monotonic() + 4
    while len(scene.lines()) < 3 and time.monotonic() < end:
        scene.supervisor._pass_on_output(0.02)
        scene.supervisor._look_after(scene.supervisor.children[0])
    assert scene.lines() == [
        "lowrank │ web ended with code 3; it starts again in 0 s",
        "lowrank │ web ended with code 3; it starts again in 1 s",
        "lowrank │ web ended with code 3; it starts again in 2 s",
    ]


def test_program_that_cannot_start_again_does_not_end_the_others(scene: Scene) -> None:
    def fail() -> None:
        raise OSError("no space left")

    child = scene.supervisor.start(Program("web", SLEEP, Stage.WEB))
    scene.until("web     │ ready")
    object.__setattr__(child.program, "before", fail)
    scene.supervisor.restart(child)
    assert scene.lines()[-1] == "lowrank │ web cannot start: no space left"
    assert child.start_at is not None
    scene.supervisor.stop()


def test_stop_goes_stage_by_stage(scene: Scene) -> None:
    told = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print('bye'))); print('ready', flush=True)"
    command = (sys.executable, "-c", f"{told}; time.sleep(60)")
    for name, stage in (("valkey", Stage.BROKER), ("gpu", Stage.WORKERS), ("web", Stage.WEB)):
        scene.supervisor.start(Program(name, command, stage))
        scene.until(f"{name:<8}│ ready")
    scene.supervisor.stop()
    assert scene.lines()[3:] == [
        "lowrank │ stopping web",
        "web     │ bye",
        "lowrank │ stopping gpu",
        "gpu     │ bye",
        "lowrank │ stopping valkey",
        "valkey  │ bye",
    ]


def test_what_does_not_end_in_time_is_killed_with_its_children(scene: Scene, tmp_path: Path) -> None:
    grandchild = tmp_path / "pid"
    write = f"open({str(grandchild)!r}, 'w').write(str(s.Popen(['sleep', '60']).pid))"
    command = (sys.executable, "-c", f"import subprocess as s; {write}; {STUBBORN}")
    scene.supervisor.start(Program("web", command, Stage.WEB))
    scene.until("web     │ ready")
    begun = time.monotonic()
    scene.supervisor.stop()
    assert 0.4 < time.monotonic() - begun < 2
    assert not any(child.alive for child in scene.supervisor.children)
    wait_for(lambda: gone(int(grandchild.read_text())), seconds=2, why="the grandchild is gone")


def test_second_request_kills_at_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STOP_SECONDS", dict.fromkeys(Stage, 30.0))
    scene.supervisor.start(Program("web", (sys.executable, "-S", "-c", STUBBORN), Stage.WEB))
    scene.until("web     │ ready")
    before = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, scene.supervisor._note_signal)
    try:
        signal.raise_signal(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        begun = time.monotonic()
        scene.supervisor.stop()
        assert time.monotonic() - begun < 2
    finally:
        signal.signal(signal.SIGALRM, before)


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys\n"
        "from webapp.system.processes import Program, Stage\n"
        "from webapp.system.supervise import Log, Supervisor\n"
        "s = Supervisor(Log(sys.stdout))\n"
        f"c = s.start(Program('web', {SLEEP!r}, Stage.WEB))\n"
        "print(c.process.pid, flush=True)\n"
        "s.run()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    wait_for(lambda: gone(child), seconds=3, why="the child died with its parent")


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
