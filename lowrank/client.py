"""Speaks to the server's /v1: requests with their retries, pages of lists, files, and streams of events."""

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import quote, urlencode
from uuid import uuid4

from lowrank.failures import Away, ClientError, WrongUse

RETRIES, FIRST_PAUSE, LONGEST_PAUSE = 4, 0.5, 30.0
TRANSIENT = (408, 429, 500, 502, 503, 504)
TIMEOUT = 600.0
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, socket.gaierror)


class Account(Protocol):
    """Whom the client speaks for, and to whom."""

    @property
    def address(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def team(self) -> str: ...


class Unredirected(urllib.request.HTTPRedirectHandler):
    """A key is for one server; it is not carried on to another."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Client:
    """One server with one key. Every failure is a ClientError that says what to do."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._opener = urllib.request.build_opener(Unredirected)

    def get(self, path: str, **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self._json("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, body: dict[str, Any] | None = None, *, once: bool = True) -> Any:
        """With `once`, a request that is sent again after a lost answer is not carried out again."""
        headers = {"Content-Type": "application/json"}
        if once:
            headers["Idempotency-Key"] = uuid4().hex
        return self._json("POST", path, json.dumps(body or {}).encode(), headers)

    def delete(self, path: str) -> Any:
        return self._json("DELETE", path)

    def send_file(self, path: str, fields: dict[str, str], name: str, data: tuple[str, bytes]) -> Any:
        """A multipart form; `data` is the file's own name and its bytes."""
        filename = data[0].replace("\\", "_").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        body, kind = _form(fields, f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + data[1])
        return self._json("POST", path, body, {"Content-Type": kind})

    def send_form(self, path: str, fields: dict[str, str]) -> Any:
        """A multipart form without a file. Sent again after a lost answer it is not carried out again."""
        body, kind = _form(fields)
        return self._json("POST", path, body, {"Content-Type": kind, "Idempotency-Key": uuid4().hex})

    def pages(self, path: str, *, most: int | None = None, **query: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page, at most `most`."""
        after, given = None, 0
        while True:
            page = self.get(path, after=after, **query)
            for item in page["data"]:
                yield item
                given += 1
                if given == most:
                    return
            if not page.get("has_more") or not page["data"]:
                return
            after = page["data"][-1]["id"]

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer."""
        with self.open("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"}) as answer:
            for raw in answer:
                line = raw.decode(errors="replace").strip()
                if line == "data: [DONE]":
                    return
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise ClientError(event["error"]["message"])
                    yield event
        raise Away("The answer broke off before its end. Ask again.")

    @contextmanager
    def open(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[Any]:
        """The answer, to be read bit by bit; a connection that breaks meanwhile is a ClientError too."""
        try:
            with self._answer(method, path, body, headers or {}) as answer:
                yield answer
        except BROKEN as error:
            raise self._away(error) from error

    def _json(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
        for left in range(RETRIES, -1, -1):
            try:
                with self._answer(method, path, body, headers or {}) as answer:
                    return _object(answer.read())
            except ClientError as error:
                if not left or error.status not in TRANSIENT:
                    raise
                pause = error.pause
            except BROKEN as error:
                if not left or not _worth_another_try(error):
                    raise self._away(error) from error
                pause = None
            time.sleep(pause if pause is not None else FIRST_PAUSE * 2 ** (RETRIES - left))
        raise AssertionError("every try returns or raises")

    def _answer(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(f"{self.account.address}/v1{path}", data=body, method=method)  # noqa: S310 - http or https: see plain_address
        own = {"Authorization": f"Bearer {self.account.key}", "User-Agent": "lowrank"}
        if self.account.team:
            own["OpenAI-Project"] = self.account.team
        for name, value in (own | headers).items():
            request.add_header(name, value)
        try:
            return self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error) from error
        except ValueError as error:  # a key or a team with a line break in it
            raise WrongUse(f"The key or the team cannot be sent: {error}.") from error

    def _away(self, error: Exception) -> Away:
        reason = getattr(error, "reason", error)
        return Away(f"{self.account.address} does not answer: {reason}. Is the server running, and the address right?")


def _worth_another_try(error: Exception) -> bool:
    """A server that is not there at all will not be there in a second; one that broke off may be."""
    return not isinstance(getattr(error, "reason", error), ConnectionRefusedError | socket.gaierror)


def _object(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise ClientError("The answer is not JSON. Is the address that of a Lowrank server?") from error


def _refused(error: urllib.error.HTTPError) -> ClientError:
    """What the server said, and for how long to wait before another try."""
    try:
        text = str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError, *BROKEN):
        text = f"The server answered {error.code} {error.reason}. Is the address that of a Lowrank server?"
    if error.code == 401:
        text = f"{text} `lowrank login` stores another."
    return ClientError(text, status=error.code, pause=_pause(error.headers.get("retry-after")))


def _pause(text: str | None) -> float | None:
    try:
        return min(LONGEST_PAUSE, float(text)) if text else None
    except ValueError:
        return None


def _form(fields: dict[str, str], *parts: bytes) -> tuple[bytes, str]:
    """The body of a multipart form, and its content type. `parts` bring their own headers."""
    border = uuid4().hex
    told = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
    body = b"".join(f"--{border}\r\n".encode() + part + b"\r\n" for part in (*(one.encode() for one in told), *parts))
    return body + f"--{border}--\r\n".encode(), f"multipart/form-data; boundary={border}"


def segment(text: str) -> str:
    """An id as a part of an address."""
    return quote(text, safe=":")
