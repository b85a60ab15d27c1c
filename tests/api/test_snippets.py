"""What the panels "Use it" show runs as it stands: taken from the pages, with a key in the environment."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from django.test import Client
from openai import OpenAI

from tests.api.answering import Answering
from tests.api.live import LiveServer
from tests.cast import Cast
from tests.make import make_adapter, make_base, make_dataset, make_job
from tests.processes import ROOT
from webapp.accounts import keys
from webapp.adapters.models import Adapter, BaseModel
from webapp.api.names import adapter_name
from webapp.api.snippets import of_adapter as of_adapter_snippets
from webapp.jobs.models import Job, JobStatus

Run = Callable[[str, str], str]


def snippets(people: Cast, path: str, port: int) -> dict[str, str]:
    """By name, as bob copies them."""
    browser = Client(headers={"Host": f"localhost:{port}"})
    browser.force_login(people.bob)
    page = browser.get(path).content.decode()
    pieces = page.split('<code id="use-')[1:]
    return {piece.partition('"')[0]: unescape(piece.partition(">")[2].partition("</code>")[0]) for piece in pieces}


@pytest.fixture
def run(people: Cast, tmp_path: Path) -> Run:
    """`run("python", code)` or `run("bash", code)` in an empty folder; what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"LOWRANK_API_KEY": keys.create(user=people.bob, name="script"), "OMP_NUM_THREADS": "1"}

    def given(program: str, code: str) -> str:
        start = [sys.executable, "-c"] if program == "python" else ["bash", "-euc"]
        done = subprocess.run(
            [*start, code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (code, done.stdout, done.stderr)
        return done.stdout

    return given


@pytest.fixture
def of_adapter(answering: Answering, people: Cast, adapter: Adapter, tiny_folder: Path) -> dict[str, str]:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):  # a published one has them
        if (tiny_folder / name).is_file():
            shutil.copyfile(tiny_folder / name, adapter.folder / name)
    return snippets(people, f"{adapter.get_absolute_url()}?tab=use", answering.server.port)


def test_adapter_from_scripts(of_adapter: dict[str, str], run: Run, adapter: Adapter, tmp_path: Path) -> None:
    assert list(of_adapter) == ["openai", "curl", "shell", "peft", "vllm"]
    assert run("python", of_adapter["openai"]).strip()
    assert '"chat.completion"' in run("bash", of_adapter["curl"])
    run("bash", of_adapter["shell"])
    assert (tmp_path / "style" / "adapter_config.json").is_file()


@pytest.mark.model
def test_adapter_in_plain_peft(of_adapter: dict[str, str], run: Run, base: BaseModel, tmp_path: Path) -> None:
    """With the base model where the snippet says that it is to be put."""
    run("bash", of_adapter["shell"])
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / base.name).symlink_to(base.folder)
    assert run("python", of_adapter["peft"])


def test_vllm_gets_arguments_that_it_has(of_adapter: dict[str, str], adapter: Adapter) -> None:
    """vLLM itself is not run here: it needs a GPU."""
    words = shlex.split(of_adapter["vllm"].replace("\\\n", " "))
    assert words[:4] == ["vllm", "serve", "path/to/tiny", "--enable-lora"]
    assert words[4:] == ["--max-lora-rank", "16", "--lora-modules", f"{adapter_name(adapter)}=style"]


@pytest.mark.parametrize(
    ("lora", "rank", "said"),
    [
        ({"r": 1}, "1", ""),
        ({"r": 12, "bias": "none", "rank_pattern": {}}, "16", ""),
        ({"r": 300, "use_dora": True}, "320", "does not serve DoRA: merge"),
        (
            {"r": 8, "bias": "lora_only", "rank_pattern": {"q_proj": 4}},
            "8",
            "learnt biases or ranks that differ by layer",
        ),
        ({"r": 8, "modules_to_save": ["embed_tokens"]}, "8", "modules that were trained whole"),
    ],
    ids=str,
)
def test_what_vllm_cannot_serve_is_said(people: Cast, lora: dict[str, object], rank: str, said: str) -> None:
    made = make_adapter(people.team, make_base(), spec={"lora": lora})
    (found,) = [one for one in of_adapter_snippets(made, "http://x/v1") if one.key == "vllm"]
    assert f"--max-lora-rank {rank} " in found.code
    assert said in found.note
    assert bool(said) == ("merge this adapter first" in found.note)


def test_dataset_from_scripts(live: LiveServer, people: Cast, run: Run) -> None:
    make_base(name="it's; a model")
    dataset = make_dataset(people.team)
    found = snippets(people, f"/datasets/{dataset.pk}/?tab=use", live.port)
    assert run("python", found["openai"]).splitlines()[0] == "rows.jsonl processed"
    assert '"fine_tuning.job"' in run("bash", found["curl"])
    assert run("bash", found["curl-rows"]).encode() == (dataset.newest.folder / "original").read_bytes()
    assert "ftjob-" in run("bash", found["shell"])
    assert Job.objects.filter(dataset_version=dataset.newest).count() == 3


def test_job_from_scripts(live: LiveServer, people: Cast, run: Run, adapter: Adapter) -> None:
    job = make_job(people.team, base=adapter.base_model, status=JobStatus.SUCCEEDED, adapter=adapter)
    found = snippets(people, f"/jobs/{job.pk}/", live.port)
    assert run("python", found["openai"]).splitlines()[0] == f"succeeded {adapter_name(adapter)}"
    assert '"fine_tuning.job"' in run("bash", found["curl"])
    assert run("bash", found["shell"]).splitlines()[-1] == "style"


def test_odd_names_stay_in_their_quotes(live: LiveServer, people: Cast) -> None:
    base = make_base(name='a"; $(touch x)')
    odd = make_adapter(people.team, base, name="'; rm -rf ~ #")
    found = snippets(people, f"{odd.get_absolute_url()}?tab=use", live.port)
    words = shlex.split(found["vllm"].replace("\\\n", " "))
    assert words[2] == 'path/to/a"; $(touch x)'
    for name in ("openai", "peft"):
        compile(found[name], name, "exec")


def test_the_readme_is_true(talk: Callable[..., OpenAI], run: Run, base: BaseModel) -> None:
    """This server's address and base model stand for the demo's; `login` takes its key from the environment here."""
    readme = (ROOT / "README.md").read_text().partition("## From a script")[2].partition("\n## ")[0]
    address = str(talk().base_url).removesuffix("/v1/")
    readme = readme.replace("http://127.0.0.1:8000", address).replace("smollm2-135m-instruct", base.name)
    python, shell = (part.partition("\n")[2] for part in readme.split("```")[1:4:2])
    assert run("python", python)
    first, *others = shell.strip().splitlines()
    run("bash", first)
    for line in others:
        run("bash", f"{line} --help")
