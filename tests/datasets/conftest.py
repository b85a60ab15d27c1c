"""A real Chromium in front of gunicorn, which shares the tests' own database and files; for one module at a time."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connection
from playwright.sync_api import Browser

from tests.e2e.site import chromium as started_chromium
from tests.e2e.site import free_port
from tests.processes import Processes


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch, started_chromium() as browser:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # Playwright keeps a loop in this thread
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[str]:
    """Its address."""
    environment = {"DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}", "DATA_DIR": str(settings.DATA_DIR)}
    with Processes(tmp_path_factory.mktemp("site"), REDIS_URL="redis://localhost:1", **environment) as running:
        running.manage("collectstatic", "--noinput", "--verbosity", "0")
        yield running.web(free_port())
