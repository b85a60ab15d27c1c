"""Whatever is sent as a job, the answer is a job or a 4xx in the wire's shape."""

import json
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cast import Cast
from tests.make import make_adapter, make_base, make_dataset
from trainer.spec import PARTS
from webapp.accounts import keys
from webapp.api.jobs_asked import FIELDS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.just("auto"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
NAMES = [name for part in PARTS.values() for name in part.__dataclass_fields__]
SPECS = st.dictionaries(
    st.sampled_from([*PARTS, "version", "other"]), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4) | VALUES
)
HYPER = st.dictionaries(
    st.sampled_from(["n_epochs", "batch_size", "learning_rate_multiplier", "beta", "x"]),
    VALUES | st.floats(0.1, 3) | st.integers(1, 9),
)
TYPES = st.sampled_from(["supervised", "dpo", "kto", "reinforcement"])
METHODS = st.fixed_dictionaries(
    {}, optional={"type": TYPES | VALUES, "supervised": st.fixed_dictionaries({"hyperparameters": HYPER}) | VALUES}
)
ASKED = st.fixed_dictionaries(
    {},
    optional={name: VALUES for name in FIELDS}
    | {"spec": SPECS, "hyperparameters": HYPER, "method": METHODS | VALUES, "metadata": VALUES},
)
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def headers(cast: Cast) -> dict[str, str]:
    cast.bob.last_team = cast.team
    cast.bob.save()
    return {"Authorization": f"Bearer {keys.create(user=cast.bob, name='fuzz')}"}


def answered(client: Client, path: str, body: Any, headers: dict[str, str]) -> int:
    with transaction.atomic():
        sent = json.dumps(body) if not isinstance(body, bytes) else body
        answer = client.post(f"/v1/{path}", sent, content_type="application/json", headers=headers)
        transaction.set_rollback(True)
    assert answer.status_code < 500, (body, answer.content)
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return int(answer.status_code)


def test_any_body(cast: Cast, headers: dict[str, str]) -> None:
    make_base(name="base")
    good = {"model": "base", "training_file": f"file-{make_dataset(cast.team).versions.get().pk.hex}"}
    seen: set[int] = set()

    @QUICK
    @given(ASKED, st.booleans())
    def send(asked: dict[str, Any], completed: bool) -> None:
        seen.add(answered(Client(), "fine_tuning/jobs", good | asked if completed else asked, headers))

    send()
    assert 200 in seen or 400 in seen


def test_any_values_of_a_spec(cast: Cast, headers: dict[str, str]) -> None:
    make_base(name="base")
    good = {"model": "base", "training_file": f"file-{make_dataset(cast.team).versions.get().pk.hex}"}
    seen: set[int] = set()

    @QUICK
    @given(st.one_of(SPECS.map(lambda spec: {"spec": spec}), HYPER.map(lambda hyper: {"hyperparameters": hyper})))
    def send(asked: dict[str, Any]) -> None:
        seen.add(answered(Client(), "fine_tuning/jobs", good | asked, headers))

    send()
    assert seen == {200, 400}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"a":1e999}', b'{"model":"\\u0000"}'])
def test_what_is_no_object(cast: Cast, headers: dict[str, str], body: bytes) -> None:
    assert answered(Client(), "fine_tuning/jobs", body, headers) == 400


@pytest.mark.parametrize("what", ["", "/cancel", "/pause", "/resume", "/events", "/checkpoints", "/x"])
@pytest.mark.parametrize("wire", ["ftjob-", "ftjob-%00", "ftjob-" + "g" * 32, "é", "file-" + "0" * 32, "x" * 2000])
def test_ids_of_all_kinds(cast: Cast, headers: dict[str, str], wire: str, what: str) -> None:
    for method in ("get", "post", "delete", "put"):
        answer = getattr(Client(), method)(f"/v1/fine_tuning/jobs/{wire}{what}", headers=headers)
        assert answer.status_code in (404, 405), answer.content
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "query", ["metadata[a]=1", "metadata[]=", "metadata[", "metadata=x", "limit=x", "limit=-1", "after=%00", "order=up"]
)
def test_queries_of_all_kinds(cast: Cast, headers: dict[str, str], query: str) -> None:
    pk = UUID(int=1).hex
    for path in (
        "jobs",
        f"jobs/ftjob-{pk}/events",
        f"checkpoints/ftckpt-{pk}/permissions",
        "checkpoints/x/permissions",
    ):
        assert Client().get(f"/v1/fine_tuning/{path}?{query}", headers=headers).status_code < 500


@pytest.mark.parametrize(
    "query", ["metadata=x", "metadata%5Ba", "metadata[a=1", "metadata.a=1", "metadata=null&metadata[a]=1"]
)
def test_a_filter_by_metadata_that_is_none_is_refused(cast: Cast, headers: dict[str, str], query: str) -> None:
    answer = Client().get(f"/v1/fine_tuning/jobs?{query}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")


def test_any_project_ids(cast: Cast, headers: dict[str, str]) -> None:
    adapter = make_adapter(cast.team, make_base())
    path = f"fine_tuning/checkpoints/ftckpt-{adapter.pk.hex}/permissions"

    @QUICK
    @given(st.dictionaries(st.just("project_ids") | st.text(max_size=5), VALUES, max_size=2))
    def send(asked: dict[str, Any]) -> None:
        assert answered(Client(), path, asked, headers) == 400

    send()
