"""The asynchronous official client through the story: files, an upload, jobs, events, batches, chat, errors, pages."""

import asyncio
import json
from typing import Any

import openai
import pytest
from asgiref.sync import sync_to_async
from openai import AsyncOpenAI

from tests.api.answering import Answering
from tests.api.test_batches import CAT, line
from tests.api.test_files import GOOD
from tests.cast import Cast
from webapp.accounts import keys
from webapp.adapters.models import Adapter, BaseModel
from webapp.api.names import FILE, adapter_name, uuid_of
from webapp.datasets.tasks import inspect

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key(people: Cast) -> str:
    return keys.create(user=people.bob, name="script")


def client_of(answering: Answering, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{answering.address}/v1", api_key=key, max_retries=0, timeout=120)


async def test_files_jobs_and_events(answering: Answering, base: BaseModel, key: str) -> None:
    async with client_of(answering, key) as client:
        file = await client.files.create(file=("rows.jsonl", GOOD), purpose="fine-tune")
        upload = await client.uploads.create(
            filename="more.jsonl", purpose="fine-tune", bytes=len(GOOD), mime_type="application/jsonl"
        )
        part = await client.uploads.parts.create(upload.id, data=GOOD)
        second = (await client.uploads.complete(upload.id, part_ids=[part.id])).file
        assert second is not None
        for one in (file.id, second.id):
            await sync_to_async(inspect, thread_sensitive=True)(str(uuid_of(one, FILE)))
            assert (await client.files.wait_for_processing(one, poll_interval=0.1)).status == "processed"
        assert {one.id async for one in client.files.list(limit=1)} == {file.id, second.id}

        jobs = client.fine_tuning.jobs
        made = [await jobs.create(model="tiny", training_file=file.id, metadata={"n": str(n)}) for n in range(3)]
        assert [one.id async for one in jobs.list(limit=1)] == [one.id for one in reversed(made)]
        assert [one.id async for one in jobs.list(metadata={"n": "1"})] == [made[1].id]
        first = made[0].id
        assert (await jobs.pause(first)).to_dict()["shown_status"] == "paused"
        assert (await jobs.resume(first)).status == "queued"
        assert (await jobs.cancel(first)).status == "cancelled"
        told = [one.message async for one in jobs.list_events(first, limit=2)]
        assert told[-1] == "The job was created." and "The job was cancelled." in told
        assert [one async for one in jobs.checkpoints.list(first)] == []
        with pytest.raises(openai.ConflictError):
            await client.files.delete(file.id)
        assert (await client.files.delete(second.id)).deleted


async def test_models_chat_and_batches(answering: Answering, adapter: Adapter, key: str) -> None:
    name = await sync_to_async(adapter_name)(adapter)
    async with client_of(answering, key) as client:
        assert {one.id async for one in client.models.list()} == {"tiny", name}
        asked: Any = {"model": name, "messages": CAT, "max_tokens": 8, "seed": 3}
        whole = await client.chat.completions.create(**asked)
        stream = await client.chat.completions.create(**asked, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == whole.choices[0].message.content
        done = await client.completions.create(model=name, prompt="cat", max_tokens=3, n=2)
        assert [one.index for one in done.choices] == [0, 1]
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nobody", messages=CAT)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert str(caught.value.request_id).startswith("req_")

        file = await client.files.create(file=("asked.jsonl", json.dumps(line("a")).encode()), purpose="batch")
        begun = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        for _ in range(1200):
            found = await client.batches.retrieve(begun.id)
            if found.status == "completed":
                break
            await asyncio.sleep(0.1)
        assert found.status == "completed"
        assert b'"custom_id": "a"' in (await client.files.content(found.output_file_id or "")).content
