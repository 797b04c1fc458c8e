"""Finds the files behind names of code, follows what they import, and digests them."""

import contextlib
import functools
import hashlib
import json
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import SOURCE_SUFFIXES, ModuleSpec, PathFinder, all_suffixes
from pathlib import Path

from ablation import __version__
from ablation.code.imports import Import, find_module, imports_of, packages_of
from ablation.code.names import is_file

DIGEST_VERSION = "ablation-code-1"
OURS = "ablation"
INSTALLED = {"site-packages", "dist-packages"}

added_folders: list[str] = []
"""Entries added to sys.path for user code; ignored when digesting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a name's file is (None where it is not there, or is an installed package's), and what it imports from.

    `module` is what it is imported as; None for a file that needs no package around it.
    """

    file: Path | None
    module: str | None
    search: tuple[Path, ...]


@dataclass(slots=True, kw_only=True)
class Trace:
    """What names of code lead to, in order of discovery.

    `files` gives per file what its digest consists of: texts, and the files that it leads to. `modules` gives the
    files found for absolute imports by the name that they are imported as, `packages` the installed ones with version.
    """

    files: dict[Path, list[Path | str]] = field(default_factory=dict)
    modules: dict[str, Path] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    waiting: deque[tuple[Path, tuple[Path, ...]]] = field(default_factory=deque)

    def reach(self, file: Path, search: tuple[Path, ...]) -> None:
        if file not in self.files:
            self.files[file] = []
            self.waiting.append((file, search))


def find_place(location: str, folders: Sequence[Path]) -> Place:
    """Find the file of the part of a name before the colon."""
    search = tuple(dict.fromkeys(folder.resolve() for folder in folders))
    if is_file(location):
        return _place_of_file(location, search)
    parts = location.split(".")
    if parts[0] == OURS:
        return Place(file=None, module=location, search=search)
    roots = search if find_module(parts, search).files else (*search, *_source_roots(parts[0]))
    return Place(file=find_module(parts, roots).last, module=location, search=roots)


def code_digest(names: Iterable[str], folders: Sequence[Path]) -> str | None:
    """Return the digest that CodeFolders.digest promises.

    It is of the graph of files, numbered in order of discovery from the names: so which file is imported as what
    counts, and where it lies does not.
    """
    entries = []
    for name in set(names):
        location, _, attribute = name.rpartition(":")
        place = find_place(location, folders)
        entries.append((attribute, content_digest(place.file) if place.file is not None else "", name, place))
    if not entries:
        return None
    entries.sort(key=lambda entry: entry[:3])
    trace = trace_places([place for *_, place in entries])
    numbers = {file: number for number, file in enumerate(trace.files)}
    named = [
        [attribute, numbers[place.file]]
        if place.file is not None
        else [attribute, place.module, _outside(place.module)]
        for attribute, _, _, place in entries
    ]
    graph = [[numbers[part] if isinstance(part, Path) else part for part in parts] for parts in trace.files.values()]
    return hashlib.sha256(json.dumps([DIGEST_VERSION, named, graph]).encode()).hexdigest()[:32]


