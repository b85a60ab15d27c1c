"""Where an assistant's answer begins in a rendered conversation, and which tokens lie inside of answers. No torch."""

import os.path
from collections.abc import Callable
from typing import Any

from trainer.errors import TrainerError


def answer_start(messages: list[dict[str, Any]], at: int, full: str, render: Callable[..., str]) -> int:
    """Where the answer `messages[at]` begins in the rendered conversation `full`.

    Templates of reasoning models open a thought in the generation prompt (`<think>`), but render answers without one.
    Then the answer begins where the two diverge. Rendering a different answer shows what belongs to the template.
    """
    before = render(messages[:at], prompt=True)
    if full.startswith(before):
        return len(before)
    closed = render(messages[:at])
    if not (before.startswith(closed) and full.startswith(closed)):
        raise TrainerError(
            "dataset_invalid",
            f"The base model's chat template writes the turns before message {at + 1} differently once more "
            "turns follow, so it is unclear where the answer begins.",
            "Keep one answer and no system message in each row, or choose a base model with another template.",
        )
    other = render([*messages[:at], {"role": "assistant", "content": "A"}, *messages[at + 1 :]])
    start = len(os.path.commonprefix([before, other, full]))
    if start <= len(closed):
        raise TrainerError(
            "dataset_invalid",
            f"The base model's chat template opens an answer in one way and writes message {at + 1} in another, so it "
            "is unclear where the answer begins.",
            "Choose a base model with another chat template.",
        )
    return start


def tokens_inside(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    """Which tokens begin inside one of the spans (both in order)."""
    inside = []
    remaining = list(reversed(spans))
    for start, _ in offsets:
        while remaining and remaining[-1][1] <= start:
            remaining.pop()
        inside.append(bool(remaining) and remaining[-1][0] <= start)
    return inside
