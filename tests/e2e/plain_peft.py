"""Answers a question greedily with plain transformers and PEFT in float32: what a downloaded adapter must reproduce.

Run as a program: `plain_peft.py BASE ADAPTER QUESTION TOKENS` prints {"base": text, "adapter": text}.
"""

import json
import sys
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(base: str, adapter: str, question: str, tokens: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)

    def answer() -> Any:
        output = model.generate(**prompt, do_sample=False, max_new_tokens=tokens)
        return tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)

    with model.disable_adapter():
        plain = answer()
    sys.stdout.write(json.dumps({"base": plain, "adapter": answer()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
