"""Every value of a spec for people who write one by hand: its name, what it is when left out, limits and meaning."""

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from trainer.spec import PARTS, choices_of, option_of
from trainer.spec_values import as_written, plain

WIDTH, INDENT = 110, " " * 6


def spec_table() -> str:
    """A paragraph for each part of a spec: a line for each of its values, and below it what it means."""
    return "\n".join(line for name, part in PARTS.items() for line in ("", f"{name}:", *_values(part)))


def _values(part: type[Any]) -> Iterator[str]:
    for item in dataclasses.fields(part):
        option, words = option_of(item), choices_of(part, item.name)
        yield f"  {yaml.safe_dump({item.name: plain(item.default)}).strip()}"  # as a spec would say it, to be copied
        told = [option.meaning, f"In {option.unit}." if option.unit else ""]
        told.append(f"One of {', '.join(words)}." if words else "")
        if option.low is not None and option.high is not None:
            told.append(f"{as_written(option.low)} to {as_written(option.high)}.")
        yield textwrap.fill(" ".join(filter(None, told)), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
