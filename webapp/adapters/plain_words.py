"""What a base model and an adapter are, in words, tables and code that people read. No database here."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from trainer.spec import PARTS, option_of
from webapp.adapters.models import Adapter, BaseModel
from webapp.common.words import NOTHING, bytes_text, number_text

PART_TITLES = {
    "model": "Base model",
    "lora": "LoRA",
    "data": "Data",
    "optim": "Training",
    "preference": "Preference",
    "evaluation": "Evaluation",
}
FILE_MEANINGS = {
    "adapter_config.json": "PEFT's description of the adapter",
    "adapter_model.safetensors": "the trained weights",
    "tokenizer.json": "the base model's tokenizer",
    "tokenizer_config.json": "settings of the tokenizer",
    "special_tokens_map.json": "names of special tokens",
    "chat_template.jinja": "how a conversation is written for the model",
    "spec.json": "every value of the training",
    "metrics.jsonl": "the course of the training, step by step",
    "manifest.json": "hashes, data and library versions it was made with",
    "README.md": "the model card",
}
KINDS = {
    "causal": ("causal", "continues a text, one token after the other"),
    "seq2seq": ("encoder–decoder", "reads the conversation as a whole, then writes; learns the last answer of a row"),
}
# Where adapters of the demo model find their base outside of this server.
PUBLIC_NAMES = {"demo": "HuggingFaceTB/SmolLM2-135M-Instruct"}
# How the loaded model is asked, by the kind it is of.
ASK = """messages = [{"role": "user", "content": "Who are you?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
ASK_SEQ2SEQ = """inputs = tokenizer("Who are you?", return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(answer[0], skip_special_tokens=True))
"""


@dataclass(frozen=True)
class Fact:
    """One line of a table: what, how much, and what that means."""

    name: str
    value: str
    meaning: str = ""


def base_facts(base: BaseModel) -> list[Fact]:
    """A base model's facts in plain words."""
    facts = base.facts
    parameters = facts.get("parameters")
    found = [
        Fact("Parameters", short_count(parameters), "numbers the model consists of"),
        Fact("Kind", *KINDS[base.task]),
        Fact("Architecture", facts.get("architecture") or NOTHING),
        Fact("Reads up to", f"{number_text(facts.get('context_length'))} tokens", "prompt and answer together"),
        Fact("Layers", number_text(facts.get("layers"))),
        Fact("Width", number_text(facts.get("hidden_size")), "numbers per token between layers"),
        Fact("Vocabulary", f"{number_text(facts.get('vocab_size'))} tokens"),
        Fact("Stored as", facts.get("dtype") or NOTHING),
        Fact("On disk", bytes_text(facts.get("bytes"))),
        Fact("In memory as nf4", bytes_text(parameters * 0.56) if parameters else NOTHING, "about, before training"),
        Fact("Licence", facts.get("license") or "not named", "check it before you share what you train"),
        Fact(
            "Chat template", "yes" if facts.get("has_chat_template") else "no", "how a conversation is written for it"
        ),
    ]
    return [fact for fact in found if not fact.value.startswith(NOTHING)]


def short_count(count: int | None) -> str:
    """A parameter count as people say it: 135 M, 7.6 B."""
    if not count:
        return NOTHING
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            value = count / size
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return str(count)


def spec_groups(spec: dict[str, Any]) -> list[tuple[str, list[Fact]]]:
    """A spec as tables by part; values that a newer version named are left out."""
    groups = []
    for part, kind in PARTS.items():
        values = spec.get(part, {})
        named = [one for one in dataclasses.fields(kind) if one.name in values]
        facts = [Fact(one.name, _shown(values[one.name], option_of(one).unit), option_of(one).meaning) for one in named]
        groups.append((PART_TITLES[part], [fact for fact in facts if fact.value]))
    return [(title, facts) for title, facts in groups if facts]


def _shown(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {number:g}" for name, number in value.items())
    return f"{value:g} {unit}".strip() if isinstance(value, float) else f"{value} {unit}".strip()


def files_of(adapter: Adapter) -> list[tuple[str, int, str]]:
    """Name, bytes and meaning of each file; empty when they are gone."""
    if not adapter.folder.is_dir():
        return []
    files = sorted(one for one in adapter.folder.iterdir() if one.is_file())
    return [(one.name, one.stat().st_size, FILE_MEANINGS.get(one.name, "")) for one in files]


def base_name(base: BaseModel) -> str:
    """Where libraries find it outside of this server."""
    return PUBLIC_NAMES.get(base.source, base.location if base.source == "hub" else f"path/to/{base.name}")


def snippet(adapter: Adapter, folder: str) -> str:
    """Code that loads the unpacked download in plain PEFT, with the real names filled in."""
    base, name = adapter.base_model, json.dumps(base_name(adapter.base_model))
    pinned = f", revision={json.dumps(base.revision)}" if base.source == "hub" and base.revision else ""
    is_seq2seq = base.task == "seq2seq"
    kind = "AutoModelForSeq2SeqLM" if is_seq2seq else "AutoModelForCausalLM"
    return f'''from peft import PeftModel
from transformers import {kind}, AutoTokenizer

base = {kind}.from_pretrained({name}{pinned})
model = PeftModel.from_pretrained(base, "{folder}")  # the unpacked download
tokenizer = AutoTokenizer.from_pretrained("{folder}")

{ASK_SEQ2SEQ if is_seq2seq else ASK}'''
