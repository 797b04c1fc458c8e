"""Reads the imports of a source, the files that they lead to, and which settings a function looks at; runs nothing."""

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
    return tuple(one for node in ast.walk(_parsed(content)) for one in _of_node(node))


def function_in(content: bytes, name: str) -> ast.FunctionDef | None:
    """Return the function that a source defines under a name; None where the name may mean something else.

    So it is where it is given twice, inside of something, or to what is decorated, and where it is not there.
    """
    tree = _parsed(content)
    named = [node for node in ast.walk(tree) if _gives_name(node, name)]
    defined = [node for node in named if isinstance(node, ast.FunctionDef) and node in tree.body]
    return defined[0] if len(named) == 1 and defined and not defined[0].decorator_list else None


def keys_read(function: ast.FunctionDef, argument: str) -> frozenset[str] | None:
    """Return the keys that a function reads of the mapping that is an argument of its; None where it hands that on."""
    used = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    if any(node.id in ("locals", "vars", "eval", "exec") for node in used):
        return None
    found = [key for node in ast.walk(function) if (key := _key_of(node, argument)) is not None]
    return frozenset(found) if len(found) == sum(node.id == argument for node in used) else None


def _gives_name(node: ast.AST, name: str) -> bool:
    """Whether a node defines, assigns or imports something under a name, so that this is what the name may mean."""
    match node:
        case ast.FunctionDef(name=given) | ast.AsyncFunctionDef(name=given) | ast.ClassDef(name=given):
            return given == name
        case ast.Name(id=given, ctx=ast.Store()):
            return given == name
        case ast.alias(name=imported, asname=given):
            return (given or imported) == name
    return False


def _key_of(node: ast.AST, name: str) -> str | None:
    """Return the key where a node is `name["key"]`, read, or `name.get("key")`."""
    match node:
        case ast.Subscript(value=ast.Name(id=found), slice=ast.Constant(value=str(key)), ctx=ast.Load()):
            return key if found == name else None
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id=found), attr="get"), args=[ast.Constant(value=str(key)), *_]
        ):
            return key if found == name else None
    return None


def _parsed(content: bytes) -> ast.Module:
    """Return the tree of a source, an empty one where it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])


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
