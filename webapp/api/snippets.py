"""Code that uses one adapter, file or job from outside, with its real names, to run as it stands. No requests here.

The key alone is left out: it comes from the environment.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from webapp.adapters.archive import archive_name
from webapp.adapters.models import Adapter
from webapp.adapters.plain_words import base_name, snippet
from webapp.api.names import FILE, JOB, adapter_name, base_names, ready_bases, wire_id
from webapp.datasets.models import DatasetVersion
from webapp.jobs.models import Job

KEY = '-H "Authorization: Bearer $LOWRANK_API_KEY"'
QUESTION = "Who are you?"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what its --max-lora-rank takes
# What an adapter may have and vLLM refuses, or would leave out without a word.
NOT_IN_VLLM = {
    "use_dora": "DoRA",
    "modules_to_save": "modules that were trained whole",
    "trainable_token_indices": "tokens of their own",
    "bias": "learnt biases",
    "rank_pattern": "ranks that differ by layer",
    "alpha_pattern": "factors that differ by layer",
}


@dataclass(frozen=True)
class Snippet:
    """`key` names it in the page; `note` is what one must know before."""

    key: str
    title: str
    code: str
    note: str = ""


def of_adapter(adapter: Adapter, address: str) -> list[Snippet]:
    """`address` ends with /v1."""
    name = adapter_name(adapter)
    found = [
        Snippet("openai", "Python, with the openai client", _python(address) + _ask(name)),
        Snippet("curl", "curl", _curl(f"{address}/chat/completions", _question(name))),
        Snippet(
            "shell",
            "Command line",
            _shell(
                address, f"chat -m {shlex.quote(name)} {shlex.quote(QUESTION)}", f"adapters pull {shlex.quote(name)}"
            ),
        ),  # fmt: skip
        Snippet("peft", "Without this server: PEFT", snippet(adapter, archive_name(adapter)), _peft_note(adapter)),
    ]
    return [*found, _vllm(adapter, name)]


def of_version(version: DatasetVersion, address: str) -> list[Snippet]:
    file, bases = wire_id(FILE, version.pk), base_names(ready_bases())
    base = next(iter(bases.values()), "your-base-model")
    train = f"""
file = client.files.retrieve({json.dumps(file)})
print(file.filename, file.status)
job = client.fine_tuning.jobs.create(model={json.dumps(base)}, training_file=file.id)
print(job.id, job.status)
"""
    body = {"model": base, "training_file": file}
    commands = (f"jobs create --model {shlex.quote(base)} --dataset {file}", "jobs ls")
    queues = "This queues a training job."
    return [
        Snippet("openai", "Python, with the openai client", _python(address) + train, queues),
        Snippet("curl", "curl", _curl(f"{address}/fine_tuning/jobs", body), queues),
        Snippet(
            "curl-rows", "curl, to download the file", f"curl {shlex.quote(f'{address}/files/{file}/content')} {KEY}"
        ),
        Snippet("shell", "Command line", _shell(address, *commands), queues),
    ]


def of_job(job: Job, address: str) -> list[Snippet]:
    name = wire_id(JOB, job.pk)
    look = f"""
job = client.fine_tuning.jobs.retrieve({json.dumps(name)})
print(job.status, job.fine_tuned_model)
for event in client.fine_tuning.jobs.list_events(job.id, limit=20).data:
    print(event.message)
"""
    url = shlex.quote(f"{address}/fine_tuning/jobs/{name}")
    commands = [f"jobs wait {name}", f"jobs logs {name}"]
    if job.adapter:
        commands.append(f"adapters pull {shlex.quote(adapter_name(job.adapter))}")
    return [
        Snippet("openai", "Python, with the openai client", _python(address) + look),
        Snippet("curl", "curl", f"curl {url} {KEY}"),
        Snippet("shell", "Command line", _shell(address, *commands), "`wait` exits with the job's result."),
    ]


def _python(address: str) -> str:
    return f"""import os

from openai import OpenAI

client = OpenAI(base_url={json.dumps(address)}, api_key=os.environ["LOWRANK_API_KEY"])
"""


def _ask(name: str) -> str:
    return f"""answer = client.chat.completions.create(
    model={json.dumps(name)},
    messages=[{{"role": "user", "content": {json.dumps(QUESTION)}}}],
    max_tokens=200,
)
print(answer.choices[0].message.content)
"""


def _question(name: str) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 200}


def _curl(url: str, body: dict[str, Any]) -> str:
    sent = shlex.quote(json.dumps(body))
    return f'curl {shlex.quote(url)} \\\n  {KEY} \\\n  -H "Content-Type: application/json" \\\n  -d {sent}'


def _shell(address: str, *commands: str) -> str:
    lines = [f"export LOWRANK_URL={shlex.quote(address.removesuffix('/v1'))}"]
    return "\n".join([*lines, *(f"python -m lowrank {command}" for command in commands)])


def _peft_note(adapter: Adapter) -> str:
    unpack = "Download the adapter and unpack it beside the script, or pull it with the command line."
    own = base_name(adapter.base_model)
    return f"{unpack} Put the base model at {own}." if own.startswith("path/to/") else unpack


def _vllm(adapter: Adapter, name: str) -> Snippet:
    lora = adapter.spec.get("lora", {})
    folder, rank = archive_name(adapter), int(lora.get("r", 16))
    room = next((one for one in VLLM_RANKS if one >= rank), VLLM_RANKS[-1])
    base = shlex.quote(base_name(adapter.base_model))
    code = f"""vllm serve {base} --enable-lora --max-lora-rank {room} \\
  --lora-modules {shlex.quote(f"{name}={folder}")}"""
    note = "It serves the unpacked download under the same model name, so that scripts need only another address."
    unable = [words for name, words in NOT_IN_VLLM.items() if lora.get(name) not in (None, False, "none", [], {})]
    if unable:
        note += f" vLLM does not serve {' or '.join(unable)}: merge this adapter first."
    return Snippet("vllm", "Without this server: vLLM", code, note)
