"""Chat requests with a model that answers, and any one or two fields odd: an answer or a refusal, never a failure."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.answering import Answering
from tests.api.test_fuzz_schema import ANYTHING, CALLS, SCHEMAS, allowed
from tests.cast import Cast
from webapp.accounts import keys
from webapp.adapters.models import BaseModel

pytestmark = pytest.mark.django_db(transaction=True)

BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "api_chat_completions": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "cat"}]}),
    "api_completions": ("/v1/completions", {"prompt": "cat"}),
}
ODD = ANYTHING | st.lists(ANYTHING, max_size=3) | st.dictionaries(st.text(max_size=5), ANYTHING, max_size=2)


@pytest.mark.parametrize("name", BODIES)
def test_odd_fields_of_a_request_that_could_be_answered(
    answering: Answering, people: Cast, base: BaseModel, name: str
) -> None:
    address, good = BODIES[name]
    headers = {"Authorization": f"Bearer {keys.create(user=people.bob, name='fuzz')}"}
    known: dict[str, Any] = SCHEMAS[CALLS[name, "POST"].takes]["properties"]
    one = st.sampled_from(sorted(known)).flatmap(lambda field: st.tuples(st.just(field), allowed(known[field]) | ODD))

    with httpx.Client(base_url=answering.address, headers=headers, timeout=120) as client:

        @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(st.lists(one, min_size=1, max_size=2))
        def never_fails(odd: list[tuple[str, Any]]) -> None:
            body = {"model": "tiny", **good, "max_tokens": 2} | dict(odd)
            answer = client.post(address, json=body)
            assert answer.status_code < 500, (body, answer.text)
            if answer.status_code != 200:
                assert answer.json()["error"].keys() == {"message", "type", "param", "code"}, body

        never_fails()
