"""What the values of a spec and their choices are called where people fill in a form."""

# Where a plain name would puzzle; every other label is the field's own name.
LABELS = {
    "r": "Rank (r)",
    "lora_alpha": "Strength (lora_alpha)",
    "lora_dropout": "Dropout",
    "target_modules": "Layers that learn",
    "quantization": "Base model kept as",
    "method": "Method",
    "gpus": "GPUs",
    "shard": "Base model shared out",
    "max_seq_length": "Longest example",
    "holdout": "Held out to measure",
    "split": "Split to measure on",
    "probes": "Probe prompts, one a line",
    "layers_to_transform": "Numbers of the layers that learn",
    "rank_pattern": "Ranks of single modules (rank_pattern)",
    "alpha_pattern": "Strengths of single modules (alpha_pattern)",
    "use_rslora": "Rank-stabilised scaling (rsLoRA)",
    "use_dora": "Lengths apart from directions (DoRA)",
    "init_lora_weights": "Start of the update",
    "loraplus_lr_ratio": "Faster B matrices (LoRA+)",
    "neftune_noise_alpha": "Noise on embeddings (NEFTune)",
    "bias": "Biases that learn",
    "modules_to_save": "Modules that learn whole",
    "trainable_token_indices": "Tokens whose embeddings learn",
}
# By field; the word of the spec stands behind a name that people would not know it by.
WORDS = {
    "quantization": {"none": "Not quantised (none)", "int8": "8-bit (int8)", "nf4": "4-bit (nf4)"},
    "dtype": {"auto": "What the device is best at (auto)"},
    "shard": {"auto": "Where it must be (auto)", "never": "Never", "always": "Always"},
    "init_lora_weights": {
        "default": "As in PEFT (default)",
        "gaussian": "Gaussian",
        "orthogonal": "Orthogonal",
        "pissa": "PiSSA",
        "olora": "OLoRA",
        "loftq": "LoftQ",
        "eva": "EVA",
    },
    "bias": {"none": "None", "all": "All (all)", "lora_only": "Of the layers that learn (lora_only)"},
    "method": {"sft": "Supervised (SFT)", "dpo": "Chosen and rejected (DPO)", "kto": "Good and bad (KTO)"},
    "train_on": {"answers": "Answers alone", "everything": "Every token"},
    "optimizer": {
        "adamw": "AdamW",
        "adamw_8bit": "AdamW in 8 bits (adamw_8bit)",
        "paged_adamw": "AdamW, paged (paged_adamw)",
        "paged_adamw_8bit": "AdamW in 8 bits, paged (paged_adamw_8bit)",
    },
    "schedule": {"constant": "Constant", "linear": "Linear", "cosine": "Cosine"},
}


def word_of(field: str, choice: str) -> str:
    return WORDS.get(field, {}).get(choice, choice)
