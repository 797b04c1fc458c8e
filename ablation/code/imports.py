"""Reads the import statements of a source and finds the files that they lead to, running nothing."""

import ast
import functools
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """One import as it is written: its leading dots, the module, and what is taken from it."""

    level: int
    module: str
    names: tuple[str, ...]


class Found(NamedTuple):
    """The files on the way along a dotted name, that of its end, and the folders that its submodules lie in."""

    files: tuple[Path, ...]
    last: Path | None
    folders: tuple[Path, ...]


@functools.lru_cache(maxsize=1024)
def imports_of(content: bytes) -> tuple[Import, ...]:
    """Return the imports of a source, in order, those inside functions too; none where it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(one for node in ast.walk(tree) for one in _of_node(node))


def find_module(parts: Sequence[str], folders: Sequence[Path]) -> Found:
    """Find the files of a dotted name as Python does, as far as they are there."""
    files: list[Path] = []
    file, inside = None, tuple(folders)
    for part in parts:
        file, inside = _find_part(part, inside)
        if file is not None:
            files.append(file)
    return Found(tuple(files), file, inside)


def packages_of(file: Path) -> tuple[Path, ...]:
    """Return the `__init__.py` of each package that a file lies in, the outermost first."""
    found = []
    for folder in file.parents:
        if not (folder / "__init__.py").is_file():
            break
        found.append(folder / "__init__.py")
    return tuple(reversed(found))


def _of_node(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(0, alias.name, ()) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield Import(node.level, node.module or "", tuple(alias.name for alias in node.names))


def _find_part(part: str, folders: Sequence[Path]) -> tuple[Path | None, tuple[Path, ...]]:
    """Find one part of a dotted name: a package, a module, or folders without an `__init__.py`."""
    namespaces = []
    for folder in folders:
        package = folder / part / "__init__.py"
        if package.is_file():
            return package.resolve(), (package.parent.resolve(),)
        for suffix in (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES):
            module = folder / f"{part}{suffix}"
            if module.is_file():
                return module.resolve(), ()
        if (folder / part).is_dir():
            namespaces.append(folder / part)
    return None, tuple(namespaces)
