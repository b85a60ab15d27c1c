"""LiteLLM's proxy, pointed at us, as a second real client: `make test` installs it into an environment of its own."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from openai import NotFoundError, OpenAI

from tests.e2e.site import free_port
from tests.processes import ROOT, wait_for
from webapp.adapters.models import Adapter
from webapp.api.names import adapter_name

PROGRAM = ROOT / ".venv" / "litellm" / "bin" / "litellm"
MASTER_KEY = "sk-proxy"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not PROGRAM.is_file(),
        reason="LiteLLM is not installed: `make litellm-for-tests` does it, where a package index can be reached",
    ),
]


@pytest.fixture
def proxied(talk: Callable[..., OpenAI], adapter: Adapter, tmp_path: Path) -> Iterator[OpenAI]:
    """The official client in front of the proxy, which asks us with bob's key."""
    ours, port = talk(), free_port()
    route = {"api_base": str(ours.base_url).rstrip("/"), "api_key": ours.api_key}
    models = [
        {"model_name": "style", "litellm_params": route | {"model": f"openai/{adapter_name(adapter)}"}},
        {"model_name": "nobody", "litellm_params": route | {"model": "openai/nobody"}},
    ]
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump({"model_list": models, "litellm_settings": {"num_retries": 0, "telemetry": False}})
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LITELLM_MASTER_KEY": MASTER_KEY}
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    with tempfile.TemporaryFile() as log:
        command = [str(PROGRAM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            wait_for(lambda: answers(port, process), seconds=120, why="the proxy answers")
            yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=MASTER_KEY, max_retries=0, timeout=60)
        finally:
            process.terminate()
            process.wait(20)


def answers(port: int, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "the proxy has ended"
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/liveliness", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_chat_through_the_proxy(proxied: OpenAI) -> None:
    asked = {
        "model": "style",
        "messages": [{"role": "user", "content": "Who are you?"}],
        "max_tokens": 8,
        "temperature": 0,
    }
    whole = proxied.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert whole.usage.completion_tokens <= 8
    chunks = list(proxied.chat.completions.create(**asked, stream=True))  # type: ignore[call-overload]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    with pytest.raises(NotFoundError, match="does not exist, or your key may not see it"):
        proxied.chat.completions.create(model="nobody", messages=asked["messages"])
