"""/v1/chat/completions: the answer to a conversation, whole or as it is written."""

import time
from uuid import uuid4

from django.http import HttpResponseBase, JsonResponse

from webapp.api.auth import ApiRequest
from webapp.api.chat_answer import begin, whole
from webapp.api.chat_request import read_chat
from webapp.api.chat_stream import stream_response
from webapp.api.chat_wire import ChatChunks, Head, completion
from webapp.api.fields import json_body
from webapp.api.names import COMPLETION


async def create(request: ApiRequest) -> HttpResponseBase:
    asked, call = await begin(lambda: read_chat(request.user, request.team, json_body(request)))
    head = Head(f"{COMPLETION}{uuid4().hex}", int(time.time()), asked)
    if asked.stream:
        return stream_response(request, asked, ChatChunks(head), call)
    return JsonResponse(completion(head, await whole(asked, call)))
