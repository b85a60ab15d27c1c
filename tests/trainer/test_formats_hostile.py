"""Files made to do harm or by mistake: named in the report, in the limited child, with little memory and time."""

import gzip
import io
import json
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trainer.files import GOOD, check, packed, rows_of, zipped
from trainer.formats.containers.packed import ALWAYS_ALLOWED
from webapp.datasets.child import run_check

ROWS = f"{GOOD}\n" * 3
BOMB = b'{"text": "' + b" " * (ALWAYS_ALLOWED + 8_000_000)


def linked() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("rows.jsonl")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def locked() -> bytes:
    whole = bytearray(zipped(a__jsonl=ROWS))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.find(magic) + at] |= 1
    return bytes(whole)


def many(count: int) -> bytes:
    return zipped(**{f"{n}__jsonl": GOOD for n in range(count)})


def repeated_cell(size: int, rows: int) -> bytes:
    """A Parquet file of one long text that all rows share: small on disk, large when it is read."""
    out = io.BytesIO()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    pq.write_table(pa.table({"text": column}), out, row_group_size=rows)
    return out.getvalue()


REFUSED: dict[str, tuple[Any, str]] = {
    "gzip bomb": (lambda: gzip.compress(BOMB, 1), "unpacks to far more than its size"),
    "zstd bomb": (lambda: packed(BOMB, "zst"), "unpacks to far more than its size"),
    "zip bomb": (lambda: zipped(a__jsonl=BOMB), "unpacks to far more than its size"),
    "parquet bomb": (lambda: repeated_cell(3_000_000, 2_000), "unpacks to far more than its size"),
    "zip of 1,001 files": (lambda: many(1001), "the ZIP archive holds more than 1,000 files"),
    "zip in zip": (lambda: zipped(a__zip=zipped(b__jsonl=ROWS)), "the file is a ZIP archive inside another"),
    "gzip in gzip": (lambda: packed(packed(ROWS.encode(), "gz"), "gz"), "the file is compressed twice"),
    "gzip twice in a zip": (
        lambda: zipped(a__gz=packed(packed(ROWS.encode(), "gz"), "gz")),
        "the file is compressed twice",
    ),
    "zip in gzip in zip": (
        lambda: zipped(a__gz=gzip.compress(zipped(b__jsonl=ROWS))),
        "the file is a ZIP archive inside",
    ),
    "gzip bomb in a zip": (lambda: zipped(a__gz=gzip.compress(BOMB, 1)), "unpacks to far more than its size"),
    "zstd bomb in a zip": (lambda: zipped(a__zst=packed(BOMB, "zst")), "unpacks to far more than its size"),
    "gzip in a zip cut off": (
        lambda: zipped(a__gz=packed(ROWS.encode() * 999, "gz")[:-20]),
        "the compressed file is cut off",
    ),
    "link in a zip": (linked, "the ZIP archive holds a link"),
    "zip with a password": (locked, "the ZIP archive needs a password"),
    "empty zip": (zipped, "the ZIP archive is empty"),
    "spreadsheet": (lambda: zipped(**{"[Content_Types]__xml": "", "xl/a__xml": ""}), "the file is a spreadsheet"),
    "gzip cut off": (lambda: packed(ROWS.encode() * 999, "gz")[:-20], "the compressed file is cut off"),
    "gzip with a wrong sum": (
        lambda: packed(ROWS.encode(), "gz")[:-8] + struct.pack("<II", zlib.crc32(b"no"), 3 * len(GOOD)),
        "the compressed file is damaged",
    ),
    "zstd cut off": (lambda: packed(ROWS.encode() * 999, "zst")[:-5], "the compressed file is cut off"),
    "zip damaged": (lambda: zipped(a__jsonl=ROWS)[:60], "the ZIP archive is damaged"),
    "tar": (lambda: b"rows.jsonl".ljust(257, b"\0") + b"ustar\x0000" + b"\0" * 800, "the file is a tar archive"),
    "pickle": (lambda: b"\x80\x04\x95cposix\nsystem\n", "the file is a Python pickle"),
    "one line without end": (lambda: b'{"text": "' + b"x" * 30_000_000, "row longer than 4 MB"),
    "deep nesting": (lambda: b"[" * 3_000_000, "nested too deeply"),
    "deep rows": (lambda: b'{"text": ' + b"[" * 2_000_000 + b"\n", "nested too deeply"),
    "digits": (lambda: b'{"text": ' + b"9" * 3_000_000 + b"}\n", "number too large"),
    "zeros": (lambda: b"\0" * 5_000_000, ""),
    "long cell without end": (lambda: b'text,b\n"' + b"x,\n" * 3_000_000, "row longer than 4 MB"),
    "UTF-16 cut off": (lambda: ROWS.encode("utf-16")[:-1], "not UTF-16"),
    "lone surrogate in UTF-16": (lambda: b"\xff\xfe" + "{\ud83d}".encode("utf-16-le", "surrogatepass"), "not UTF-16"),
}

