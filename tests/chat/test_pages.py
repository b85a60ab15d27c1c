"""The chat's pages and what their buttons post: who may, what is refused, what stays as it was typed."""

import re
from typing import Any
from uuid import uuid4

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_adapter, make_base, make_conversation, make_share, make_turn
from webapp.adapters.models import BaseModel
from webapp.chat.models import Completion, Conversation, Turn
from webapp.chat.sampling import Sampling

FIELDS = {"system_prompt": "", "temperature": "0", "top_p": "1", "max_tokens": "64", "seed": "0", "message": "Hello"}
SCRIPT = {"HX-Request": "true"}


@pytest.fixture
def conversation(cast: Cast, base: BaseModel) -> Conversation:
    return make_conversation(cast.team, cast.alice, base, sampling=Sampling(max_tokens=64).to_dict())


def form_key(page: Any) -> str:
    found = re.search(r'name="form_key" value="([^"]+)"', page.content.decode())
    assert found
    return found[1]


def chosen(page: Any) -> set[str]:
    return set(re.findall(r'name="target" value="([^"]+)" checked', page.content.decode()))


def test_a_first_question_makes_the_conversation(cast: Cast, base: BaseModel) -> None:
    adapter = make_adapter(cast.team, base, hue=3)
    targets = [f"base:{base.pk}", f"adapter:{adapter.pk}"]
    answer = cast.client("vera").post(reverse("chat"), FIELDS | {"target": targets})
    conversation = Conversation.objects.get()
    assert answer.headers["Location"] == reverse("conversation", args=[conversation.pk])
    assert (conversation.team, conversation.created_by) == (cast.team, cast.vera)
    assert [one.hue for one in Completion.objects.all()] == ["hue-base", "hue-3"]
    page = cast.client("vera").get(answer.headers["Location"]).content.decode()
    assert page.count("data-answer=") == 2
    assert reverse("turn_stream", args=[Turn.objects.get().pk]) in page


def test_a_form_sent_twice_begins_one_conversation(cast: Cast, base: BaseModel) -> None:
    alice = cast.client("alice")
    form = FIELDS | {"target": f"base:{base.pk}", "form_key": form_key(alice.get(reverse("chat")))}
    first, second = (alice.post(reverse("chat"), form).headers["Location"] for _ in range(2))
    assert first == second
    assert Conversation.objects.count() == Turn.objects.count() == Completion.objects.count() == 1


def test_another_question_from_the_same_page_begins_another(cast: Cast, base: BaseModel) -> None:
    alice = cast.client("alice")
    form = FIELDS | {"target": f"base:{base.pk}", "form_key": form_key(alice.get(reverse("chat")))}
    first = alice.post(reverse("chat"), form).headers["Location"]
    second = alice.post(reverse("chat"), form | {"message": "Another"}).headers["Location"]
    assert first != second
    assert sorted(Turn.objects.values_list("message", flat=True)) == ["Another", "Hello"]


def test_somebody_elses_key_leads_to_no_foreign_conversation(cast: Cast, base: BaseModel) -> None:
    form = FIELDS | {"target": f"base:{base.pk}", "form_key": str(uuid4())}
    places = {cast.client(who).post(reverse("chat"), form).headers["Location"] for who in ("alice", "bob")}
    assert len(places) == 2
    assert set(Conversation.objects.values_list("created_by", flat=True)) == {cast.alice.pk, cast.bob.pk}


def test_a_page_with_an_error_keeps_its_key(cast: Cast, base: BaseModel) -> None:
    form = FIELDS | {"target": f"base:{base.pk}", "form_key": str(uuid4()), "message": " "}
    refused = cast.client("alice").post(reverse("chat"), form)
    assert refused.status_code == 400
    assert form_key(refused) == form["form_key"]


def test_a_deep_link_chooses_the_models(cast: Cast, base: BaseModel) -> None:
    one, two = (make_adapter(cast.team, base, name=name) for name in ("one", "two"))
    foreign = make_adapter(cast.charlie.personal_team, base, name="secret")
    alice = cast.client("alice")
    assert chosen(alice.get(reverse("chat"), {"adapter": [one.pk, two.pk]})) == {
        f"adapter:{one.pk}",
        f"adapter:{two.pk}",
    }
    assert chosen(alice.get(reverse("chat"), {"adapter": one.pk, "base": base.pk})) == {
        f"base:{base.pk}",
        f"adapter:{one.pk}",
    }
    page = alice.get(reverse("chat"), {"adapter": [foreign.pk, "x' OR 1=1"]})
    assert chosen(page) == {f"base:{base.pk}", f"adapter:{two.pk}"}  # the newest, and its base
    assert "secret" not in page.content.decode()


