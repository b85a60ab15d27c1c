"""The event stream of a turn: from Redis, from the database when Redis has lost it, and never for a stranger."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_conversation, make_job, make_turn
from webapp.accounts.models import User
from webapp.adapters.models import BaseModel
from webapp.chat import live, wire
from webapp.chat.live import turn_events
from webapp.chat.models import Completion, CompletionStatus, Turn
from webapp.common import streams
from webapp.jobs import following

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("live_streams")]
Parsed = tuple[str, str, dict[str, Any]]


@pytest.fixture
def turn(cast: Cast, base: BaseModel) -> Turn:
    """One answer that is being written."""
    conversation = make_conversation(cast.team, cast.alice, base)
    return make_turn(conversation, status=CompletionStatus.STREAMING, text="")


def relay(turn: Turn, *events: wire.Event) -> None:
    for event in events:
        assert streams.append(turn.stream, wire.pack(event))


def parse(block: str) -> Parsed | None:
    fields = dict(line.split(": ", 1) for line in block.strip().split("\n"))
    return (fields.get("id", ""), fields["event"], json.loads(fields["data"])) if "event" in fields else None


async def read(events: AsyncIterator[str], *, until: str = "done", seconds: float = 8) -> list[Parsed]:
    """All events up to and with one of that name."""
    found: list[Parsed] = []
    async with asyncio.timeout(seconds):
        async for block in events:
            assert block.endswith("\n\n")
            if one := parse(block):
                found.append(one)
                if one[1] == until:
                    break
    return found


def text_of(events: list[Parsed]) -> str:
    """What a page makes of the events: text that it has already changes nothing."""
    text = ""
    for _, name, data in events:
        if name == "delta" and data["at"] <= len(text) < data["at"] + len(data["text"]):
            text = text[: data["at"]] + data["text"]
        elif name == "end":
            text = data["text"]
    return text


def end(turn: Turn, text: str) -> Completion:
    answer = turn.completions.get()
    answer.status, answer.text = CompletionStatus.FINISHED, text
    answer.save()
    return answer


async def test_a_page_that_comes_late_gets_everything(cast: Cast, turn: Turn) -> None:
    answer = await turn.completions.aget()
    relay(turn, wire.loading([answer.pk], 3), wire.delta(answer.pk, 0, "Blue"), wire.delta(answer.pk, 4, " and red"))
    relay(turn, wire.ended(await sync_to_async(end)(turn, "Blue and red.")))
    await Completion.objects.aupdate(status=CompletionStatus.STREAMING, text="")  # as a page that came before the end
    events = await read(turn_events(cast.alice, turn))
    assert [name for _, name, _ in events] == ["loading", "delta", "delta", "end", "done"]
    assert text_of(events) == "Blue and red."
    assert all(event_id for event_id, name, _ in events if name != "done")


async def test_a_page_that_comes_back_gets_the_rest(cast: Cast, turn: Turn) -> None:
    answer = await turn.completions.aget()
    relay(turn, wire.delta(answer.pk, 0, "Blue"), wire.delta(answer.pk, 4, " and red"))
    first = await read(turn_events(cast.alice, turn), until="delta")
    relay(turn, wire.ended(await sync_to_async(end)(turn, "Blue and red.")))
    await Completion.objects.aupdate(status=CompletionStatus.STREAMING)
    rest = await read(turn_events(cast.alice, turn, after=first[-1][0]))
    assert [data["text"] for _, name, data in rest if name == "delta"][-1] == " and red"
    assert text_of(first + rest) == "Blue and red."


async def test_an_ended_turn_comes_from_the_database(cast: Cast, turn: Turn) -> None:
    await sync_to_async(end)(turn, "Kept.")
    events = await read(turn_events(cast.alice, turn))
    assert [name for _, name, _ in events] == ["end", "done"]
    assert events[0][2]["text"] == "Kept."
    assert events[0][2]["status"] == "finished"


async def test_without_a_stream_the_text_comes_from_the_database(cast: Cast, turn: Turn) -> None:
    await Completion.objects.aupdate(text="Half an answ")
    events = turn_events(cast.alice, turn)
    first = await read(events, until="delta")
    assert text_of(first) == "Half an answ"
    await Completion.objects.aupdate(text="Half an answer and more")
    second = await read(events, until="delta")
    await sync_to_async(end)(turn, "Half an answer and more.")
    assert text_of(first + second + await read(events)) == "Half an answer and more."


async def test_a_worker_that_died_ends_the_stream_in_words(cast: Cast, turn: Turn) -> None:
    await Completion.objects.aupdate(text="Half")
    events = turn_events(cast.alice, turn)
    first = await read(events, until="delta")
    await Completion.objects.aupdate(status=CompletionStatus.FAILED, error="The chat worker was restarted.")
    last = await read(events)
    assert last[-2][2] | {"completion": ""} == {
        "completion": "",
        "status": "failed",
        "text": "Half",
        "error": "The chat worker was restarted.",
        "numbers": "",
        "cut": False,
    }
    assert text_of(first + last) == "Half"


async def test_who_loses_access_loses_the_stream(cast: Cast, turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await turn.completions.aget()
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.0)
    relay(turn, wire.delta(answer.pk, 0, "Blue"))
    events = turn_events(cast.alice, turn)
    await read(events, until="delta")
    await cast.team.memberships.filter(user=cast.alice).adelete()
    relay(turn, wire.delta(answer.pk, 4, " secret"))
    assert [name for _, name, _ in await read(events, until="gone")] == ["gone"]
    assert [name for _, name, _ in await read(turn_events(cast.charlie, turn), until="gone")] == ["gone"]


@pytest.mark.parametrize("loss", ["leaves the team", "is deactivated"])
async def test_a_quiet_stream_ends_soon_after_the_access(cast: Cast, turn: Turn, loss: str) -> None:
    """Nothing is written meanwhile, and no time is shortened."""
    events = turn_events(await User.objects.aget(pk=cast.alice.pk), turn)
    assert await anext(events)  # it runs
    if loss == "leaves the team":
        await cast.team.memberships.filter(user=cast.alice).adelete()
    else:
        await User.objects.filter(pk=cast.alice.pk).aupdate(is_active=False)
    assert [name for _, name, _ in await read(events, until="gone", seconds=5)] == ["gone"]


def test_access_is_looked_at_within_a_minute() -> None:
    """However much comes, and with a Redis that is there and silent."""
    for period in (live.LOOK_SECONDS, following.LOOK_ANYWAY_SECONDS):
        assert period + streams.STUCK_SECONDS + 2 < 60


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("", 200)])
async def test_pages_of_other_sites_get_no_stream(cast: Cast, turn: Turn, site: str, status: int) -> None:
    client = AsyncClient()
    await client.aforce_login(cast.alice)
    headers = {"Sec-Fetch-Site": site} if site else {}
    for address in (
        reverse("turn_stream", args=[turn.pk]),
        reverse("job_events", args=[(await sync_to_async(make_job)(cast.team)).pk]),
    ):
        assert (await client.get(address, headers=headers)).status_code == status


async def test_text_cannot_break_out_of_its_event(cast: Cast, turn: Turn) -> None:
    answer = await turn.completions.aget()
    text = 'a\n\nevent: done\ndata: {}\r\n\r\u2028\u2029</script> 🎉 "'
    relay(turn, wire.delta(answer.pk, 0, text))
    events = turn_events(cast.alice, turn)
    assert text_of(await read(events, until="delta")) == text
    await sync_to_async(end)(turn, text)
    assert text_of(await read(events)) == text


async def test_a_made_up_event_id_starts_at_the_beginning(cast: Cast, turn: Turn) -> None:
    answer = await turn.completions.aget()
    relay(turn, wire.delta(answer.pk, 0, "Blue"))
    for made_up in ("$", "x", "-", "1-1; drop", "9" * 40 + "-1"):
        events = await read(turn_events(cast.alice, turn, after=made_up), until="delta")
        assert text_of(events) == "Blue"


async def test_an_answer_that_was_asked_anew_is_not_mixed_with_the_old(cast: Cast, turn: Turn) -> None:
    old = await turn.completions.aget()
    relay(turn, wire.delta(old.pk, 0, "Old"))
    await old.adelete()
    new = await Completion.objects.acreate(turn=turn, place=0, is_base=True, label="tiny", status="streaming")
    relay(turn, wire.delta(new.pk, 0, "New"))
    events = await read(turn_events(cast.alice, turn), until="delta")
    assert [data["text"] for _, _, data in events] == ["New"]


def test_positions_count_as_browsers_do() -> None:
    assert [wire.units(text) for text in ("", "ab", "é", "🎉", "🎉🎉a")] == [0, 2, 1, 2, 5]
