"""What most trainer tests begin with: a tiny base model and a file of rows, made once a module."""

from pathlib import Path

import pytest

from tests.tiny import make_tiny_base
from tests.trainer.training import make_rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("rows"))
