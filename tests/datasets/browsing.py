"""Somebody's browser, logged in, which must have nothing to complain about."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from playwright.sync_api import Browser, Page

from tests.cast import Cast
from tests.e2e.site import watch_console


@contextmanager
def page_of(browser: Browser, cast: Cast, site: str, *, who: str = "bob", **options: object) -> Iterator[Page]:
    """A page of their own context; `options` are Playwright's for that."""
    context = browser.new_context(base_url=site, **options)  # type: ignore[arg-type]
    name = settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": cast.client(who).cookies[name].value, "url": site}])
    page = context.new_page()
    complaints = watch_console(page)
    yield page
    assert [one for one in complaints if "422" not in one] == [], "what is refused on purpose is 422"
    if options.get("java_script_enabled", True):
        assert page.evaluate("window.pwned") is None
    context.close()
