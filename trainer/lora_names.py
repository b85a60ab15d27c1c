"""What the names and numbers of a LoRA spec mean on one base model, and all of them that it does not have. No torch."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer.adapter_format import LAYER_NUMBER, means
from trainer.base_parts import BaseParts
from trainer.lora_spec import TARGET_GROUPS, LoraSpec, misspelt_groups
from trainer.spec_values import Issue, did_you_mean

# The words in a layer's path that tell what it belongs to, across model families.
GROUP_WORDS = {
    "attention": re.compile(r"attn|attention", re.I),
    "mlp": re.compile(r"mlp|feed_forward|ffn|expert|DenseReluDense|\bfc[12]$", re.I),
}
FROM_WEIGHTS = ("pissa", "olora", "loftq")  # starts that take so many directions of a weight as their rank says


@dataclass(frozen=True)
class Chosen:
    """Paths of what learns: `updated` layers get an update, `saved` modules learn whole, of `biased` ones the bias."""

    updated: list[str]
    saved: list[str]
    biased: list[str]


def chosen_in(parts: BaseParts, lora: LoraSpec) -> Chosen:
    """What a spec means on a base model. Names that it does not have mean nothing: see `issues_in`."""
    saved = [path for path in parts.holders if any(means(name, path) for name in lora.modules_to_save)]
    asked = [path for path in _asked(parts, lora.target_modules) if path not in saved]
    numbers = lora.layers_to_transform
    updated = [path for path in asked if not numbers or _number_of(path) in numbers]
    return Chosen(updated, saved, _biased(parts, lora.bias, updated, saved))


def issues_in(parts: BaseParts, lora: LoraSpec) -> list[Issue]:
    """Everything that a spec asks of a base model in vain. What follows from one of these is not told beside it."""
    chosen = chosen_in(parts, lora)
    of_layers = _target_issues(parts, lora) + _number_issues(parts, lora)
    return [
        *of_layers,
        *_pattern_issues(parts, lora, parts.targets if of_layers else chosen.updated),
        *_saved_issues(parts, lora.modules_to_save),
        *_token_issues(parts, lora, chosen.saved),
        *([] if of_layers and lora.bias == "lora_only" else _bias_issues(lora.bias, chosen.biased)),
        *_rank_issues(parts, lora, chosen.updated),
    ]


def _asked(parts: BaseParts, targets: str | tuple[str, ...]) -> list[str]:
    """Paths of the layers that a group or a list of names means."""
    if isinstance(targets, str):
        words = GROUP_WORDS.get(targets)
        return [path for path in parts.targets if words is None or words.search(path)]
    if misspelt_groups(targets):  # an issue without any base, and what follows from it is none
        return list(parts.targets)
    return [path for path in parts.targets if _leaf(path) in targets]


def _biased(parts: BaseParts, kind: str, updated: Sequence[str], saved: Sequence[str]) -> list[str]:
    """The modules whose bias learns."""
    if kind == "none":
        return []
    among = updated if kind == "lora_only" else [path for path in parts.holders if path not in saved]
    return [path for path in among if "bias" in parts.holders[path]]


def _target_issues(parts: BaseParts, lora: LoraSpec) -> list[Issue]:
    targets = lora.target_modules
    known = sorted({_leaf(path) for path in parts.targets})
    if isinstance(targets, str):  # a word that is no group is an issue without any base
        missing = [targets] if targets in TARGET_GROUPS and not _asked(parts, targets) else []
    else:
        missing = sorted(set(targets) - set(known) - set(misspelt_groups(targets)))
    if not missing:
        return []
    text = f"The base model has no layers called {', '.join(missing)}."
    groups = [name for name in missing if name in TARGET_GROUPS] if not isinstance(targets, str) else []
    hint = f"The group {groups[0]} stands alone, without brackets. " if groups else ""
    return [Issue("lora.target_modules", text, hint + _those_there(missing, known))]


def _number_issues(parts: BaseParts, lora: LoraSpec) -> list[Issue]:
    there = {_number_of(path) for path in _asked(parts, lora.target_modules)} - {None}
    missing = sorted(set(lora.layers_to_transform) - there)
    if not missing or not there:
        return []
    text = f"It names layer {missing[0]}, which has no layer that could get an update."
    last = max(number for number in there if number is not None)
    return [Issue("lora.layers_to_transform", text, f"The base model's layers are 0 to {last}.")]


def _pattern_issues(parts: BaseParts, lora: LoraSpec, paths: Sequence[str]) -> list[Issue]:
    """Each name must mean layers that get an update, and no layer two names: PEFT would take whichever is first."""
    found, known = [], sorted({_leaf(path) for path in paths})
    for field in ("rank_pattern", "alpha_pattern"):
        taken: dict[str, str] = {}
        for name in getattr(lora, field):
            meant = [path for path in paths if means(name, path)]
            if not meant:
                text = f"It names {name}, and no such layer gets an update."
                found.append(
                    Issue(f"lora.{field}", text, f"{did_you_mean([name], known)}These do: {', '.join(known)}.")
                )
            elif twice := [path for path in meant if path in taken]:
                text = f"{taken[twice[0]]} and {name} both mean {twice[0]}."
                found.append(Issue(f"lora.{field}", text, "Name each layer once."))
            taken |= dict.fromkeys(meant, name)
    return found


def _saved_issues(parts: BaseParts, names: Iterable[str]) -> list[Issue]:
    missing = [name for name in names if not any(means(name, path) for path in parts.holders)]
    if not missing:
        return []
    known = sorted({_leaf(path) for path in parts.holders})
    text = f"The base model has no module called {', '.join(missing)}."
    return [Issue("lora.modules_to_save", text, _those_there(missing, known))]


def _token_issues(parts: BaseParts, lora: LoraSpec, saved: Sequence[str]) -> list[Issue]:
    found, path, tokens = [], "lora.trainable_token_indices", lora.trainable_token_indices
    if not tokens:
        return []
    if max(tokens) >= (size := parts.holders[parts.table]["weight"][0]):
        found.append(Issue(path, f"It names token {max(tokens)}.", f"The base model's tokens are 0 to {size - 1}."))
    if both := [_leaf(one) for one in saved if one in (parts.table, parts.head)]:
        found.append(Issue(path, f"{both[0]} learns whole already: see lora.modules_to_save.", "Use one of the two."))
    return found


def _bias_issues(bias: str, biased: Sequence[str]) -> list[Issue]:
    if bias == "none" or biased:
        return []
    where = "the base model has no biases" if bias == "all" else "no layer that gets an update has one"
    return [Issue("lora.bias", f"{bias} lets biases learn, and {where}.", "Use none.")]


def _rank_issues(parts: BaseParts, lora: LoraSpec, updated: Sequence[str]) -> list[Issue]:
    if lora.init_lora_weights not in FROM_WEIGHTS:
        return []
    for path in updated:
        own = [rank for name, rank in lora.rank_pattern.items() if means(name, path)]
        directions = min(parts.layers[path][:2])
        if (rank := own[0] if own else lora.r) > directions:
            field = "lora.rank_pattern" if own else "lora.r"
            text = f"{path} has only {directions} directions, and its rank is {rank}."
            return [Issue(field, text, f"{lora.init_lora_weights} needs no more: lower it.")]
    return []


def _those_there(missing: Sequence[str], known: Sequence[str]) -> str:
    return f"{did_you_mean(missing, known)}It has {', '.join(known)}."


def _number_of(path: str) -> int | None:
    found = LAYER_NUMBER.search(path)
    return int(found[1]) if found else None


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]