def code_parts(names: Iterable[str], folders: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the files of the study's own that names of code lead to, and the installed packages with versions."""
    places = [find_place(name.rpartition(":")[0], folders) for name in names]
    trace = trace_places(places)
    named = {_outside(place.module) for place in places if place.file is None}
    return tuple(sorted(trace.files)), tuple(sorted(filter(None, trace.packages | named)))


def source_of(name: str, folders: Sequence[Path]) -> tuple[bytes, str]:
    """Return the content of the file that a name of code begins in, nothing where there is none, and the attribute."""
    location, _, attribute = name.rpartition(":")
    place = find_place(location, folders)
    return _content(place.file) if place.file is not None else b"", attribute


def trace_places(places: Iterable[Place]) -> Trace:
    """Follow the imports of the places' files, breadth first."""
    trace = Trace()
    for place in places:
        if place.file is not None:
            if place.module is not None:
                trace.modules[place.module] = place.file
            trace.reach(place.file, place.search)
    while trace.waiting:
        _follow(*trace.waiting.popleft(), trace)
    return trace


def content_digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes; of none where it cannot be read, as importing it says so."""
    if _is_module(file):
        return hashlib.sha256(_content(file)).hexdigest()
    try:
        found = file.stat()
        return _digest_of_large(file, found.st_size, found.st_mtime_ns, found.st_ino)
    except OSError:
        return hashlib.sha256(b"").hexdigest()


@functools.lru_cache(maxsize=64)
def _digest_of_large(file: Path, _size: int, _changed_ns: int, _node: int) -> str:
    """Digest a file that may be large, such as one of weights, once for each state that it is in."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_module(file: Path) -> bool:
    return file.name.endswith(tuple(all_suffixes()))


def _place_of_file(location: str, search: tuple[Path, ...]) -> Place:
    """A file with relative imports is a module of the package it lies in; any other stands by itself."""
    written = Path(location).expanduser()
    paths = [written] if written.is_absolute() else [folder / written for folder in search]
    file = next((path.resolve() for path in paths if path.is_file()), None)
    if file is None:
        return Place(file=None, module=None, search=search)
    packages = packages_of(file) if _is_module(file) else []
    module, root = None, file.parent
    if packages and any(one.level for one in imports_of(_content(file))):
        root = packages[0].parent.parent
        parts = file.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Place(file=file, module=module, search=tuple(dict.fromkeys((root, file.parent, *search))))


def _follow(file: Path, search: tuple[Path, ...], trace: Trace) -> None:
    parts = trace.files[file]
    if not _is_module(file):
        parts.append(content_digest(file))
        return
    content = _content(file)
    parts.append(hashlib.sha256(content).hexdigest())
    reached = list(packages_of(file))
    parts += reached
    for imported in imports_of(content) if file.suffix in SOURCE_SUFFIXES else ():
        targets = _targets(imported, file, search, trace)
        trace.packages |= {target for target in targets if isinstance(target, str)}
        parts += [f"{'.' * imported.level}{imported.module}", *targets]
        reached += [target for target in targets if isinstance(target, Path)]
    for target in reached:
        trace.reach(target, search)


def _targets(imported: Import, file: Path, search: tuple[Path, ...], trace: Trace) -> list[Path | str]:
    """Return the files that an import leads to, or the installed package with its version."""
    if imported.level:
        level = min(imported.level, len(file.parents))
        return list(_files_of(imported, (file.parents[level - 1],), {}))
    top = imported.module.partition(".")[0]
    if top == OURS:
        return [_outside(top)]
    found = _files_of(imported, search, trace.modules) or _files_of(imported, _source_roots(top), trace.modules)
    return list(found) or [_outside(top)]


def _files_of(imported: Import, folders: tuple[Path, ...], modules: dict[str, Path]) -> list[Path]:
    """Return the files of an import's module and of the submodules that it takes, and note them by their names."""
    parts = imported.module.split(".") if imported.module else []
    dotted = [parts[: count + 1] for count in range(len(parts))] + [[*parts, name] for name in imported.names]
    files = []
    for one in dotted:
        last = find_module(one, folders).last
        if last is not None:
            modules.setdefault(".".join(one), last)
            files.append(last)
    return files


def _outside(module: str | None) -> str:
    """Say which version of which distribution a module is of; nothing of the standard library."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or not top:
        return ""
    if top == OURS:
        return f"{OURS} {__version__}"
    return _distribution(top)


@functools.cache
def _distribution(top: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return f"{top} {metadata.version(top)}"  # most are called what they hold; listing all takes half a second
    names = sorted(set(_distributions().get(top, ())))
    return ", ".join(f"{name} {metadata.version(name)}" for name in names) or f"{top} is not installed"


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return {top: list(names) for top, names in metadata.packages_distributions().items()}


def _source_roots(top: str) -> tuple[Path, ...]:
    """Return the folder that an importable module lies in where that is neither Python's nor of installed packages.

    That is a project installed as editable, or one that PYTHONPATH names: its code changes without a new version.
    """
    if top in sys.stdlib_module_names or top == OURS:
        return ()
    spec = _spec(top)
    if spec is None:
        return ()
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    roots = [Path(place).resolve().parent for place in places]
    if spec.submodule_search_locations is not None and spec.has_location:
        roots = [root.parent for root in roots]
    return tuple(root for root in roots if not INSTALLED & set(root.parts))


def _spec(top: str) -> ModuleSpec | None:
    path = [entry for entry in sys.path if entry not in added_folders]
    for finder in sys.meta_path:
        with contextlib.suppress(Exception):
            spec = finder.find_spec(top, path if finder is PathFinder else None)
            if spec is not None:
                return spec
    return None


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
