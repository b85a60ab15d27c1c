"""The project's own source, parsed: files, their imports, functions and calls."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One name that a module imports: `from a.b import c` is module a.b, name c."""

    file: str
    line: int
    module: str
    name: str
    inside_function: bool

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def targets(self) -> tuple[str, str]:
        """What may be meant: the module, or a module of that name in the package."""
        return self.module, f"{self.module}.{self.name}"


def own(*patterns: str) -> list[str]:
    """Paths from the root of files we wrote ourselves, sorted."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    names = (path.relative_to(ROOT).as_posix() for path in found)
    return sorted(name for name in names if "/migrations/" not in name and "/vendor/" not in name)


def python_files(*folders: str) -> list[str]:
    return own(*(f"{folder}/**/*.py" for folder in folders or ("webapp", "trainer", "lowrank")))


@cache
def text(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def tree(file: str) -> ast.Module:
    return ast.parse(text(file), file)


def module_of(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


@cache
def imports(file: str) -> tuple[Import, ...]:
    """Every import of a file, wherever it stands."""
    inside = {id(node) for function in functions(file) for node in ast.walk(function)}
    found = []
    for node in ast.walk(tree(file)):
        local = id(node) in inside
        if isinstance(node, ast.Import):
            found += [Import(file, node.lineno, alias.name, "", local) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = absolute(file, node)
            found += [Import(file, node.lineno, module, alias.name, local) for alias in node.names]
    return tuple(found)


def absolute(file: str, node: ast.ImportFrom) -> str:
    """The module an import names, also when it is written with dots."""
    if not node.level:
        return node.module or ""
    package = file.split("/")[: -node.level]
    return ".".join([*package, *filter(None, [node.module])])


def functions(file: str) -> list[Function]:
    return [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of(function: Function) -> int:
    """From `def` to the last line, decorators left out."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def calls(file: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called, as it is written."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression; what is no name becomes `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
