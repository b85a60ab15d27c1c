"""Presets: ready-made values of a spec, for people who do not want to choose each one."""

from typing import Any, Literal, get_args

PresetName = Literal["quick", "balanced", "thorough"]
PRESET_NAMES: tuple[str, ...] = get_args(PresetName)

# Only what differs from the spec's own defaults; `balanced` is the defaults.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # A small dataset is seen two or three times, a large one in part: what sixty bold steps show, in minutes on a CPU.
    "quick": {
        "lora": {"r": 8, "lora_alpha": 16.0},
        "optim": {"epochs": 3.0, "max_steps": 60, "batch_size": 4, "learning_rate": 1e-3},
    },
    "balanced": {},
    "thorough": {
        "lora": {"r": 32, "lora_alpha": 64.0, "lora_dropout": 0.05},
        "optim": {"epochs": 5.0, "learning_rate": 1e-4},
        "data": {"holdout": 0.1},
    },
}


def preset(name: str) -> dict[str, dict[str, Any]]:
    """A fresh copy of the preset's values by part. Raises KeyError for an unknown name."""
    return {part: dict(values) for part, values in PRESETS[name].items()}
