"""What chat tests share: a real broker, a tiny base model with a real tokenizer, and real adapters on it."""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from tests.cast import Cast
from tests.make import make_adapter as make_adapter_row
from tests.make import make_base
from tests.processes import valkey_binary, wait_for
from tests.tiny import CONTEXT, make_tiny_base
from webapp.adapters.models import Adapter, BaseModel
from webapp.chat import engine_door
from webapp.chat.targets import Targets
from webapp.common import streams

ENDLESS = 1 << 16  # tokens; at a millisecond each, and later more, that is minutes


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """The address of a Valkey server of these tests' own."""
    folder = Path(tempfile.mkdtemp(prefix="lr-"))  # the path of a unix socket must be short
    command = [valkey_binary(), "--port", "0", "--unixsocket", str(folder / "v.sock"), "--dir", str(folder)]
    process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
    wait_for((folder / "v.sock").exists, seconds=10, why="the broker answers")
    yield f"unix://{folder / 'v.sock'}"
    process.terminate()
    process.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def live_streams(broker: str, settings: Settings) -> Iterator[None]:
    """`webapp.common.streams` on the real broker."""
    settings.CACHE_URL = broker
    streams._client.cache_clear()
    yield
    streams._client().flushall()
    streams._client.cache_clear()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def base(cast: Cast, tiny_folder: Path) -> BaseModel:
    """A ready base model that renders, and loads in float32."""
    return make_base(path=tiny_folder, facts={"context_length": CONTEXT})


@pytest.fixture(scope="session")
def endless_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("endless"), context=ENDLESS)


@pytest.fixture
def endless(cast: Cast, endless_folder: Path) -> BaseModel:
    """A base model with room for answers that nobody waits the end of: what ends them is what a test is about."""
    return make_base(name="endless", path=endless_folder, facts={"context_length": ENDLESS})


@pytest.fixture
def both(cast: Cast, base: BaseModel) -> Targets:
    """The base model and one adapter of the team, beside each other."""
    return Targets(base, include_base=True, adapters=[make_adapter_row(cast.team, base, name="style")])


@pytest.fixture
def make_real_adapter(tiny_folder: Path, cast: Cast) -> Callable[..., Adapter]:
    """Makes an adapter with random weights that PEFT wrote."""
    from tests.trainer.adapters import make_adapter as write_adapter

    def make(base: BaseModel, *, seed: int, **extra: Any) -> Adapter:
        adapter = make_adapter_row(cast.team, base, name=f"adapter {seed}", **extra)
        write_adapter(tiny_folder, adapter.folder, seed=seed)
        weights = (adapter.folder / engine_door.WEIGHTS).read_bytes()
        adapter.weights_sha256 = hashlib.sha256(weights).hexdigest()
        adapter.save()
        return adapter

    return make