NAMES = {"long cell without end": "rows.csv"}


@pytest.mark.parametrize("case", REFUSED)
def test_the_limited_child_refuses_it(tmp_path: Path, case: str) -> None:
    make, problem = REFUSED[case]
    original, out = tmp_path / "original", tmp_path / "out"
    original.write_bytes(make())
    out.mkdir()
    began = time.monotonic()
    ending = run_check(
        original, out, skip_bad_rows=True, still_ours=lambda: True, told=[f"--name={NAMES.get(case, 'rows.txt')}"]
    )
    assert ending and not ending.out_of_time and ending.failed, ending
    assert ending.failed.code == "dataset_invalid", ending
    report = json.loads((out / "report.json").read_text())
    assert report["errors"][-1]["problem"].startswith(problem)
    assert report["errors"][-1]["fix"] and report["errors"][-1]["line"] > 0
    assert not (out / "rows.parquet").exists()
    assert time.monotonic() - began < 30


REPAIRED = {
    "byte order mark": (b"\xef\xbb\xbf" + ROWS.encode(), "byte order mark"),
    "UTF-16": (ROWS.encode("utf-16"), "The file is UTF-16"),
    "UTF-16 without a mark": (ROWS.encode("utf-16-be"), "The file is UTF-16"),
    "UTF-32": (ROWS.encode("utf-32"), "The file is UTF-32"),
    "CR LF": (ROWS.replace("\n", "\r\n").encode(), "CR LF"),
    "CR": (ROWS.replace("\n", "\r").encode(), "CR alone"),
    "U+2028": (ROWS.replace("Lowrank", "Low\u2028rank").encode(), "U+2028"),
}


@pytest.mark.parametrize("how", ["", "gz"])
@pytest.mark.parametrize("case", REPAIRED)
def test_what_is_repaired_is_named(tmp_path: Path, case: str, how: str) -> None:
    content, said = REPAIRED[case]
    report = check(tmp_path, packed(content, how))
    assert (report["rows"], len(report["repairs"]), report["failed"]) == (3, 1, "")
    assert said in report["repairs"][0]
    assert [row.line for row in rows_of(tmp_path)] == [1, 2, 3]
    expected = "I am Low\u2028rank." if case == "U+2028" else "I am Lowrank."
    assert rows_of(tmp_path)[0].messages[1]["content"] == expected


def test_names_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    names = {"../../evil__jsonl": ROWS, "/etc/evil__jsonl": ROWS, "a\\..\\b__jsonl": ROWS, "n" * 4000: ROWS}
    assert check(tmp_path, zipped(**names))["rows"] == 12
    assert {path.name for path in tmp_path.iterdir()} == {"file", "out"}


def test_what_the_system_puts_into_archives_is_passed_over(tmp_path: Path) -> None:
    report = check(tmp_path, zipped(a__jsonl=ROWS, **{"__MACOSX/._a__jsonl": "\0\1", ".DS_Store": "x"}))
    assert report["rows"] == 3
    assert report["repairs"] == ["System files in the archive that were skipped: 2."]


@pytest.mark.parametrize("how", ["gz", "zst"])
def test_compressed_files_in_a_zip_are_read(tmp_path: Path, how: str) -> None:
    report = check(tmp_path, zipped(a__jsonl=ROWS, **{f"b__jsonl.{how}": packed(ROWS.encode(), how)}))
    assert (report["rows"], report["errors"], report["container"]) == (6, [], f"jsonl+{how}+zip")


@pytest.mark.parametrize("about", ["README.md", "LICENSE", "data/licence.txt", "dataset_infos.json", ".gitattributes"])
def test_what_is_written_about_the_data_is_left_out_of_an_archive(tmp_path: Path, about: str) -> None:
    report = check(tmp_path, zipped(a__jsonl=ROWS, **{about: "Read me first.\n\nIt is good."}))
    assert (report["rows"], report["errors"]) == (3, [])
    assert report["repairs"] == [f"Left out of the archive, as they are about the data: {about}."]


def test_a_readme_alone_is_what_was_meant(tmp_path: Path) -> None:
    report = check(tmp_path, zipped(**{"README.md": "Read me first.\n\nIt is good."}))
    assert (report["rows"], report["repairs"]) == (2, ["Plain text: each paragraph between blank lines is one row."])


@pytest.mark.parametrize(("name", "rows"), [("a.jsonl", f"\n{GOOD}\n \n{GOOD}\n"), ("a.csv", "text\n\na\n\nb\n")])
def test_blank_lines_are_counted(tmp_path: Path, name: str, rows: str) -> None:
    report = check(tmp_path, rows, name=name)
    assert (report["rows"], report["repairs"]) == (2, ["Blank lines that were skipped: 2."])
