"""The errors of a file in a real Chromium: one kind is an address, and the way back leads to all."""

import pytest
from playwright.sync_api import Browser, expect

from tests.browsing import page_of
from tests.cast import Cast
from tests.datasets.inspected import uploaded

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_kind_is_an_address_and_back_leads_to_all(chromium: Browser, cast: Cast, site: str) -> None:
    version = uploaded(
        cast, b'{"prompt": "A", "completion": "B"}\n{"prompt": "", "completion": "B"}\n{"prompt": "A"}\n'
    )
    with page_of(chromium, cast, site, who="vera") as page:
        page.goto(f"/datasets/{version.dataset_id}/")
        shown = page.locator(".error-table tbody tr")
        expect(shown).to_have_count(2)
        page.click(".error-counts >> text=field is missing")
        expect(shown).to_have_count(1)
        page.wait_for_url("**/?version=1&problem=field%20is%20missing")
        page.reload()
        expect(shown).to_have_count(1)
        page.go_back()
        expect(shown).to_have_count(2)
        assert "problem" not in page.url
        expect(page.locator("nav.tabs")).to_be_visible()
