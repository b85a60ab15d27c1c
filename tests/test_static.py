"""What the browser gets: vendored files as recorded, CSS as compiled, readable colours, templates the CSP allows."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from webapp.common.words import STATES

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "static"
RECORD = json.loads((STATIC / "vendor" / "VERSIONS.json").read_text())
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
PAGES = [file for file in TEMPLATES if "email" not in file.parts]  # mails carry their own styles
SCRIPTS = sorted((STATIC / "js").rglob("*.js"))


@pytest.mark.parametrize("package", RECORD["packages"], ids=lambda package: package["name"])
def test_vendored_files_are_the_recorded_ones(package: dict[str, object]) -> None:
    for file in package["files"]:  # type: ignore[attr-defined]
        assert hashlib.sha256((STATIC / file["to"]).read_bytes()).hexdigest() == file["sha256"], file["to"]


def test_every_vendored_file_is_recorded_and_licensed() -> None:
    recorded = {file["to"] for package in RECORD["packages"] for file in package["files"]}
    here = {
        str(path.relative_to(STATIC))
        for path in (STATIC / "vendor").rglob("*")
        if path.is_file() and path.parent != STATIC / "vendor"
    }
    assert here <= recorded
    for package in RECORD["packages"]:
        assert any("LICENSE" in file["to"] for file in package["files"]), package["name"]


def test_no_source_map_is_promised() -> None:
    for path in STATIC.rglob("*.js"):
        assert "sourceMappingURL" not in path.read_text(), path


def test_css_is_compiled_from_its_source() -> None:
    checked = subprocess.run(
        [sys.executable, str(STATIC / "css" / "build.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


FORBIDDEN = {
    "style attribute": re.compile(r"<[^>]*\sstyle\s*=", re.IGNORECASE),
    "style element": re.compile(r"<style\b", re.IGNORECASE),
    "event attribute": re.compile(r"<[^>]*\son[a-z]+\s*=", re.IGNORECASE),
    "htmx event attribute": re.compile(r"\shx-on[:-]", re.IGNORECASE),
    "javascript address": re.compile(r"javascript:", re.IGNORECASE),
    "inline script": re.compile(r"<script\b(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")", re.IGNORECASE),
    "foreign asset": re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']https?:", re.IGNORECASE),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_templates_obey_the_content_security_policy(what: str) -> None:
    for file in PAGES:
        text = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", file.read_text(), flags=re.DOTALL)
        assert not (found := FORBIDDEN[what].search(text)), f"{file}: {found and found[0]}"


def test_own_scripts_build_no_code_from_text() -> None:
    for file in SCRIPTS:
        assert not re.search(r"\beval\(|new Function\(|document\.write\(|setAttribute\(\"style\"", file.read_text()), (
            file
        )


def test_every_icon_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'<symbol id="([^"]+)"', (STATIC / "img" / "icons.svg").read_text()))
    asked = {state.icon for state in STATES.values()}
    for file in TEMPLATES:
        asked |= set(re.findall(r'{% icon "([^"]+)"', file.read_text()))
        asked |= set(re.findall(r'{% nav_link "[^"]+" "[^"]+" "([^"]+)"', file.read_text()))
    assert asked <= sprite, asked - sprite


# The colours, read from the tokens: what is text must be readable, what is a line must be seen.
def tokens() -> dict[str, tuple[str, str]]:
    text = "".join((STATIC / "css" / "src" / name).read_text() for name in ("tokens.css", "hues.css"))
    pattern = r"(?:\.(hue-\w+) \{ )?(--[\w-]+): light-dark\((#\w{6}), (#\w{6})\)"
    return {(hue or name): (light, dark) for hue, name, light, dark in re.findall(pattern, text)}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


SURFACES = ("--paper", "--rail", "--surface", "--raised", "--sunken", "--hover")
PAIRS = (
    [(ink, on, 4.5) for ink in ("--ink", "--ink-2", "--ink-3", "--accent") for on in SURFACES]
    + [(tone, f"{tone}-soft", 4.5) for tone in ("--good", "--warn", "--bad", "--accent")]
    + [(tone, on, 4.5) for tone in ("--good", "--warn", "--bad") for on in ("--paper", "--surface", "--raised")]
    + [("--ink", f"{tone}-soft", 4.5) for tone in ("--good", "--warn", "--bad", "--accent")]
    + [("--on-accent", "--accent", 4.5), ("--on-accent", "--accent-strong", 4.5)]
    + [("--edge", on, 3.0) for on in SURFACES]
    + [(hue, on, 3.0) for hue in [*(f"hue-{n}" for n in range(8)), "hue-base"] for on in ("--paper", "--surface")]
)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(theme: int) -> None:
    found = tokens()
    poor = {
        f"{one} on {other}": round(ratio, 2)
        for one, other, least in PAIRS
        if (ratio := contrast(found[one][theme], found[other][theme])) < least
    }
    assert not poor
