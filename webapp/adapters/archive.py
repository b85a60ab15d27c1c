"""An adapter as a zip, written while it is sent: nothing is stored twice, however large it is."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from django.utils.text import slugify

from webapp.adapters.models import Adapter
from webapp.common.errors import UserError
from webapp.common.storage import sha256_of

PIECE = 1 << 20
NEEDED = ("adapter_config.json", "adapter_model.safetensors")


class _Outbox:
    """A file that cannot be read or rewound: what is written waits here until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """There is nothing to close."""

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def require_intact(adapter: Adapter) -> None:
    """Raise UserError when files are missing or the weights are not the ones that were published."""
    there = all((adapter.folder / name).is_file() for name in NEEDED)
    if not there or sha256_of(adapter.folder / NEEDED[1]) != adapter.weights_sha256:
        raise UserError("adapter_damaged")


def archive_name(adapter: Adapter) -> str:
    """Letters, digits and dashes: safe as a folder and in a header."""
    return slugify(adapter.name)[:80] or f"adapter-{str(adapter.pk)[:8]}"


def zip_pieces(folder: Path, top: str) -> Iterator[bytes]:
    """The folder's files below one folder `top`, uncompressed: weights do not shrink."""
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()):
            entry = zipfile.ZipInfo.from_file(file, f"{top}/{file.relative_to(folder)}")
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while piece := source.read(PIECE):
                    target.write(piece)
                    yield outbox.take()
    yield outbox.take()
