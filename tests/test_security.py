"""What holds for every answer of the site: headers, hosts, no inline code, no stack traces, no 500 for odd input."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path, reverse

from tests import source
from tests.cast import PASSWORD, Cast
from tests.test_permission_matrix import IN_THREADS, NOT_SO, TABLE, fresh_world


def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the database password is hunter2")


urlpatterns = [path("boom/", boom, name="boom"), path("", include("webapp.urls"))]

ODD: list[str | bytes] = [
    "\x00",
    "9" * 40,
    "-1",
    "\u0663",
    "<script>alert(1)</script>",
    b"\xed\xa0\x80",  # a lone surrogate, which no text can hold
    b"\xff",
    "nan",
]
FORM = "application/x-www-form-urlencoded"  # holds bytes that are no text as they are
QUERY = ("page", "version", "tab", "status", "adapter", "base", "dataset", "preset", "next", "attempt", "after")
FIELDS = ("name", "role", "team", "message", "target", "email", "login", "password", "password1", "password2")
FIELDS += ("oldpassword", "dataset_version", "base_model", "form_key", "location", "source", "revision", "only")
FIELDS += ("system_prompt", "temperature", "top_p", "seed", "max_tokens", "lora_r", "optim_epochs", "with_everyone")


@pytest.mark.parametrize(
    ("who", "address", "status"),
    [
        ("anonymous", "/accounts/login/", 200),
        ("anonymous", "/healthz", 200),
        ("alice", "/", 200),
        ("alice", "/no/such/page/", 404),
        ("vera", "/jobs/new/", 403),
        ("anonymous", "/boom/", 500),
    ],
)
def test_every_answer_has_the_headers(cast: Cast, settings: Any, who: str, address: str, status: int) -> None:
    settings.ROOT_URLCONF = __name__
    client = cast.client(who)
    client.raise_request_exception = False
    response = client.get(address)
    assert response.status_code == status
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "script-src 'self';" in f"{policy};"
    assert "style-src 'self';" in f"{policy};"
    assert "object-src 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in response


def test_pages_of_a_person_stay_out_of_caches(cast: Cast) -> None:
    for address in ("/", "/settings/", "/teams/red-team/"):
        directives = cast.client("alice").get(address)["Cache-Control"]
        assert "private" in directives
        assert "no-store" in directives


def test_cookies_are_for_this_site_alone(cast: Cast, client: Client) -> None:
    client.post("/accounts/login/", {"login": "alice@example.com", "password": PASSWORD})
    session = client.cookies["lowrank"]
    assert (session["httponly"], session["samesite"]) == (True, "Lax")
    assert client.cookies["csrftoken"]["samesite"] == "Lax"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "a b"])
def test_a_foreign_host_is_refused(client: Client, host: str) -> None:
    assert client.get("/accounts/login/", HTTP_HOST=host).status_code == 400


def test_forwarded_headers_count_for_nothing_without_a_proxy(client: Client, db: None) -> None:
    forged = {"HTTP_X_FORWARDED_HOST": "evil.example", "HTTP_X_FORWARDED_PROTO": "https"}
    page = client.get("/settings/", **forged)
    assert page["Location"].startswith("/accounts/login/")
    assert b"evil.example" not in client.get("/accounts/login/", **forged).content


def test_a_fault_shows_a_plain_page(client: Client, settings: Any, db: None) -> None:
    settings.ROOT_URLCONF = __name__
    client.raise_request_exception = False
    page = client.get("/boom/").content
    assert b"broke" in page
    for inside in (b"hunter2", b"Traceback", b"RuntimeError", b"boom", b"site-packages", b"SECRET_KEY"):
        assert inside not in page


@pytest.mark.parametrize("base_url", ["https://lowrank.example", "https://lowrank.example:8443"])
def test_the_deployment_check_is_clean_under_https(tmp_path: Path, base_url: str) -> None:
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), "BASE_URL": base_url}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=source.ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_under_https_cookies_and_transport_are_strict(tmp_path: Path) -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "SESSION_COOKIE_NAME", "DEBUG")
    program = f"from webapp import settings; print([getattr(settings, name) for name in {names!r}])"
    env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), "BASE_URL": "https://lowrank.example"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=source.ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[True, True, True, '__Host-lowrank', False]"
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_templates_hold_no_inline_code_and_nothing_foreign() -> None:
    rules = {
        r"<style\b": "a style element",
        r"\sstyle=": "a style attribute",
        r"\son[a-z]+=\"": "an event attribute",
        r"<script(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")": "an inline script",
        r"(?:src|href|action)=\"(?:https?:)?//": "a foreign address",
        r"javascript:": "a script address",
        r"\|\s*safe\b": "unescaped text",
        r"{%\s*autoescape off": "unescaped text",
        r"\sx-html": "unescaped text",
    }
    problems = [
        f"{file}:{number}: {what}. The content policy forbids it, or it lets text become HTML."
        for file in source.own("templates/**/*.html")
        for number, line in enumerate(source.text(file).splitlines(), 1)
        for rule, what in rules.items()
        if re.search(rule, line)
    ]
    assert not problems, "\n".join(problems)


MAKES_HTML = {
    "static/js/markdown.js": "of a model's text, through the sanitiser",
    "static/js/chat.js": "of fragments that our own templates rendered and escaped",
    "static/js/rows.js": "of fragments that our own templates rendered and escaped",
}


def test_scripts_make_html_where_it_is_known_to_be_safe() -> None:
    """Everything else sets textContent."""
    sinks = re.compile(r"innerHTML\s*=|outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc")
    using = {file for file in source.own("static/js/**/*.js") if sinks.search(source.text(file))}
    assert using <= set(MAKES_HTML), f"Set textContent in {sorted(using - set(MAKES_HTML))}"
    assert "DOMPurify" in source.text("static/js/markdown.js")


@pytest.mark.django_db
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.get != NOT_SO and name not in IN_THREADS])
def test_odd_queries_are_no_fault(name: str) -> None:
    with fresh_world() as world:
        client = world.cast.client("anonymous" if name.startswith("account_") else "alice")
        address = reverse(name, args=TABLE[name].args(world))
        for odd in ODD:
            response = client.get(f"{address}?{urlencode(dict.fromkeys(QUERY, odd))}")
            assert response.status_code < 500 or name == "readyz", odd
            if not response.streaming:
                assert b"<script>alert" not in response.content


@pytest.mark.django_db
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.post != NOT_SO])
def test_odd_forms_are_no_fault(name: str) -> None:
    for odd in ODD:
        with fresh_world() as world:
            cache.clear()
            client = world.cast.client("anonymous" if name.startswith("account_") else "alice")
            form = urlencode(dict.fromkeys(FIELDS, odd))
            response = client.post(reverse(name, args=TABLE[name].args(world)), form, content_type=FORM)
            assert response.status_code < 500, odd
            assert b"<script>alert" not in response.content


@pytest.mark.parametrize("address", ["/teams/%00/", "/setup/%00/", "/invitations/%FF/", "/datasets/%F0/", "/jobs/0/"])
def test_odd_addresses_are_not_found(cast: Cast, address: str) -> None:
    assert cast.client("alice").get(address).status_code in (404, 410)
