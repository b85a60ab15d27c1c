"""One browser, and one server on the tests' own database and files, for all of these tests."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from playwright.sync_api import Browser

from tests.browsing import own_chromium, own_processes
from tests.e2e.site import free_port


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with own_chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[str]:
    """Its address."""
    environment = {"DATA_DIR": str(settings.DATA_DIR), "REDIS_URL": "redis://localhost:1"}
    with own_processes(tmp_path_factory.mktemp("site"), **environment) as running:
        yield running.web(free_port())
