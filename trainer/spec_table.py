"""Every value of a spec for people who write one by hand: its name, what it is when left out, limits and meaning."""

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

from trainer.spec import PARTS, choices_of, option_of

WIDTH, INDENT = 110, " " * 6


def spec_table() -> str:
    """A paragraph for each part of a spec: a line for each of its values, and below it what it means."""
    return "\n".join(line for name, part in PARTS.items() for line in ("", f"{name}:", *_values(part)))


def _values(part: type[Any]) -> Iterator[str]:
    for item in dataclasses.fields(part):
        option, words = option_of(item), choices_of(part, item.name)
        yield f"  {item.name}: {item.default!r}"
        told = [option.meaning, f"In {option.unit}." if option.unit else ""]
        told.append(f"One of {', '.join(words)}." if words else "")
        told.append(f"{option.low:g} to {option.high:g}." if None not in (option.low, option.high) else "")
        yield textwrap.fill(" ".join(filter(None, told)), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