def test_shared_adapters_are_offered_with_their_team(cast: Cast, base: BaseModel) -> None:
    foreign = make_adapter(cast.charlie.personal_team, base, name="lent")
    make_share(foreign, cast.team)
    page = cast.client("bob").get(reverse("chat")).content.decode()
    assert "lent" in page
    assert "from charlie" in page


def test_a_foreign_adapter_is_refused_and_nothing_made(cast: Cast, base: BaseModel) -> None:
    foreign = make_adapter(cast.charlie.personal_team, base, name="secret")
    answer = cast.client("alice").post(reverse("chat"), FIELDS | {"target": [f"adapter:{foreign.pk}"]})
    assert answer.status_code == 400
    assert "secret" not in answer.content.decode()
    assert "Hello" in answer.content.decode()
    assert not Conversation.objects.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "nan"),
        ("temperature", "inf"),
        ("temperature", "-1"),
        ("temperature", "3"),
        ("top_p", "0"),
        ("top_p", "2"),
        ("top_p", "NaN"),
        ("max_tokens", "1000000000"),
        ("max_tokens", "9" * 5000),
        ("max_tokens", "0"),
        ("seed", "-1"),
        ("seed", "1e400"),
        ("message", " \n"),
        ("message", "a" * 200_001),
        ("message", "nul \x00"),
        ("target", "base:nothing"),
        ("target", ""),
    ],
)
def test_values_out_of_range_are_refused(cast: Cast, base: BaseModel, field: str, value: str) -> None:
    answer = cast.client("alice").post(reverse("chat"), FIELDS | {"target": f"base:{base.pk}"} | {field: value})
    assert answer.status_code == 400
    assert not Conversation.objects.exists()


def test_models_of_two_bases_are_refused_in_words(cast: Cast, base: BaseModel) -> None:
    other = make_base(name="other")
    answer = cast.client("alice").post(reverse("chat"), FIELDS | {"target": [f"base:{base.pk}", f"base:{other.pk}"]})
    assert answer.status_code == 400
    assert "All models of a chat stand on one base model." in answer.content.decode()


def test_a_lone_surrogate_does_not_break_anything(cast: Cast, base: BaseModel) -> None:
    body = "&".join(f"{key}={value}" for key, value in (FIELDS | {"target": f"base:{base.pk}"}).items())
    answer = cast.client("alice").post(
        reverse("chat"), body.replace("Hello", "%ED%A0%80"), content_type="application/x-www-form-urlencoded"
    )
    assert answer.status_code == 302


def test_a_conversation_is_its_authors_own(cast: Cast, conversation: Conversation) -> None:
    turn = make_turn(conversation)
    for who in ("bob", "vera", "charlie"):
        client = cast.client(who)
        assert client.get(reverse("conversation", args=[conversation.pk])).status_code == 404
        assert client.get(reverse("turn_stream", args=[turn.pk])).status_code == 404
        for name, pk in (
            ("turn_new", conversation.pk),
            ("conversation_settings", conversation.pk),
            ("conversation_delete", conversation.pk),
            ("turn_stop", turn.pk),
            ("turn_retry", turn.pk),
        ):
            assert client.post(reverse(name, args=[pk]), FIELDS).status_code == 404
    assert Conversation.objects.count() == Turn.objects.count() == 1


def test_who_left_the_team_has_lost_its_conversations(cast: Cast, conversation: Conversation) -> None:
    cast.team.memberships.filter(user=cast.alice).delete()
    assert cast.client("alice").get(reverse("conversation", args=[conversation.pk])).status_code == 404


def test_a_question_by_script_gets_the_turn_as_a_fragment(cast: Cast, conversation: Conversation) -> None:
    answer = cast.client("alice").post(reverse("turn_new", args=[conversation.pk]), FIELDS, headers=SCRIPT)
    assert answer.status_code == 200
    text = answer.content.decode()
    assert text.lstrip().startswith("<section")
    assert f'data-stream="{reverse("turn_stream", args=[conversation.turns.get().pk])}"' in text


