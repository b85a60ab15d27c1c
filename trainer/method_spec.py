"""Training methods: supervised fine-tuning, DPO on pairs of answers, and KTO on answers marked good or bad."""

from dataclasses import dataclass
from typing import Literal

from trainer.spec_values import Issue, option

Method = Literal["sft", "dpo", "kto"]

# The kinds of rows (trainer.formats) that each method can be trained on.
KINDS_OF: dict[str, tuple[str, ...]] = {"sft": ("chat", "text"), "dpo": ("preference",), "kto": ("labelled",)}
WORDS = {
    "chat": "conversations",
    "text": "plain text",
    "preference": "prompts with a chosen and a rejected answer",
    "labelled": "completions marked good or bad",
}


@dataclass(frozen=True, kw_only=True)
class PreferenceSpec:
    beta: float = option(
        0.1, "For dpo and kto: how strongly the model is kept close to the reference.", low=0.001, high=100
    )
    label_smoothing: float = option(
        0.0, "For dpo: assumed share of pairs with swapped answers; helps with noisy preferences.", low=0, high=0.49
    )
    desirable_weight: float = option(1.0, "For kto: weight of completions marked good.", low=0, high=100)
    undesirable_weight: float = option(1.0, "For kto: weight of completions marked bad.", low=0, high=100)

    def issues(self, method: str) -> list[Issue]:
        """Values that the method does not use, or that leave it without a loss."""
        found = []
        if self.label_smoothing and method != "dpo":
            path, fix = "preference.label_smoothing", "Use 0, or the method dpo."
            found.append(
                Issue(
                    path, f"{method} is not trained on pairs, which label_smoothing is for.", fix, beside="data.method"
                )
            )
        if method == "kto" and not self.desirable_weight and not self.undesirable_weight:
            path = "preference.desirable_weight"
            found.append(Issue(path, "With both weights 0 there is nothing to learn.", "Give one of them a weight."))
        return found


def kind_issues(method: str, kind: str, task: str = "causal") -> list[Issue]:
    """The issue if the method, or a base model for this task, cannot be trained on rows of this kind."""
    if kind == "text" and task == "seq2seq":
        text = "An encoder–decoder base model is trained on answers to prompts; these rows are plain text."
        return [Issue("model.base", text, "Choose a causal base model, or other rows.")]
    if kind in KINDS_OF[method]:
        return []
    fitting = next(name for name, kinds in KINDS_OF.items() if kind in kinds)
    wanted = " or ".join(WORDS[one] for one in KINDS_OF[method])
    return [Issue("data.method", f"{method} learns from {wanted}; these rows are {WORDS[kind]}.", f"Use {fitting}.")]
