"""/v1/chat/completions: the answer to a conversation, whole or as it is written."""

import time
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.http import HttpResponseBase, JsonResponse

from webapp.api.auth import ApiRequest
from webapp.api.chat_answer import begin, whole
from webapp.api.chat_request import Asked, read_chat
from webapp.api.chat_stream import stream_response
from webapp.api.chat_wire import ChatChunks, Head, completion
from webapp.api.fields import json_body
from webapp.api.names import COMPLETION
from webapp.common.http import release_connections


async def create(request: ApiRequest) -> HttpResponseBase:
    asked = await sync_to_async(_read)(request)
    head = Head(f"{COMPLETION}{uuid4().hex}", int(time.time()), asked)
    if asked.stream:
        return stream_response(request, asked, ChatChunks(head), await begin(asked))
    return JsonResponse(completion(head, await whole(asked)))


def _read(request: ApiRequest) -> Asked:
    try:
        return read_chat(request.user, request.team, json_body(request))
    finally:
        release_connections()  # the answer may take minutes
