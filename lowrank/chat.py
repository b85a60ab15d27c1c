"""`lowrank chat`: one question, or a conversation; answers appear as they are written."""

import argparse
import sys
from typing import Any

from lowrank.client import Client
from lowrank.failures import INTERRUPTED, OK, ClientError, WrongUse
from lowrank.login import read_login
from lowrank.printing import say, write, write_json, write_piece

Message = dict[str, str]
LEAVE = ("/exit", "/quit")
ANEW = "/new"


def chat(given: argparse.Namespace) -> int:
    client = Client(read_login(given.team))
    begin: list[Message] = [{"role": "system", "content": given.system}] if given.system else []
    if given.text or not sys.stdin.isatty():
        text = given.text or sys.stdin.read().strip()
        if not text:
            raise WrongUse("There is no question. Write it behind the options, or pipe it in.")
        return _ask_once(client, [*begin, {"role": "user", "content": text}], given)
    return _converse(client, begin, given)


def _body(messages: list[Message], given: argparse.Namespace) -> dict[str, Any]:
    options = {"temperature": given.temperature, "max_tokens": given.max_tokens, "seed": given.seed}
    chosen = {name: value for name, value in options.items() if value is not None}
    return {"model": given.model, "messages": messages, **chosen}


def _ask_once(client: Client, messages: list[Message], given: argparse.Namespace) -> int:
    body = _body(messages, given)
    if given.json:
        write_json(client.post("/chat/completions", body))
        return OK
    try:
        _answer(client, body)
    except KeyboardInterrupt:
        write()
        return INTERRUPTED
    return OK


def _answer(client: Client, body: dict[str, Any]) -> str:
    """The whole answer, after it was written piece by piece."""
    text = ""
    for chunk in client.stream("/chat/completions", body | {"stream": True}):
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content") or ""
            text += piece
            write_piece(piece)
    write()
    return text


def _converse(client: Client, begin: list[Message], given: argparse.Namespace) -> int:
    say(f"{given.model} answers. Ctrl-C stops an answer, {ANEW} begins anew, Ctrl-D leaves.")
    messages = list(begin)
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            write()
            return OK
        if text in LEAVE:
            return OK
        if text == ANEW:
            messages = list(begin)
        elif text:
            messages = _turn(client, [*messages, {"role": "user", "content": text}], given)


def _turn(client: Client, messages: list[Message], given: argparse.Namespace) -> list[Message]:
    """The messages after the answer; without the question when there came none."""
    try:
        return [*messages, {"role": "assistant", "content": _answer(client, _body(messages, given))}]
    except KeyboardInterrupt:
        write()
        say("Stopped; the question does not count.")
    except ClientError as error:
        say(str(error))
    return messages[:-1]
