"""/v1/completions: a text that goes on, whole or as it is written."""

import time
from uuid import uuid4

from django.http import HttpResponseBase, JsonResponse

from webapp.api.auth import ApiRequest
from webapp.api.chat_answer import Begun, begin, leave, whole
from webapp.api.chat_stream import stream_response
from webapp.api.chat_wire import Head
from webapp.api.completions_request import read_completion
from webapp.api.completions_wire import TextChunks, text_completion
from webapp.api.entry import InTwo
from webapp.api.fields import json_body


def ask(request: ApiRequest) -> Begun:
    return begin(read_completion(request.user, request.team, json_body(request)))


async def answer(request: ApiRequest, begun: Begun) -> HttpResponseBase:
    asked, call = begun
    head = Head(f"cmpl-{uuid4().hex}", int(time.time()), asked)
    if asked.stream:
        return stream_response(request, asked, TextChunks(head), call)
    return JsonResponse(text_completion(head, await whole(asked, call)))


create = InTwo(ask, answer, leave)
