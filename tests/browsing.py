"""A real Chromium in front of gunicorn on the tests' own database, and somebody's pages in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from playwright.sync_api import Browser, BrowserContext, Page

from tests.axe import violations
from tests.cast import Cast
from tests.e2e.site import chromium, watch_console
from tests.processes import Processes

LOOKS = (("light", 1440), ("dark", 1440), ("light", 390))


@contextmanager
def own_chromium() -> Iterator[Browser]:
    """For as short as can be: while it runs, nothing that starts an event loop can be called in this thread."""
    with pytest.MonkeyPatch.context() as patch, chromium() as browser:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # Playwright keeps a loop in this thread
        yield browser


@contextmanager
def own_processes(folder: Path, **environment: str) -> Iterator[Processes]:
    """Ready for `web`."""
    database = f"sqlite:///{connection.settings_dict['NAME']}"
    with Processes(folder, DATABASE_URL=database, **environment) as running:
        running.manage("collectstatic", "--noinput", "--verbosity", "0")
        yield running


def log_in(context: BrowserContext, cast: Cast, site: str, *, who: str) -> None:
    name = settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": cast.client(who).cookies[name].value, "url": site}])


@contextmanager
def page_of(browser: Browser, cast: Cast, site: str, *, who: str = "bob", **options: object) -> Iterator[Page]:
    """A page of their own context, logged in, which must have nothing to complain about.

    `options` are Playwright's for the context.
    """
    context = browser.new_context(base_url=site, **options)  # type: ignore[arg-type]
    log_in(context, cast, site, who=who)
    page = context.new_page()
    complaints = watch_console(page)
    yield page
    assert [one for one in complaints if "422" not in one] == [], "what is refused on purpose is 422"
    if options.get("java_script_enabled", True):
        assert page.evaluate("window.pwned") is None
    context.close()


def looked_at(page: Page, address: str, *, folds: str, looks: tuple[tuple[str, int], ...] = LOOKS) -> list[str]:
    """What is wrong with the page, with everything that folds opened, in every theme and width."""
    page.goto(address)
    page.locator(folds).evaluate_all("(all) => all.forEach((one) => { one.open = true; })")
    found = []
    for theme, width in looks:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{theme} {width}: {line}" for line in violations(page)]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{theme} {width}: wider than the window")
    return found
