"""Compiles static/css/src/main.css into static/css/app.css; with --check it only says whether that is up to date."""

import sys
from pathlib import Path

import lightningcss

FOLDER = Path(__file__).resolve().parent
TARGET = FOLDER / "app.css"


def compiled() -> str:
    """The bundle. Addresses are written relative to src/ and served from one folder above it."""
    css: str = lightningcss.bundle_css(str(FOLDER / "src" / "main.css"), minify=True)
    return css.replace("../../fonts/", "../fonts/") + "\n"


def main() -> None:
    css = compiled()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text() != css:
            raise SystemExit("static/css/app.css is not what static/css/src compiles to: run `make css`.")
        return
    TARGET.write_text(css)
    sys.stderr.write(f"{TARGET.name}: {len(css):,} bytes\n")


if __name__ == "__main__":
    main()
