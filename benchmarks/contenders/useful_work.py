"""What a training step has to compute at least, and what share that is of the matrix products this machine can do."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.contenders.place import PLACE, wait_for_device

# Width of the square matrices in bfloat16 that tell a device's peak, and how often they are multiplied.
PRODUCTS = {"cpu": (2048, 10), "cuda": (8192, 50)}


def share_of_peak(speed: float, model: Any, lengths: Sequence[int]) -> float:
    """Of the products this device does in the same minute. `speed`: tokens a second; `lengths`: of the rows read.

    The same work is counted for everybody: padding, layers computed again and scores of tokens that nobody learns from
    are a contender's own waste, and so is what it computes for each row that rows have in common.
    """
    trained = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    return speed * flops_a_token(model.config, trained, lengths) / measured_peak()


def flops_a_token(config: Any, trained: int, lengths: Sequence[int]) -> float:
    """4 N + 6 N_lora + attention.

    A product with N weights takes 2 N on the way there, 2 N for the gradient of what was read, and 2 N for that of the
    weights, where they learn. Attention has no weights: a token that sees k keys, itself among them, takes 2 k times
    the width of all heads for its scores and as much for the mean of the values; on the way back both have two factors
    that need a gradient, twice as much. That is 12 k width in each layer. In a row of n tokens the i-th sees i keys:
    a token of all rows sees, on average, sum(n (n + 1) / 2) / sum(n).
    """
    hidden, middle, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    width = (getattr(config, "head_dim", None) or hidden // config.num_attention_heads) * config.num_attention_heads
    keys = width // config.num_attention_heads * config.num_key_value_heads
    frozen = layers * (2 * hidden * width + 2 * hidden * keys + 3 * hidden * middle) + config.vocab_size * hidden
    seen = sum(length * (length + 1) / 2 for length in lengths) / sum(lengths)
    return 4.0 * frozen + 6.0 * trained + 12.0 * layers * seen * width


def measured_peak() -> float:
    """Floating-point operations a second of large products in bfloat16."""
    width, times = PRODUCTS[PLACE.type]
    a, b = (torch.randn(width, width, device=PLACE).bfloat16() for _ in range(2))
    a @ b
    wait_for_device()
    began = time.perf_counter()
    for _ in range(times):
        a @ b
    wait_for_device()
    return times * 2 * width**3 / (time.perf_counter() - began)
