"""Each column's history: its own answers, then its place's, then nothing; rendered as in training."""

from tests.cast import Cast
from tests.make import make_adapter, make_conversation, make_turn
from trainer.rendering import Renderer
from webapp.adapters.models import BaseModel
from webapp.chat import prompts
from webapp.chat.models import Completion


def test_each_column_sees_its_own_answers(cast: Cast, base: BaseModel) -> None:
    one, two = (make_adapter(cast.team, base, name=name) for name in ("one", "two"))
    conversation = make_conversation(cast.team, cast.alice, base)
    first = make_turn(conversation, message="First?", text="base first")
    Completion.objects.create(turn=first, place=1, adapter=one, label="one", text="one first", status="finished")
    second = make_turn(conversation, message="Second?", adapter=one, is_base=False, text="one second")
    Completion.objects.create(turn=second, place=1, is_base=True, label="tiny", text="", status="failed")
    earlier = list(conversation.turns.prefetch_related("completions"))

    def history(adapter_id: object, place: int) -> list[str]:
        messages = prompts.column_messages(
            system_prompt="",
            earlier=earlier,
            adapter_id=adapter_id,
            place=place,
            message="Third?",  # type: ignore[arg-type]
        )
        return [message["content"] for message in messages]

    assert history(one.pk, 1) == ["First?", "one first", "Second?", "one second", "Third?"]
    # The base model failed in the second turn; place 0 stood there as another's column and fills the gap.
    assert history(None, 0) == ["First?", "base first", "Second?", "one second", "Third?"]
    # A new adapter takes over what stands in its column.
    assert history(two.pk, 1) == ["First?", "one first", "Third?"]
    assert history(two.pk, 3) == ["Third?"]


def test_the_prompt_is_what_training_renders(base: BaseModel) -> None:
    messages = prompts.column_messages(system_prompt="Be brief.", earlier=[], adapter_id=None, place=0, message="Hi")
    expected = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert messages == expected
    renderer = Renderer.load(base.folder)
    assert prompts.prompt_ids(base, messages) == renderer.prompt_ids(expected)
    example = renderer.example([*expected, {"role": "assistant", "content": "Hello"}])
    assert example.ids[: example.trained.index(True)] == prompts.prompt_ids(base, messages)
