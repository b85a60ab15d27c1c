"""The zip: streamed, complete, and plain PEFT loads it with nothing of ours."""

import asyncio
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from django.urls import reverse

from tests import make
from tests.cast import Cast
from tests.tiny import make_tiny_base
from tests.trainer.adapters import load_with_peft
from tests.trainer.adapters import make_adapter as write_adapter
from webapp.adapters.models import Adapter
from webapp.common.http import in_threads
from webapp.common.storage import sha256_of


def published(cast: Cast, tmp_path: Path, name: str = "My style, v2: «best»") -> tuple[Adapter, Path]:
    """A real adapter of a tiny base model."""
    folder = make_tiny_base(tmp_path / "base")
    adapter = make.make_adapter(cast.team, make.make_base(path=folder), name=name)
    write_adapter(folder, adapter.folder, seed=1)
    adapter.weights_sha256 = sha256_of(adapter.folder / "adapter_model.safetensors")
    adapter.save()
    return adapter, folder


def test_the_zip_loads_in_plain_peft(cast: Cast, tmp_path: Path) -> None:
    adapter, base = published(cast, tmp_path)
    answer = cast.client("vera").get(reverse("adapter_download", args=[adapter.pk]))
    assert answer["Content-Type"] == "application/zip"
    assert answer["Content-Disposition"] == 'attachment; filename="my-style-v2-best.zip"'
    with zipfile.ZipFile(io.BytesIO(body_of(answer))) as archive:
        assert archive.testzip() is None
        assert {name.split("/")[0] for name in archive.namelist()} == {"my-style-v2-best"}
        archive.extractall(tmp_path / "unpacked")
    ids = torch.tensor([[1, 5, 9, 7]])
    with torch.inference_mode():
        downloaded = load_with_peft(base, tmp_path / "unpacked" / "my-style-v2-best")(input_ids=ids).logits
        original = load_with_peft(base, adapter.folder)(input_ids=ids).logits
    torch.testing.assert_close(downloaded, original)


def test_strangers_get_404(cast: Cast, tmp_path: Path) -> None:
    adapter, _ = published(cast, tmp_path)
    url = reverse("adapter_download", args=[adapter.pk])
    assert cast.client("charlie").get(url).status_code == 404
    assert cast.client("anonymous").get(url).status_code == 302
    make.make_share(adapter, None)
    assert cast.client("charlie").get(url).status_code == 200


def body_of(answer: Any) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in answer.streaming_content])

    return asyncio.run(collect())


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damaged_weights_are_not_handed_out(damage: str, cast: Cast, tmp_path: Path) -> None:
    adapter, _ = published(cast, tmp_path)
    weights = adapter.folder / "adapter_model.safetensors"
    weights.unlink()
    if damage == "changed":
        weights.write_bytes(b"something else")
    answer = cast.client("bob").get(reverse("adapter_download", args=[adapter.pk]))
    assert answer.status_code == 409
    assert "missing or changed" in answer.content.decode()


def test_a_name_without_letters_still_makes_a_file_name(cast: Cast, tmp_path: Path) -> None:
    adapter, _ = published(cast, tmp_path, name="日本\r\nX: y/../..")
    answer = cast.client("bob").get(reverse("adapter_download", args=[adapter.pk]))
    assert answer["Content-Disposition"] == 'attachment; filename="x-y.zip"'


def test_links_are_not_followed(cast: Cast, tmp_path: Path) -> None:
    adapter, _ = published(cast, tmp_path)
    (tmp_path / "secret").write_text("secret")
    (adapter.folder / "link.txt").symlink_to(tmp_path / "secret")
    answer = cast.client("bob").get(reverse("adapter_download", args=[adapter.pk]))
    assert not any("link" in name for name in zipfile.ZipFile(io.BytesIO(body_of(answer))).namelist())


def test_pieces_come_one_by_one() -> None:
    """A server that collected all of it first would hold a large adapter in memory."""
    made = []

    def pieces():  # type: ignore[no-untyped-def]
        for number in range(3):
            made.append(number)
            yield b"piece"

    async def first() -> bytes:
        return await anext(in_threads(pieces()))

    assert asyncio.run(first()) == b"piece"
    assert made == [0]
