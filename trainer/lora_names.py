"""The modules of a base model that a LoRA spec selects, and issues with names that match none. No torch."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer.adapter_format import LAYER_NUMBER, name_matches
from trainer.base_parts import BaseParts
from trainer.lora_spec import TARGET_GROUPS, LoraSpec, misspelt_groups
from trainer.spec_values import Issue, did_you_mean

# What the paths of a group's layers contain, across model families.
GROUP_PATTERNS = {
    "attention": re.compile(r"attn|attention", re.I),
    "mlp": re.compile(r"mlp|feed_forward|ffn|expert|DenseReluDense|\bfc[12]$", re.I),
}
FROM_WEIGHTS = ("pissa", "olora", "loftq")  # initialised by factorising the weight, which bounds the rank


@dataclass(frozen=True)
class Selection:
    """Paths of what is trained: `adapted` layers with LoRA, `saved` modules in full, of `biased` ones only the bias."""

    adapted: list[str]
    saved: list[str]
    biased: list[str]


def select_modules(parts: BaseParts, lora: LoraSpec) -> Selection:
    """What a spec selects in a base model. Names that match nothing are ignored here and reported by `issues_in`."""
    saved = [path for path in parts.holders if any(name_matches(name, path) for name in lora.modules_to_save)]
    targeted = [path for path in _targeted(parts, lora.target_modules) if path not in saved]
    indices = lora.layers_to_transform
    adapted = [path for path in targeted if not indices or _block_index(path) in indices]
    return Selection(adapted, saved, _biased(parts, lora.bias, adapted, saved))


def issues_in(parts: BaseParts, lora: LoraSpec) -> list[Issue]:
    """Everything in a spec that the base model does not have. Issues that follow from another one are left out."""
    selection = select_modules(parts, lora)
    layer_issues = _target_issues(parts, lora) + _index_issues(parts, lora)
    return [
        *layer_issues,
        *_pattern_issues(parts, lora, parts.targets if layer_issues else selection.adapted),
        *_saved_issues(parts, lora.modules_to_save),
        *_token_issues(parts, lora, selection.saved),
        *([] if layer_issues and lora.bias == "lora_only" else _bias_issues(lora.bias, selection.biased)),
        *_rank_issues(parts, lora, selection.adapted),
    ]


def _targeted(parts: BaseParts, targets: str | tuple[str, ...]) -> list[str]:
    """Paths of the layers that a group or a list of names matches."""
    if isinstance(targets, str):
        pattern = GROUP_PATTERNS.get(targets)
        return [path for path in parts.targets if pattern is None or pattern.search(path)]
    if misspelt_groups(targets):  # `LoraSpec.issues` reports it; no further issues should follow from it
        return list(parts.targets)
    return [path for path in parts.targets if _leaf(path) in targets]


def _biased(parts: BaseParts, kind: str, adapted: Sequence[str], saved: Sequence[str]) -> list[str]:
    """The modules whose bias is trained."""
    if kind == "none":
        return []
    among = adapted if kind == "lora_only" else [path for path in parts.holders if path not in saved]
    return [path for path in among if "bias" in parts.holders[path]]


def _target_issues(parts: BaseParts, lora: LoraSpec) -> list[Issue]:
    targets = lora.target_modules
    known = sorted({_leaf(path) for path in parts.targets})
    if isinstance(targets, str):  # `LoraSpec.issues` reports unknown groups
        missing = [targets] if targets in TARGET_GROUPS and not _targeted(parts, targets) else []
    else:
        missing = sorted(set(targets) - set(known) - set(misspelt_groups(targets)))
    if not missing:
        return []
    text = f"The base model has no layers called {', '.join(missing)}."
    groups = [name for name in missing if name in TARGET_GROUPS] if not isinstance(targets, str) else []
    hint = f"{groups[0]} is a group: write it alone, without brackets. " if groups else ""
    if (head := _leaf(parts.head)) in missing:
        hint += f"{head} is the output head, which gets no LoRA: to train it in full, name it in lora.modules_to_save. "
    return [Issue("lora.target_modules", text, hint + _known_names(missing, known))]


def _index_issues(parts: BaseParts, lora: LoraSpec) -> list[Issue]:
    known = {_block_index(path) for path in _targeted(parts, lora.target_modules)} - {None}
    missing = sorted(set(lora.layers_to_transform) - known)
    if not missing or not known:
        return []
    text = f"It names layer {missing[0]}, which does not exist or contains none of the target modules."
    last = max(index for index in known if index is not None)
    return [Issue("lora.layers_to_transform", text, f"The base model's layers are 0 to {last}.")]


def _pattern_issues(parts: BaseParts, lora: LoraSpec, paths: Sequence[str]) -> list[Issue]:
    """Each name must match adapted layers, and no two names the same layer: PEFT would use the first that matches."""
    found, known = [], sorted({_leaf(path) for path in paths})
    for field in ("rank_pattern", "alpha_pattern"):
        name_of: dict[str, str] = {}
        for name in getattr(lora, field):
            matches = [path for path in paths if name_matches(name, path)]
            if not matches:
                text = f"It names {name}, and no such layer gets an update."
                found.append(
                    Issue(f"lora.{field}", text, f"{did_you_mean([name], known)}These do: {', '.join(known)}.")
                )
            elif twice := [path for path in matches if path in name_of]:
                text = f"{name_of[twice[0]]} and {name} both match {twice[0]}."
                found.append(Issue(f"lora.{field}", text, "Name each layer once."))
            name_of |= dict.fromkeys(matches, name)
    return found


def _saved_issues(parts: BaseParts, names: Iterable[str]) -> list[Issue]:
    missing = [name for name in names if not any(name_matches(name, path) for path in parts.holders)]
    if not missing:
        return []
    known = sorted({_leaf(path) for path in parts.holders})
    text = f"The base model has no module called {', '.join(missing)}."
    return [Issue("lora.modules_to_save", text, _known_names(missing, known))]


def _token_issues(parts: BaseParts, lora: LoraSpec, saved: Sequence[str]) -> list[Issue]:
    found, path, tokens = [], "lora.trainable_token_indices", lora.trainable_token_indices
    if not tokens:
        return []
    if max(tokens) >= (size := parts.holders[parts.table]["weight"][0]):
        found.append(Issue(path, f"It names token {max(tokens)}.", f"The base model's tokens are 0 to {size - 1}."))
    if both := [_leaf(one) for one in saved if one in (parts.table, parts.head)]:
        text = f"{both[0]} is already trained in full: see lora.modules_to_save."
        found.append(Issue(path, text, "Use one of the two."))
    return found


def _bias_issues(bias: str, biased: Sequence[str]) -> list[Issue]:
    if bias == "none" or biased:
        return []
    where = "the base model has no biases" if bias == "all" else "no layer that gets an update has one"
    return [Issue("lora.bias", f"{bias} trains biases, and {where}.", "Use none.")]


def _rank_issues(parts: BaseParts, lora: LoraSpec, adapted: Sequence[str]) -> list[Issue]:
    if lora.init_lora_weights not in FROM_WEIGHTS:
        return []
    for path in adapted:
        own = [rank for name, rank in lora.rank_pattern.items() if name_matches(name, path)]
        largest = min(parts.layers[path][:2])
        if (rank := own[0] if own else lora.r) > largest:
            field = "lora.rank_pattern" if own else "lora.r"
            text = f"The smaller side of {path} is {largest}, and its rank is {rank}."
            return [Issue(field, text, f"{lora.init_lora_weights} allows no larger rank: lower it.")]
    return []


def _known_names(missing: Sequence[str], known: Sequence[str]) -> str:
    return f"{did_you_mean(missing, known)}It has {', '.join(known)}."


def _block_index(path: str) -> int | None:
    found = LAYER_NUMBER.search(path)
    return int(found[1]) if found else None


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]
