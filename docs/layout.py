"""Writes README.md's list of modules from their own first sentences; `--check` fails when the list is out of date."""

import ast
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- modules: made by docs/layout.py -->\n", "<!-- end of modules -->"
PACKAGES = ("webapp", "trainer", "lowrank")


def sentence(module: Path) -> str:
    """What the first line of its docstring says belongs there."""
    said = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    return said.splitlines()[0] if said else ""


def modules() -> list[Path]:
    """Every module that says something, by folder."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    said = [path for path in found if "migrations" not in path.parts and path.name != "__init__.py" and sentence(path)]
    return sorted(said, key=lambda path: (PACKAGES.index(path.relative_to(ROOT).parts[0]), path.parent, path.name))


def folded(folder: Path, files: list[Path]) -> str:
    lines = "\n".join(f"- `{path.name}`: {sentence(path)}" for path in files)
    about = sentence(folder / "__init__.py").replace("`", "")
    return f"<details><summary><code>{folder.relative_to(ROOT)}/</code> {about}</summary>\n\n{lines}\n\n</details>\n"


def rewritten(readme: str) -> str:
    """README.md with the list of today."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    folders = groupby(modules(), key=lambda path: path.parent)
    return before + BEGIN + "".join(folded(folder, list(files)) for folder, files in folders) + END + after


def main() -> None:
    readme = README.read_text(encoding="utf-8")
    if "--check" not in sys.argv:
        README.write_text(rewritten(readme), encoding="utf-8")
    elif rewritten(readme) != readme:
        sys.exit("README.md does not list the modules as they are. Run: python docs/layout.py")


if __name__ == "__main__":
    main()
