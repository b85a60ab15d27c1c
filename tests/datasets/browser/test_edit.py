"""The editor of a row in a real Chromium: as chat, by keys, with the problem at its field; without scripts as JSON."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browsing import page_of
from tests.cast import Cast
from tests.make import make_dataset
from webapp.datasets.models import DatasetVersion, DraftChange

pytestmark = pytest.mark.django_db(transaction=True)


def call(**arguments: float) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "add", "arguments": arguments}}


CALL = call(b=2, a=1)
ROWS = [
    {
        "messages": [
            {"role": "system", "content": "<img src=x onerror=window.pwned=1>"},
            {"role": "user", "content": "What is 1 + 2?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "3"},
            {"role": "assistant", "content": "It is 3."},
        ]
    },
    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]},
    {
        "messages": [
            {"role": "user", "content": "Add them."},
            {"role": "assistant", "content": None, "tool_calls": [call(b=1.0, a=2**53 + 1)]},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "Add them."},
            {"role": "assistant", "content": None, "tool_calls": [call(**{"b": 2, "1": 1})]},
        ]
    },
]


@pytest.fixture
def version(cast: Cast) -> DatasetVersion:
    return make_dataset(cast.team, rows=ROWS, created_by=cast.alice).versions.get()


@pytest.fixture
def page(chromium: Browser, cast: Cast, site: str, version: DatasetVersion) -> Iterator[Page]:
    """Bob's browser in the editor of the first row."""
    with page_of(chromium, cast, site) as page:
        page.goto(f"/datasets/versions/{version.pk}/rows/1/edit/")
        page.wait_for_selector(".message-card")
        yield page


def kept() -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = json.loads(DraftChange.objects.get().shape)["messages"]
    return messages


def test_a_row_is_edited_as_chat_by_keys(page: Page) -> None:
    assert page.locator("[data-row-json]").is_hidden()
    assert page.locator(".message-card").count() == 5
    assert page.locator(".message-card textarea").first.input_value() == "<img src=x onerror=window.pwned=1>"
    last = page.locator(".message-card").nth(4)
    last.get_by_label("Text").fill("It is three.")
    last.get_by_label("Learn this answer").uncheck()
    page.get_by_role("button", name="Add a message").click()
    page.keyboard.type("And 2 + 2?")
    page.locator(".message-card").nth(5).get_by_label("Role").select_option("user")
    page.get_by_role("button", name="Add a message").click()
    page.keyboard.type("4")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/draft/")
    found = kept()
    assert [one["role"] for one in found] == ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert found[4] == {"role": "assistant", "content": "It is three.", "weight": 0}
    assert found[2]["tool_calls"] == [CALL]
    assert list(found[2]["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]


def test_messages_are_moved_and_removed(page: Page) -> None:
    page.locator(".message-card").nth(1).get_by_label("Text").focus()
    page.keyboard.press("Alt+ArrowUp")
    first = page.locator(".message-card").first.get_by_label("Text")
    assert first.input_value() == "What is 1 + 2?"
    assert first.evaluate("one => one === document.activeElement"), "the keys stay with the message"
    page.get_by_role("button", name="Remove the message").nth(1).click()
    page.get_by_role("button", name="Keep in the draft").click()
    page.wait_for_url("**/draft/")
    assert [one["role"] for one in kept()] == ["user", "assistant", "tool", "assistant"]


def test_a_problem_is_shown_at_its_message(page: Page) -> None:
    page.locator(".message-card").nth(1).get_by_label("Text").fill(" ")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("[role=alert]")
    assert "messages[1].content" in page.locator("[role=alert]").inner_text()
    assert page.locator(".message-card").nth(1).locator(".has-problem").count() == 1
    assert not DraftChange.objects.exists()


def test_broken_json_of_a_call_is_not_sent(page: Page) -> None:
    page.get_by_label("As a JSON list").first.fill("[")
    page.get_by_role("button", name="Keep in the draft").click()
    assert page.url.endswith("/edit/")
    page.get_by_role("button", name="As JSON").click()
    assert page.locator("[data-row-json]").is_visible()


def test_numbers_stay_as_they_are_written(page: Page, version: DatasetVersion) -> None:
    page.goto(f"/datasets/versions/{version.pk}/rows/3/edit/")
    page.locator(".message-card").first.get_by_label("Text").fill("Add these.")
    calls = page.get_by_label("As a JSON list").first
    calls.fill(calls.input_value().replace('"add"', '"sum"'))
    page.get_by_role("button", name="Keep in the draft").click()
    page.wait_for_url("**/draft/")
    shape = DraftChange.objects.get().shape
    assert '"name":"sum","arguments":{"b":1.0,"a":9007199254740993}' in shape


def test_a_row_whose_names_would_change_their_order_is_edited_as_json(page: Page, version: DatasetVersion) -> None:
    page.goto(f"/datasets/versions/{version.pk}/rows/4/edit/")
    field = page.get_by_label("The row as JSON")
    page.get_by_role("button", name="As chat").click()
    page.wait_for_selector("text=cannot be shown as a chat")
    assert field.is_visible()


def test_it_works_without_scripts(chromium: Browser, cast: Cast, site: str, version: DatasetVersion) -> None:
    with page_of(chromium, cast, site, java_script_enabled=False) as page:
        page.goto(f"/datasets/versions/{version.pk}/rows/2/edit/")
        field = page.get_by_label("The row as JSON")
        field.fill(field.input_value().replace("Good day.", "Good evening."))
        page.get_by_role("button", name="Keep in the draft").click()
        page.wait_for_url("**/draft/")
        assert "1 edited" in page.content()
        page.get_by_role("button", name="Save as version 2").click()
        page.wait_for_url("**?version=2")
        assert version.dataset.versions.count() == 2
