"""The LoRA part of a spec: which weights are trained and how they are initialised, and its invalid combinations."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from trainer.spec_values import Issue, Pattern, did_you_mean, option

Bias = Literal["none", "all", "lora_only"]
Init = Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq", "eva"]

# Names of the token embeddings, across model families.
TOKEN_TABLES = ("embed_tokens", "wte", "word_embeddings", "embed_in", "shared")
TARGET_GROUPS = ("all-linear", "attention", "mlp")
MODULE_NAME = re.compile(r"[A-Za-z0-9_]+")
MODULE_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


@dataclass(frozen=True, kw_only=True)
class LoraSpec:
    r: int = option(
        16, "Rank of the update: higher ranks can learn more and take more memory.", low=1, high=512, common=True
    )
    lora_alpha: float = option(
        32.0, "Strength of the update: it is scaled by lora_alpha / r.", low=0.001, high=4096, common=True
    )
    lora_dropout: float = option(
        0.0, "Dropout probability of the update's inputs; helps with small datasets.", low=0, high=0.9, common=True
    )
    target_modules: str | tuple[str, ...] = option(
        "all-linear",
        "Layers that get an update: all-linear, attention, mlp, or module names such as q_proj, v_proj.",
        common=True,
    )
    layers_to_transform: tuple[int, ...] = option(
        (), "Indices of the decoder layers that get an update, from 0; empty for all.", low=0, high=1023
    )
    rank_pattern: dict[str, int] = option(
        Pattern(), "Ranks of single modules in place of r, as name: rank.", low=1, high=512
    )
    alpha_pattern: dict[str, float] = option(
        Pattern(), "Strengths of single modules in place of lora_alpha, as name: strength.", low=0.001, high=4096
    )
    use_rslora: bool = option(False, "Scale by lora_alpha / sqrt(r), so that high ranks keep learning.")
    use_dora: bool = option(False, "Train the norm of each weight row separately from its direction (DoRA); slower.")
    init_lora_weights: Init = option(
        "default", "How A and B are initialised; pissa, olora and loftq use the base's weights, eva the data."
    )
    bias: Bias = option("none", "Biases to train: none, all, or those of layers with an update (lora_only).")
    modules_to_save: tuple[str, ...] = option(
        (), "Modules trained in full and saved with the adapter, such as lm_head or a norm; one a line."
    )
    trainable_token_indices: tuple[int, ...] = option(
        (), "Ids of tokens whose embeddings are trained; empty for none.", low=0, high=(1 << 21) - 1
    )

    @property
    def has_nonzero_init(self) -> bool:
        """Whether B A is nonzero at first: the published adapter must then not include that part."""
        return self.init_lora_weights in ("pissa", "olora", "loftq")

    def issues(self, quantization: str) -> list[Issue]:
        """Invalid values and combinations, judged without a base model."""
        return [*_target_issues(self.target_modules), *_name_issues(self), *_init_issues(self, quantization)]

    def issues_on_seq2seq(self) -> list[Issue]:
        """What encoder–decoder models do not support."""
        found = []
        if self.trainable_token_indices:
            text = "Encoder and decoder share their embeddings, and single tokens of them cannot be trained."
            found.append(Issue("lora.trainable_token_indices", text, "Leave it empty."))
        if self.init_lora_weights == "eva":
            text = "eva reads one sequence of tokens, and an encoder–decoder model has two."
            found.append(Issue("lora.init_lora_weights", text, "Use default, pissa or olora."))
        return found


def misspelt_groups(targets: Iterable[str]) -> list[str]:
    """Those of the module names that mean the group all-linear."""
    return [name for name in targets if re.sub("[-_ ]", "", name.lower()) == "alllinear"]


def _target_issues(targets: str | tuple[str, ...]) -> list[Issue]:
    if isinstance(targets, str):
        if targets in TARGET_GROUPS:
            return []
        return [
            Issue(
                "lora.target_modules",
                f"{targets!r:.80} is not a group of layers.",
                f"{did_you_mean([targets], TARGET_GROUPS)}"
                f"Use {', '.join(TARGET_GROUPS)}, or module names with commas between them.",
            )
        ]
    if meant := misspelt_groups(targets):
        fix = "Did you mean all-linear? It is a group: write it alone, target_modules: all-linear."
        return [Issue("lora.target_modules", f"{meant[0]!r:.80} is no module name.", fix)]
    bad = [name for name in targets if not MODULE_NAME.fullmatch(name)]
    if bad or not targets:
        named = f"{bad[0]!r:.80} is no module name." if bad else "The list is empty."
        return [Issue("lora.target_modules", named, "Use plain names such as q_proj, v_proj.")]
    return []


def _name_issues(lora: LoraSpec) -> list[Issue]:
    found = []
    named: dict[str, Iterable[str]] = {
        "rank_pattern": lora.rank_pattern,
        "alpha_pattern": lora.alpha_pattern,
        "modules_to_save": lora.modules_to_save,
    }
    for field, names in named.items():
        if bad := [name for name in names if not MODULE_PATH.fullmatch(name)]:
            found.append(
                Issue(f"lora.{field}", f"{bad[0]!r:.80} is no module name.", "Use plain names such as q_proj.")
            )
    if both := sorted(set(lora.modules_to_save) & set(lora.target_modules)):
        text = f"{both[0]} cannot both get an update and be trained in full."
        found.append(Issue("lora.modules_to_save", text, "Name it here or in lora.target_modules."))
    whole = [name for name in lora.modules_to_save if name.rpartition(".")[2] in TOKEN_TABLES]
    if whole and lora.trainable_token_indices:
        text = f"{whole[0]} is trained in full, and these tokens with it."
        found.append(Issue("lora.trainable_token_indices", text, "Leave one of the two out."))
    for field in ("layers_to_transform", "trainable_token_indices"):
        numbers = getattr(lora, field)
        if len(set(numbers)) < len(numbers):
            found.append(Issue(f"lora.{field}", "It contains a number twice.", "Name each once."))
    return found


def _init_issues(lora: LoraSpec, quantization: str) -> list[Issue]:
    path, found = "lora.init_lora_weights", []
    if lora.init_lora_weights == "loftq" and quantization == "none":
        text = "loftq compensates for quantisation error, and this base is not quantised."
        found.append(Issue(path, text, "Set model.quantization to nf4 or int8, or choose pissa."))
    if lora.init_lora_weights == "orthogonal" and any(rank % 2 for rank in (lora.r, *lora.rank_pattern.values())):
        found.append(
            Issue(path, "orthogonal needs even ranks.", "Make lora.r and every rank of lora.rank_pattern even.")
        )
    return found
