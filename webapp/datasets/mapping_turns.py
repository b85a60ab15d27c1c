"""How the turns of a conversation are written, as the mapping's form asks and guesses it from the first rows."""

from collections.abc import Mapping as Given
from dataclasses import dataclass
from typing import Any

from trainer.formats.dialogue import OTHER_FAMILY_KEYS, ROLES, SPEAKERS, TEXTS
from trainer.formats.mapping import Mapping
from trainer.formats.sample import SAMPLE, read_sample
from webapp.datasets.models import DatasetVersion

MOST_NAMES = 20  # of speakers, shown


@dataclass(frozen=True)
class TurnsShown:
    """What the form shows: the keys and speakers that are there, and what is said of them now."""

    keys: list[str]
    speakers: list[str]
    role: str
    text: str
    user: str
    assistant: str


def with_turns(version: DatasetVersion, mapping: Mapping, asked: Given[str, str]) -> Mapping:
    """The mapping with what the form says of turns, or a guess; as it is where its turns are read by themselves."""
    turns = _turns(version, mapping)
    keys = list(dict.fromkeys(key for turn in turns for key in turn))
    if not keys:
        return {name: said for name, said in mapping.items() if name != "turns"}
    if asked.get("turn_role") in keys and asked.get("turn_text") in keys:
        said: dict[str, Any] = {"role": asked["turn_role"], "text": asked["turn_text"]}
        names = {role: _names(asked.get(f"turn_{role}", "")) for role in ("user", "assistant")}
        return mapping | {"turns": said | {role: some for role, some in names.items() if some}}
    if mapping.get("turns") or _is_known(turns, keys):
        return mapping
    return mapping | {"turns": _guess(turns, keys)}


def shown(version: DatasetVersion, mapping: Mapping) -> TurnsShown | None:
    """The part of the form that is about turns; None where nothing is to be said of them."""
    if not (said := mapping.get("turns")):
        return None
    turns = _turns(version, mapping)
    keys = list(dict.fromkeys(key for turn in turns for key in turn))
    speakers = _speakers(turns, said["role"])[:MOST_NAMES]
    user, assistant = (", ".join(said.get(role, [])) for role in ("user", "assistant"))
    return TurnsShown(keys, speakers, said["role"], said["text"], user, assistant)


def _names(text: str) -> list[str]:
    return [name for name in (one.strip() for one in text.split(",")) if name]


def _turns(version: DatasetVersion, mapping: Mapping) -> list[dict[str, Any]]:
    """Those of the first rows, in the column that is said to hold the conversation."""
    column = mapping["fields"].get("messages") if mapping["kind"] == "chat" else None
    lists = [row.get(column) for row in read_sample(version.folder / SAMPLE)] if column else []
    return [turn for one in lists if isinstance(one, list) for turn in one if isinstance(turn, dict)]


def _speakers(turns: list[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(turn[key] for turn in turns if isinstance(turn.get(key), str)))


def _is_known(turns: list[dict[str, Any]], keys: list[str]) -> bool:
    """Whether keys and speakers are such that the turns are read without a word."""
    role, text = _key(ROLES, keys), _key(TEXTS, keys)
    of_others = any(set(pair) <= set(keys) for pair in OTHER_FAMILY_KEYS)
    if not role or not (text or of_others):
        return False
    return all(name.strip().lower() in SPEAKERS for name in _speakers(turns, role))


def _key(usual: tuple[str, ...], keys: list[str]) -> str:
    return next((name for name in usual if name in keys), "")


def _guess(turns: list[dict[str, Any]], keys: list[str]) -> dict[str, Any]:
    """The usual keys, else the one with the shortest and with the longest texts; whoever begins asks."""
    lengths = {key: sum(len(turn[key]) for turn in turns if isinstance(turn.get(key), str)) for key in keys}
    role = _key(ROLES, keys) or min(keys, key=lambda key: lengths[key] or float("inf"))
    others = [key for key in keys if key != role] or keys
    text = _key(TEXTS, others) or max(others, key=lambda key: lengths[key])
    unknown = [name for name in _speakers(turns, role) if name.strip().lower() not in SPEAKERS and "," not in name]
    said = {"role": role, "text": text}
    return said | ({"user": unknown[:1], "assistant": unknown[1:MOST_NAMES]} if unknown else {})
