"""What the values of a spec and their choices are called where people fill in a form."""

# Where a plain name would puzzle; every other label is the field's own name.
LABELS = {
    "r": "Rank (r)",
    "lora_alpha": "Alpha (lora_alpha)",
    "lora_dropout": "Dropout",
    "target_modules": "Layers with LoRA",
    "quantization": "Base model kept as",
    "method": "Method",
    "gpus": "GPUs",
    "shard": "Base model sharded",
    "max_seq_length": "Longest example",
    "holdout": "Held-out share",
    "split": "Held-out split",
    "probes": "Probe prompts, one per line",
    "layers_to_transform": "Layer numbers (layers_to_transform)",
    "rank_pattern": "Rank by module (rank_pattern)",
    "alpha_pattern": "Alpha by module (alpha_pattern)",
    "use_rslora": "Rank-stabilised scaling (rsLoRA)",
    "use_dora": "Magnitude and direction apart (DoRA)",
    "init_lora_weights": "LoRA initialisation",
    "loraplus_lr_ratio": "Faster B matrices (LoRA+ ratio)",
    "neftune_noise_alpha": "Noise on embeddings (NEFTune)",
    "bias": "Trained biases",
    "modules_to_save": "Modules trained in full (modules_to_save)",
    "trainable_token_indices": "Tokens with trained embeddings",
}
# By field; the word of the spec stands behind a name that people would not know it by.
WORDS = {
    "quantization": {"none": "Not quantised (none)", "int8": "8-bit (int8)", "nf4": "4-bit (nf4)"},
    "dtype": {"auto": "By the device (auto)"},
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
    "bias": {"none": "None", "all": "All (all)", "lora_only": "Of layers with LoRA (lora_only)"},
    "method": {"sft": "Supervised (SFT)", "dpo": "Chosen and rejected (DPO)", "kto": "Good and bad (KTO)"},
    "train_on": {"answers": "Answers only", "everything": "Every token"},
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
