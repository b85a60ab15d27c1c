"""Extracts an adapter's files from an upload: an archive, or the files themselves. Nothing else is unpacked."""

import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from trainer.adapter_format import CONFIG, MANIFEST, MAX_CONFIG_BYTES, TOKENIZER_FILES, WEIGHTS, refused
from trainer.base_facts import MAX_TOKENIZER_BYTES
from trainer.errors import TrainerError
from trainer.formats.containers.packed import CHUNK, MAX_MEMBERS, Member, members
from trainer.formats.containers.record import Notes
from trainer.formats.problems import BadFile

SPEC, METRICS, CARD = "spec.json", "metrics.jsonl", "README.md"
MAX_TEXT_BYTES = 16 << 20
# The files that are kept, with a limit in bytes for each; the weights only have that of the whole upload.
KEPT: dict[str, int | None] = {
    CONFIG: MAX_CONFIG_BYTES,
    WEIGHTS: None,
    MANIFEST: MAX_CONFIG_BYTES,
    SPEC: MAX_CONFIG_BYTES,
    METRICS: MAX_TEXT_BYTES,
    CARD: MAX_CONFIG_BYTES,
} | dict.fromkeys(TOKENIZER_FILES, MAX_TOKENIZER_BYTES)

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PICKLE_STARTS = tuple(bytes((0x80, version)) for version in range(2, 6))
PACK = "Pack the folder that PEFT's save_pretrained wrote, or send its files."
CONVERT = (
    "Load the adapter with PEFT where you trust it, and save it again with "
    f"model.save_pretrained(folder, safe_serialization=True): that writes {WEIGHTS}."
)
DRIVE = re.compile(r"[A-Za-z]:")  # of a Windows path
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257


@dataclass
class _Found:
    """What has been extracted so far. `folders`: the kept files of each folder in the archive, stored in `scratch`."""

    bytes_left: int
    scratch: Path
    folders: dict[str, dict[str, Path]] = field(default_factory=dict)
    pickles: list[str] = field(default_factory=list)
    count: int = 0

    def take(self, name: str, stream: BinaryIO) -> None:
        """Keep a file if it belongs to an adapter. Its name is never used as a path on disk."""
        path = _checked_path(name)
        if path.suffix in PICKLES:
            self.pickles.append(path.name)
        if path.name not in KEPT:
            return
        files = self.folders.setdefault(str(path.parent), {})
        if path.name in files:
            raise refused(f"The archive contains {name[:100]!r} twice.", PACK)
        self.count += 1
        files[path.name] = self.scratch / str(self.count)
        self._write(path.name, stream, files[path.name])

    def _write(self, name: str, stream: BinaryIO, target: Path) -> None:
        limit = KEPT[name]
        with target.open("wb") as out:
            while chunk := stream.read(CHUNK):
                self.bytes_left -= len(chunk)
                if self.bytes_left < 0:
                    raise refused("The archive unpacks to more than may be uploaded.", PACK)
                if limit is not None and out.tell() + len(chunk) > limit:
                    raise refused(f"{name} is larger than {limit >> 20} MB.", "Check that it is the right file.")
                out.write(chunk)


def unpack(sent: Mapping[str, Path], out: Path, *, limit: int) -> None:
    """Unpack an adapter's files into the empty folder `out`. `sent`: name -> file, either one archive or the files.

    At most `limit` bytes are written. Raises TrainerError (`user_config`) for anything that is not a safe adapter.
    """
    scratch = out.parent / "unpacked"
    scratch.mkdir()
    found = _Found(limit, scratch)
    for name, path in sent.items():
        if name in KEPT:
            found.take(name, path.open("rb"))
        elif len(sent) == 1 and PurePosixPath(name).suffix not in PICKLES:
            _read_archive(name, path, found)
        else:
            _refuse_file(name)
    files = _outermost_adapter(found)
    for name, path in files.items():
        path.rename(out / name)


def _refuse_file(name: str) -> NoReturn:
    if PurePosixPath(name).suffix in PICKLES:
        raise _pickled(name)
    raise refused(f"{name[:100]!r} is not an adapter file.", f"Send {CONFIG} and {WEIGHTS}, or one archive of them.")


def _read_archive(name: str, path: Path, found: _Found) -> None:
    try:
        for member in members(path, Notes()):
            if member.packing == "+zip":
                found.take(member.name, member.stream)
            elif _is_tar(member):
                _read_tar(member, found)
            else:
                _refuse_unpacked(name, member)
    except BadFile as error:
        where = f" ({error.found.field[:100]!r})" if error.found.field else ""
        raise refused(f"It cannot be unpacked: {error.found.problem}{where}.", PACK) from error
    except tarfile.TarError as error:
        raise refused("The TAR archive is damaged.", PACK) from error


def _is_tar(member: Member) -> bool:
    start: bytes = member.stream.peek(512)  # type: ignore[attr-defined] # both kinds of stream are buffered
    return start[TAR_MAGIC_AT : TAR_MAGIC_AT + len(TAR_MAGIC)] == TAR_MAGIC


def _refuse_unpacked(name: str, member: Member) -> NoReturn:
    start: bytes = member.stream.peek(2)  # type: ignore[attr-defined] # as above
    if start.startswith(PICKLE_STARTS):
        raise _pickled(name)
    raise refused(f"{name[:100]!r} is neither a ZIP nor a TAR archive.", PACK)


def _read_tar(member: Member, found: _Found) -> None:
    """Extract plain files only. The archive is read as a stream, so that headers cannot point to other offsets."""
    with tarfile.open(fileobj=member.stream, mode="r|") as archive:
        for count, info in enumerate(archive, 1):
            if count > MAX_MEMBERS:
                raise refused(f"The archive contains more than {MAX_MEMBERS:,} files.", PACK)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise refused(f"The archive contains a link or a device ({info.name[:100]!r}).", PACK)
            stream = archive.extractfile(info)
            if stream is not None:
                found.take(info.name, stream)  # type: ignore[arg-type] # it can be read like a BinaryIO


def _checked_path(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or DRIVE.match(name):
        raise refused(f"The archive contains a path that leads outside of it ({name[:100]!r}).", PACK)
    return path


def _outermost_adapter(found: _Found) -> dict[str, Path]:
    """The files of the outermost folder with a config. Folders below it may be checkpoints of the same adapter."""
    configured = sorted((folder for folder, files in found.folders.items() if CONFIG in files), key=_depth)
    if not configured:
        if found.pickles and not any(WEIGHTS in files for files in found.folders.values()):
            raise _pickled(found.pickles[0])
        raise refused(f"There is no {CONFIG} in it.", PACK)
    if len(configured) > 1 and _depth(configured[0]) == _depth(configured[1]):
        raise refused(f"It contains several adapters: {configured[0][:80]!r} and {configured[1][:80]!r}.", "Send one.")
    files = found.folders[configured[0]]
    if WEIGHTS not in files:
        if found.pickles:
            raise _pickled(found.pickles[0])
        raise refused(f"There is no {WEIGHTS} beside {CONFIG}.", PACK)
    return files


def _depth(folder: str) -> int:
    return len(PurePosixPath(folder).parts)


def _pickled(name: str) -> TrainerError:
    text = f"{name[:100]!r} is a pickle. Pickles can run code when they are loaded, so they are never opened here."
    return refused(text, CONVERT)
