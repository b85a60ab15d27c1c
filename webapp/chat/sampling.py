"""How an answer is drawn: the values, their limits and their defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

MAX_TEMPERATURE = 2.0
MIN_TOP_P = 0.01
MAX_TOKENS = 4096
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 takes the likeliest token each time, so the same question gets the same answer."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0

    @classmethod
    def stored(cls, values: dict[str, Any]) -> Sampling:
        """From what a conversation stores; a missing value has its default."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
