"""Imports the code that a name leads to, once per process and content, and says in the user's terms why it cannot."""

import contextlib
import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from ablation.code.calling import is_users, running, user_traceback
from ablation.code.names import code_problem, is_file
from ablation.code.sources import INSTALLED, OURS, Place, Trace, added_folders, content_digest, find_place, trace_places
from ablation.errors import CodeInvalid
from ablation.lookup import did_you_mean

_MISSING = object()
_under_way: list[Place] = []
"""Places that are being imported now."""
_imported: dict[str, tuple[Path, str]] = {}
"""The user's modules in sys.modules: their files, and the digests that these had when they were imported."""


def load_code(name: str, folders: Sequence[Path], *, path: str) -> Any:
    """Do what CodeFolders.load promises."""
    problem = code_problem(name)
    if problem is not None:
        raise CodeInvalid(problem, path=path)
    location, _, attribute = name.rpartition(":")
    place = find_place(location, folders)
    if place.file is None and is_file(location):
        raise CodeInvalid(_no_file(location, folders), path=path)
    _forget_stale(trace_places([place]))
    module = _imported_module(name, location, place, path=path)
    found = _attribute(module, name, attribute, path=path)
    if not callable(found):
        raise CodeInvalid(f"{name} is {type(found).__name__}, which cannot be called", path=path)
    return found


def is_importing() -> bool:
    """Whether code that a study names is being imported: then it is that code which asks."""
    return bool(_under_way)


def _imported_module(name: str, location: str, place: Place, *, path: str) -> ModuleType:
    with _importing(place), running(name, path=path, doing="it was imported"):
        try:
            if place.module is None and place.file is not None:
                return _module_of_file(place.file)
            return importlib.import_module(place.module or location)
        except ModuleNotFoundError as error:
            if not error.name:
                raise
            raise _not_found(name, place, error, path=path) from error


def _module_of_file(file: Path) -> ModuleType:
    """Execute a file as a module whose name tells path and content, so that pickles and dataclasses find it."""
    content = file.read_bytes()
    name = f"ablation_code_{hashlib.sha256(bytes(file) + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, file)
    if spec is None:  # not of a file whose name ends with .py
        raise ImportError(f"{file} is not a .py file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Compiled here, as what Python caches beside the file is told apart by seconds and size only.
        exec(compile(content, str(file), "exec"), module.__dict__)  # noqa: S102 - the user names it to be run
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importing(place: Place) -> Iterator[None]:
    """Look in the place's folders first, and afterwards last; remember which of the user's modules were imported."""
    before, path, no_bytecode = set(sys.modules), list(sys.path), sys.dont_write_bytecode
    folders = [str(folder) for folder in place.search]
    sys.path[:] = [*folders, *(entry for entry in path if entry not in folders)]
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    _under_way.append(place)
    try:
        yield
    finally:
        _under_way.remove(place)
        new = [folder for folder in folders if folder not in path]
        sys.path[:] = [*path, *new]
        added_folders.extend(new)
        sys.dont_write_bytecode = no_bytecode
        _remember(set(sys.modules) - before, place.search)


def _remember(names: set[str], search: Sequence[Path]) -> None:
    for name in names:
        file = _file_of(sys.modules[name])
        if file is None or name.partition(".")[0] in (OURS, *sys.stdlib_module_names):
            continue
        for folder in search:
            if file.is_relative_to(folder) and not INSTALLED & set(file.relative_to(folder).parts):
                _imported[name] = (file, content_digest(file))


def _file_of(module: ModuleType) -> Path | None:
    """Return a module's file, or the folder of a package without one; of what only poses as a module, nothing."""
    spec = module.__spec__ if isinstance(module, ModuleType) else None
    if not isinstance(spec, ModuleSpec):
        return None
    places = [spec.origin if spec.has_location else None, *(spec.submodule_search_locations or ())]
    return next((Path(place).resolve() for place in places if isinstance(place, str)), None)


def _forget_stale(trace: Trace) -> None:
    """Forget all of the user's modules where one of them has changed, or another file is meant by its name."""
    is_stale = any(
        content_digest(file) != digest or trace.modules.get(name, file) != file
        for name, (file, digest) in _imported.items()
    )
    if is_stale:
        for name in _imported:
            sys.modules.pop(name, None)
        _imported.clear()


def _attribute(module: ModuleType, name: str, attribute: str, *, path: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        with running(name, path=path, doing="it was looked up"):
            owner, known = found, [one for one in dir(found) if not one.startswith("_")]
            found = getattr(owner, part, _MISSING)
        if found is _MISSING:
            where = name.rpartition(":")[0] if owner is module else attribute.rpartition(f".{part}")[0]
            there = did_you_mean(part, known) or f"; there are: {', '.join(known[:5]) or 'no names'}"
            raise CodeInvalid(f"{where} has no {part!r}{there}", path=path)
    return found


def _no_file(location: str, folders: Sequence[Path]) -> str:
    parent, file = Path(location).parent, Path(location).name
    near = [one.name for folder in folders for one in (folder / parent).glob("*.py")]
    near += [one.name for folder in folders for one in folder.glob("*.py")]
    searched = ", ".join(map(str, dict.fromkeys(folders))) or "no folder"
    return f"there is no file {location!r} in {searched}{did_you_mean(file, near)}"


def _not_found(name: str, place: Place, error: ModuleNotFoundError, *, path: str) -> CodeInvalid:
    """Tell a module that is not there from one that it imports and is not there."""
    missing, location = str(error.name), name.rpartition(":")[0]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    searched = ", ".join(map(str, place.search)) or "no folder"
    if frames:
        message = f"{name} imports {missing!r}, which is neither in {searched} nor installed"
        return CodeInvalid(message, path=path, traceback=user_traceback(error))
    known = [one.stem for folder in place.search for one in folder.glob("*.py")]
    hint = did_you_mean(location, known)
    what = f"no module {missing!r}" + (f" for {location!r}" if missing != location else "")
    return CodeInvalid(f"there is {what} in {searched}, nor is it installed{hint}", path=path)
