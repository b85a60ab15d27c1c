"""Answering with the real engine: every column equals that adapter alone, and failures stay in their column."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from tests.cast import Cast
from tests.make import make_adapter, make_base
from tests.processes import wait_for
from tests.tiny import make_tiny_base
from webapp.adapters.models import Adapter, BaseModel
from webapp.chat import answering, engine_door, lifecycle, prompts, pulse, services
from webapp.chat.models import Completion, CompletionStatus, Turn
from webapp.chat.sampling import Sampling
from webapp.chat.targets import Targets
from webapp.common import streams

pytestmark = [
    pytest.mark.django_db(transaction=True),  # the pulse looks at the database from a thread of its own
    pytest.mark.usefixtures("live_streams", "float32"),
]
RealAdapter = Callable[..., Adapter]


@pytest.fixture
def float32(settings: Settings) -> None:
    settings.CHAT_DTYPE = "float32"


@pytest.fixture
def three(base: BaseModel, make_real_adapter: RealAdapter) -> Targets:
    return Targets(base, include_base=True, adapters=[make_real_adapter(base, seed=seed) for seed in (1, 2)])


def asked(cast: Cast, targets: Targets, *, tokens: int = 12, message: str = "What is the capital of France?") -> Turn:
    sampling = Sampling(max_tokens=tokens)
    conversation = services.start_conversation(user=cast.alice, team=cast.team, targets=targets, sampling=sampling)
    return services.ask(user=cast.alice, conversation=conversation, message=message)


def alone(base: BaseModel, adapter: Adapter | None, message: str, tokens: int = 12) -> str:
    """What an engine of its own says with this adapter and no other."""
    module = engine_door.trainer_engine()
    engine = module.Engine(base.folder, dtype="float32")
    if adapter:
        engine.load_adapter("own", adapter.folder)
    ids = prompts.prompt_ids(base, [{"role": "user", "content": message}])
    request = module.Request(prompt_ids=ids, adapter="own" if adapter else None, max_tokens=tokens)
    return "".join(chunk.text for chunk in engine.generate([request], lambda: False))


def test_every_column_equals_its_model_alone(cast: Cast, base: BaseModel, three: Targets) -> None:
    turn = asked(cast, three)
    answering.answer(turn.pk, worker="chat@here")
    answers = list(turn.completions.all())
    assert [one.status for one in answers] == ["finished"] * 3
    texts = [alone(base, adapter, turn.message) for adapter in (None, *three.adapters)]
    assert [one.text for one in answers] == texts
    assert len(set(texts)) == 3
    assert {one.numbers["tokens"] for one in answers} == {12}
    assert all(one.numbers["first_token_ms"] > 0 for one in answers)
    assert answers[0].was_cut
    assert "12\u00a0tokens" in answers[0].numbers_text


def test_parallel_turns_do_not_mix_their_adapters(cast: Cast, base: BaseModel, make_real_adapter: RealAdapter) -> None:
    adapters = [make_real_adapter(base, seed=seed) for seed in range(3, 7)]
    turns = [asked(cast, Targets(base, include_base=False, adapters=[adapter])) for adapter in adapters]
    threads = [threading.Thread(target=answering.answer, args=(turn.pk,), kwargs={"worker": "w"}) for turn in turns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for turn, adapter in zip(turns, adapters, strict=True):
        assert turn.completions.get().text == alone(base, adapter, turn.message)


def test_an_answered_turn_is_not_answered_twice(cast: Cast, base: BaseModel) -> None:
    turn = asked(cast, Targets(base, include_base=True, adapters=[]))
    answering.answer(turn.pk, worker="w")
    before = turn.completions.get()
    answering.answer(turn.pk, worker="w")
    assert turn.completions.values().get() == Completion.objects.filter(pk=before.pk).values().get()
    entries = streams._client().xrange(turn.stream)
    assert sum(1 for _, entry in entries if entry["event"] == "end") == 1


def test_a_damaged_adapter_fails_alone(cast: Cast, base: BaseModel, three: Targets) -> None:
    weights: Path = three.adapters[0].folder / engine_door.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    three.adapters[1].folder.joinpath(engine_door.WEIGHTS).unlink()
    turn = asked(cast, three)
    answering.answer(turn.pk, worker="w")
    base_answer, changed, missing = turn.completions.all()
    assert base_answer.status == CompletionStatus.FINISHED
    assert changed.status == missing.status == CompletionStatus.FAILED
    assert changed.error == missing.error == "Files of this adapter are missing or changed. Restore or delete it."


def test_weights_that_change_after_loading_are_noticed(cast: Cast, base: BaseModel, three: Targets) -> None:
    turn = asked(cast, three)
    answering.answer(turn.pk, worker="w")
    weights = three.adapters[0].folder / engine_door.WEIGHTS
    weights.write_bytes(weights.read_bytes() + b"x")
    services.ask_again(user=cast.alice, turn=turn, only_failed=False)
    answering.answer(turn.pk, worker="w")
    assert [one.status for one in turn.completions.all()] == ["finished", "failed", "finished"]


def test_an_adapter_that_was_deleted_before_its_turn_fails_alone(cast: Cast, three: Targets) -> None:
    turn = asked(cast, three)
    three.adapters[0].delete()
    answering.answer(turn.pk, worker="w")
    assert [one.status for one in turn.completions.all()] == ["finished", "failed", "finished"]
    assert turn.completions.get(place=1).error == answering.ADAPTER_GONE


def test_a_base_model_that_does_not_load_fails_all_in_words(cast: Cast, base: BaseModel, tmp_path: Path) -> None:
    turn = asked(cast, Targets(base, include_base=True, adapters=[make_adapter(cast.team, base)]))
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (broken / name).write_bytes((base.folder / name).read_bytes())
    BaseModel.objects.update(path=str(broken))
    answering.answer(turn.pk, worker="w")
    for answer in turn.completions.all():
        assert answer.status == CompletionStatus.FAILED
        assert answer.error
        assert str(tmp_path) not in answer.error


def test_stop_ends_an_answer_within_half_a_second(cast: Cast, endless: BaseModel) -> None:
    turn = asked(cast, Targets(endless, include_base=True, adapters=[]), tokens=30_000, message="cat")
    with_stop = threading.Thread(target=answering.answer, args=(turn.pk,), kwargs={"worker": "w"})
    with_stop.start()
    wait_for(lambda: streams._client().xlen(turn.stream) > 5, seconds=20, every=0.01)
    services.stop_turn(turn=turn)
    with_stop.join(30)
    assert not with_stop.is_alive()
    assert pulse.LOOK_SECONDS < 0.5
    answer = turn.completions.get()
    assert answer.status == "stopped"
    assert 0 < answer.numbers["tokens"] < 30_000


def test_stop_before_a_worker_came_needs_none(cast: Cast, three: Targets) -> None:
    turn = asked(cast, three)
    services.stop_turn(turn=turn)
    assert set(turn.completions.values_list("status", flat=True)) == {"stopped"}
    answering.answer(turn.pk, worker="w")
    assert not turn.completions.exclude(text="").exists()


def test_deleting_the_conversation_stops_its_answers(cast: Cast, endless: BaseModel) -> None:
    turn = asked(cast, Targets(endless, include_base=True, adapters=[]), tokens=30_000)
    thread = threading.Thread(target=answering.answer, args=(turn.pk,), kwargs={"worker": "w"})
    thread.start()
    wait_for(lambda: streams._client().xlen(turn.stream) > 2, seconds=20, every=0.01)
    services.delete_conversation(conversation=turn.conversation)
    thread.join(30)
    assert not thread.is_alive()
    assert lifecycle.stop_requested(turn.pk)


def test_the_stream_holds_the_whole_answer_in_order(cast: Cast, three: Targets) -> None:
    turn = asked(cast, three)
    answering.answer(turn.pk, worker="w")
    texts: dict[str, str] = {}
    for _, entry in streams._client().xrange(turn.stream):
        data = json.loads(entry["data"])
        if entry["event"] == "delta":
            assert data["at"] == len(texts.get(data["completion"], "").encode("utf-16-le")) // 2
            texts[data["completion"]] = texts.get(data["completion"], "") + data["text"]
        elif entry["event"] == "end":
            assert data["text"].startswith(texts.get(data["completion"], ""))
            texts[data["completion"]] = data["text"]
    assert texts == {str(one.pk): one.text for one in turn.completions.all()}


def test_turns_on_two_base_models_take_their_turns(cast: Cast, base: BaseModel, tmp_path: Path) -> None:
    other = make_base(name="other", path=make_tiny_base(tmp_path / "other", seed=9), facts={})
    models = [base, other] * 3
    turns = [asked(cast, Targets(model, include_base=True, adapters=[])) for model in models]
    threads = [threading.Thread(target=answering.answer, args=(turn.pk,), kwargs={"worker": "w"}) for turn in turns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    texts = {model.pk: alone(model, None, "What is the capital of France?") for model in (base, other)}
    assert [turn.completions.get().text for turn in turns] == [texts[model.pk] for model in models]
    assert len(engine_door.door._residents) == 1


def test_stop_does_not_wait_for_the_model(cast: Cast, base: BaseModel, tmp_path: Path) -> None:
    other = make_base(name="other", path=make_tiny_base(tmp_path / "other", seed=9), facts={})
    turn = asked(cast, Targets(other, include_base=True, adapters=[]))
    thread = threading.Thread(target=answering.answer, args=(turn.pk,), kwargs={"worker": "w"})
    with engine_door.door.opened(base):  # another chat holds the only engine there may be
        thread.start()
        wait_for(lambda: streams._client().xlen(turn.stream) > 0, seconds=5)
        services.stop_turn(turn=turn)
        wait_for(lambda: turn.completions.get().status == "stopped")
        assert thread.is_alive()
    thread.join(10)
    answer = turn.completions.get()
    assert (answer.status, answer.text) == ("stopped", "")


def test_a_second_base_model_takes_the_place_of_the_first(cast: Cast, base: BaseModel, tmp_path: Path) -> None:
    other = make_base(name="other", path=make_tiny_base(tmp_path / "other", seed=9), facts={})
    for model in (base, other, base):
        turn = asked(cast, Targets(model, include_base=True, adapters=[]))
        answering.answer(turn.pk, worker="w")
        assert turn.completions.get().text == alone(model, None, turn.message)
        assert list(engine_door.door._residents) == [model.folder]
