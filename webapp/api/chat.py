"""/v1/chat/completions: the answer to a conversation, whole or as it is written."""

import time
from uuid import uuid4

from django.http import HttpResponseBase, JsonResponse

from webapp.api.auth import ApiRequest
from webapp.api.chat_answer import Begun, begin, leave, whole
from webapp.api.chat_request import read_chat
from webapp.api.chat_stream import stream_response
from webapp.api.chat_wire import ChatChunks, Head, completion
from webapp.api.entry import InTwo
from webapp.api.fields import json_body
from webapp.api.names import COMPLETION


def ask(request: ApiRequest) -> Begun:
    return begin(read_chat(request.user, request.team, json_body(request)))


async def answer(request: ApiRequest, begun: Begun) -> HttpResponseBase:
    asked, call = begun
    head = Head(f"{COMPLETION}{uuid4().hex}", int(time.time()), asked)
    if asked.stream:
        return stream_response(request, asked, ChatChunks(head), call)
    return JsonResponse(completion(head, await whole(asked, call)))


create = InTwo(ask, answer, leave)
