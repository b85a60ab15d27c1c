"""The reference page shows every call, with examples that the official client understands."""

import ast
from functools import reduce
from html import unescape

import pytest
from django.utils.html import escape
from openai import OpenAI

from tests.cast import Cast
from webapp.api.endpoints import DIFFERENCES, GROUPS, IDEMPOTENCY, ZIP, Endpoint
from webapp.api.reference_text import begin, groups
from webapp.api.templatetags.use_it import marked

ENDPOINTS = [one for found in GROUPS.values() for one in found.values()]


def test_every_call_is_there(cast: Cast) -> None:
    page = cast.client("vera").get("/reference/").content.decode()
    for calls in groups("http://testserver/v1").values():
        for call in calls:
            assert f'id="{call.anchor}"' in page
            assert escape(call.curl) in page
    for told in (IDEMPOTENCY, *DIFFERENCES):
        assert marked(told) in page
    assert "http://testserver/v1" in unescape(page)
    assert "<script>" not in page
    assert "style=" not in page


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.summary)
def test_python_is_what_the_client_has(endpoint: Endpoint) -> None:
    call = ast.parse(endpoint.python, mode="eval").body
    assert isinstance(call, ast.Call)
    _, *names = ast.unparse(call.func).split(".")
    client = OpenAI(api_key="x", base_url="http://localhost/v1")
    method = reduce(getattr, names, client)
    if endpoint.media == ZIP:  # the client's own way to what it does not know
        return
    known = method.__annotations__
    assert {keyword.arg for keyword in call.keywords} <= set(known), known


def test_the_beginning_is_python() -> None:
    compile(begin("http://localhost/v1"), "begin", "exec")


def test_marked_text_is_escaped() -> None:
    assert marked("`<b>` & <i>") == "<code>&lt;b&gt;</code> &amp; &lt;i&gt;"
