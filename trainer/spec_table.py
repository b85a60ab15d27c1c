"""A reference table of all spec values, for `--help`: names, defaults, limits and meanings."""

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from trainer.spec import PARTS, choices_of, option_of
from trainer.spec_values import as_written, plain

WIDTH, INDENT = 110, " " * 6


def spec_table() -> str:
    """One paragraph per part of a spec: a line for each value, with its meaning below."""
    return "\n".join(line for name, part in PARTS.items() for line in ("", f"{name}:", *_values(part)))


def _values(part: type[Any]) -> Iterator[str]:
    for item in dataclasses.fields(part):
        option, words = option_of(item), choices_of(part, item.name)
        yield f"  {yaml.safe_dump({item.name: plain(item.default)}).strip()}"  # valid YAML, to be copied
        meaning = [option.meaning, f"Unit: {option.unit}." if option.unit else ""]
        meaning.append(f"One of {', '.join(words)}." if words else "")
        if option.low is not None and option.high is not None:
            meaning.append(f"{as_written(option.low)} to {as_written(option.high)}.")
        yield textwrap.fill(" ".join(filter(None, meaning)), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
