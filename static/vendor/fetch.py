"""Fetches the vendored front-end files by the versions in VERSIONS.json with `npm pack`, and records their sha256."""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

STATIC = Path(__file__).resolve().parent.parent
RECORD = STATIC / "vendor" / "VERSIONS.json"
# A storage with hashed names would look for the map, which is not here, and stop.
SOURCE_MAP = re.compile(rb"\n?//# sourceMappingURL=\S+\s*$|/\*# sourceMappingURL=\S+ \*/\s*$")
SHAPES = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)


def main() -> None:
    record = json.loads(RECORD.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        for package in record["packages"]:
            fetch(package, Path(temporary))
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


def fetch(package: dict[str, Any], temporary: Path) -> None:
    """Put the files of one package in place and write their hashes into its record."""
    name = f"{package['name']}@{package['version']}"
    packed = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", str(temporary), name],
        check=True,
        capture_output=True,
        text=True,
    )
    with tarfile.open(temporary / packed.stdout.strip()) as archive:
        for file in package["files"]:
            content = icons(archive, package["icons"]) if "icons" in package and "from" not in file else None
            if content is None and "from" in file:
                content = read(archive, file["from"])
            if content is not None:
                target = STATIC / file["to"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            file["sha256"] = hashlib.sha256((STATIC / file["to"]).read_bytes()).hexdigest()
    sys.stderr.write(f"{name}\n")


def read(archive: tarfile.TarFile, path: str) -> bytes:
    found = archive.extractfile(f"package/{path}")
    if found is None:
        raise SystemExit(f"{path} is not in the package")
    return SOURCE_MAP.sub(b"\n", found.read())


def icons(archive: tarfile.TarFile, names: list[str]) -> bytes:
    """One sprite of the chosen icons; `{% icon %}` points into it."""
    symbols = []
    for name in sorted(names):
        shapes = SHAPES.search(read(archive, f"icons/{name}.svg").decode())
        if shapes is None:
            raise SystemExit(f"{name} is not an icon")
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{" ".join(shapes[1].split())}</symbol>')
    return ('<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n").encode()


if __name__ == "__main__":
    main()