def test_without_a_script_the_page_loads_anew(cast: Cast, conversation: Conversation) -> None:
    alice, here = cast.client("alice"), reverse("conversation", args=[conversation.pk])
    assert alice.post(reverse("turn_new", args=[conversation.pk]), FIELDS).headers["Location"] == here
    turn = conversation.turns.get()
    assert alice.post(reverse("turn_stop", args=[turn.pk])).headers["Location"] == here
    assert alice.post(reverse("turn_retry", args=[turn.pk])).headers["Location"] == here
    refused = alice.post(reverse("turn_new", args=[conversation.pk]), {"message": " "})
    assert refused.status_code == 400
    assert "The message is empty." in refused.content.decode()


def test_an_error_by_script_is_a_fragment_with_the_next_step(cast: Cast, conversation: Conversation) -> None:
    make_turn(conversation, status="streaming")
    answer = cast.client("alice").post(reverse("turn_new", args=[conversation.pk]), FIELDS, headers=SCRIPT)
    assert answer.status_code == 409
    assert "<html" not in answer.content.decode()
    assert "stop them" in answer.content.decode()


def test_stop_and_retry_by_script(cast: Cast, conversation: Conversation) -> None:
    turn = make_turn(conversation, status="queued", text="")
    alice = cast.client("alice")
    assert alice.post(reverse("turn_stop", args=[turn.pk]), headers=SCRIPT).status_code == 204
    assert turn.completions.get().status == "stopped"
    again = alice.post(reverse("turn_retry", args=[turn.pk]), headers=SCRIPT)
    assert 'data-status="queued"' in again.content.decode()


def test_settings_hold_from_the_next_question(cast: Cast, conversation: Conversation) -> None:
    adapter = make_adapter(cast.team, conversation.base_model)
    values = FIELDS | {"target": f"adapter:{adapter.pk}", "system_prompt": "Be brief.", "temperature": "0.7"}
    answer = cast.client("alice").post(reverse("conversation_settings", args=[conversation.pk]), values)
    assert answer.status_code == 302
    conversation.refresh_from_db()
    assert conversation.adapter_ids == [str(adapter.pk)]
    assert not conversation.include_base
    assert conversation.system_prompt == "Be brief."
    assert Sampling.stored(conversation.sampling) == Sampling(temperature=0.7, max_tokens=64)
    wrong = cast.client("alice").post(
        reverse("conversation_settings", args=[conversation.pk]), values | {"temperature": "nan"}
    )
    assert wrong.status_code == 400


def test_deleting_takes_turns_and_answers_along(cast: Cast, conversation: Conversation) -> None:
    make_turn(conversation)
    assert cast.client("alice").post(reverse("conversation_delete", args=[conversation.pk])).status_code == 302
    assert not Completion.objects.exists()


def test_texts_are_escaped(cast: Cast, conversation: Conversation) -> None:
    attack = "</textarea><script>alert(1)</script><img src=x onerror=alert(1)>"
    Conversation.objects.update(title=attack)
    make_turn(conversation, message=attack, text=attack, label=attack[:120], error=attack, status="failed")
    page = cast.client("alice").get(reverse("conversation", args=[conversation.pk])).content.decode()
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_without_a_base_model_the_page_says_so(cast: Cast) -> None:
    page = cast.client("alice").get(reverse("chat")).content.decode()
    assert "No base model is ready" in page
    assert reverse("base_models") in page


def test_without_an_adapter_the_page_offers_to_train_one(cast: Cast, base: BaseModel) -> None:
    page = cast.client("alice").get(reverse("chat")).content.decode()
    assert "There is no adapter yet" in page
    assert chosen(cast.client("alice").get(reverse("chat"))) == {f"base:{base.pk}"}


def test_the_page_costs_few_queries(cast: Cast, conversation: Conversation, django_assert_max_num_queries: Any) -> None:
    for _ in range(12):
        make_turn(conversation)
    client = cast.client("alice")
    with django_assert_max_num_queries(25):
        client.get(reverse("conversation", args=[conversation.pk]))
