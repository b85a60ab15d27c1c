"""A loop of transformers and PEFT alone."""

from typing import Any

import torch
from peft import get_peft_model

from benchmarks.contenders.clock import Clock, row_tokens, run
from benchmarks.contenders.peft_base import at_once, lora_config, quantised
from benchmarks.contenders.place import PLACE


def plain(work: dict[str, Any]) -> dict[str, Any]:
    """What a careful person writes: bfloat16, no checkpointing, padded to the longest of the rows that go at once."""
    model = get_peft_model(quantised(work["base"]), lora_config(work))
    model.train()
    optimizer = torch.optim.AdamW(
        [one for one in model.parameters() if one.requires_grad], lr=work["rate"], weight_decay=0.0
    )
    clock, size = Clock(), at_once(work)
    for start in range(0, len(work["rows"]), work["rows_a_step"]):
        window = work["rows"][start : start + work["rows_a_step"]]
        labels_in = sum(sum(row["completion_mask"][1:]) for row in window)
        total = 0.0
        for at in range(0, len(window), size):
            ids, mask, labels = _padded(window[at : at + size])
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=labels_in).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.step(total)
    return clock.result(work, model, row_tokens(work))


def _padded(rows: list[dict[str, Any]]) -> tuple[Any, Any, Any]:
    width = max(len(row["input_ids"]) for row in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for at, row in enumerate(rows):
        these = torch.tensor(row["input_ids"])
        ids[at, : len(these)], mask[at, : len(these)] = these, 1
        trained = torch.tensor(row["completion_mask"], dtype=torch.bool)
        labels[at, : len(these)] = torch.where(trained, these, -100)
    return ids.to(PLACE), mask.to(PLACE), labels.to(PLACE)


if __name__ == "__main__":
    run(plain)
