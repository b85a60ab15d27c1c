"""Errors in the wire's shape, whatever was wrong, and never a 5xx for what a client sends."""

from typing import Any

import httpx
import openai
import pytest
from django.test import Client
from openai import OpenAI

from tests.api.live import LiveServer
from tests.cast import Cast
from webapp.accounts import keys
from webapp.api import border, wire
from webapp.common.errors import UserError


@pytest.fixture
def http(live: LiveServer, client: OpenAI, people: Cast) -> httpx.Client:
    return httpx.Client(base_url=f"{live.address}/v1", headers={"Authorization": f"Bearer {client.api_key}"})


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error, after a look at what every answer must have."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


@pytest.mark.parametrize("path", ["", "/", "/nothing", "/models2", "/files/x/y/z", "/%00", "/chat%2Fcompletions/x"])
def test_an_unknown_address(http: httpx.Client, path: str) -> None:
    response = http.post(path)
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown_url"


def test_addresses_beside_the_api_are_pages() -> None:
    assert Client().get("/v1x")["Content-Type"].startswith("text/html")


def test_another_method(http: httpx.Client) -> None:
    response = http.put("/models")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert error_of(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"bytes": NaN}',
        b'{"bytes": 1e999}',
        b'{"bytes": ' + b"9" * 5000 + b"}",
        b'{"filename": "\\ud800"}',
        b'{"filename": "\\u0000"}',
        b'{"\\udfff": 1}',
        b'{"filename": "a\nb"}',
    ],
)
def test_a_body_that_is_no_json_object(http: httpx.Client, body: bytes) -> None:
    response = http.post("/uploads", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_json"


def test_real_surrogate_pairs_are_text(http: httpx.Client) -> None:
    body = b'{"filename": "\\ud83d\\ude00\\\\u0000", "mime_type": "x", "purpose": "batch", "bytes": 1}'
    response = http.post("/uploads", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text


def test_a_missing_field_is_named(http: httpx.Client) -> None:
    response = http.post("/uploads", json={"mime_type": "x"})
    error = error_of(response)
    assert (response.status_code, error["param"], error["code"]) == (400, "filename", "missing_required_parameter")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_another_kind_of_body(http: httpx.Client, kind: str) -> None:
    response = http.post("/uploads", content=b"{}", headers={"Content-Type": kind})
    assert response.status_code == 415
    assert "application/json" in error_of(response)["message"]


def test_a_body_that_is_too_large(http: httpx.Client) -> None:
    response = http.post("/uploads", content=b" " * 4_000_000, headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert error_of(response)["code"] == "body_too_large"


def test_the_client_knows_the_request_by_its_id(client: OpenAI, people: Cast) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert str(caught.value.request_id).startswith("req_")
    assert caught.value.body == {
        "message": "The model `gpt-4` does not exist, or your key may not see it.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_a_failure_of_ours_tells_nothing_but_its_id(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = keys.create(user=cast.bob, name="script")
    monkeypatch.setattr("webapp.api.model_list.ready_bases", lambda: 1 // 0)
    response = Client().get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (500, "server_error")
    assert response["x-request-id"] in error["message"]
    assert "division" not in error["message"]
    assert any(response["x-request-id"] in record.message and record.exc_info for record in caplog.records)


def test_what_a_page_would_say() -> None:
    told = border.told_as(UserError("upload_empty"))
    assert told
    assert (told.status, told.message) == (400, "The file is empty. Choose a file with at least one row.")


def test_when_a_client_may_try_again() -> None:
    conflict = wire.error_response(wire.ApiError(409, "x"))
    assert (conflict["x-should-retry"], conflict.has_header("retry-after")) == ("false", False)
    later = wire.error_response(wire.ApiError(429, "x", retry=True, retry_after=0.25))
    assert (later["x-should-retry"], later["retry-after"], later["retry-after-ms"]) == ("true", "1", "250")
    assert not wire.error_response(wire.ApiError(400, "x")).has_header("x-should-retry")


def test_a_large_file_with_a_wrong_key_is_not_read(http: httpx.Client) -> None:
    response = http.post("/files", files={"file": b"x" * 5_000_000}, headers={"Authorization": "Bearer lr_x"})
    assert response.status_code == 401
    assert error_of(response)["code"] == "invalid_api_key"


def test_a_large_file_with_a_good_key_is(http: httpx.Client) -> None:
    made = http.post("/files/", files={"file": b"x" * 5_000_000}, data={"purpose": "batch"})
    assert (made.status_code, made.json()["bytes"]) == (200, 5_000_000)
