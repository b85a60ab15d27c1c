"""`pip install .`: the command line client as a command of its own, and nothing of the service."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tests.processes import ROOT
from webapp.version import version


def test_pip_install_makes_the_command(tmp_path: Path) -> None:
    """Into a fresh environment, from a copy, with the build tool that is here: no network."""
    source, home = tmp_path / "source", tmp_path / "venv"
    shutil.copytree(ROOT / "lowrank", source / "lowrank", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "webapp").mkdir()
    for name in ("webapp/version.py", "CHANGELOG.md", "pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, source / name)
    venv.create(home, symlinks=True)
    site = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    install = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet"]
    own = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--no-index", str(source)], env=own, check=True)
    assert (site / f"lowrank-{version()}.dist-info").is_dir()
    assert {one.name for one in site.iterdir() if not one.name.endswith(".dist-info")} - {"__pycache__"} == {"lowrank"}
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [home / "bin" / "lowrank"]
    bare = subprocess.run([*command, "--help"], env=plain, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named 'yaml'" in bare.stderr  # its one dependency, which --no-deps left out
    yaml = {**plain, "PYTHONPATH": str(Path(next(p for p in sys.path if (Path(p) / "yaml").is_dir())))}
    helped = subprocess.run([*command, "--help"], env=yaml, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Datasets, jobs, adapters and chat" in helped.stdout
    used = subprocess.run(
        [*command, "adapters", "ls"], env=yaml, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (used.returncode, used.stdout) == (2, "")
    assert "lowrank login" in used.stderr
