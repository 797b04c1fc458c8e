"""Damages a JSON document in every way that a hand, a bad disk or another program may: one place at a time."""

import copy
import json
from collections.abc import Iterator
from typing import Any

WRONG: tuple[Any, ...] = (
    None,
    "",
    "x\ud800",
    True,
    -1,
    10**400,
    float("nan"),
    float("inf"),
    [],
    [None],
    {},
    {"x": None},
)

Path = tuple[str | int, ...]


def mutations(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield (what was done, a damaged copy): each part removed, and each replaced by values of other kinds."""
    text = json.dumps(document)  # read again it is a copy, and several times as soon as by copy.deepcopy
    for path in [*_paths(document)][1:]:
        name = ".".join(map(str, path))
        removed = json.loads(text)
        del _at(removed, path[:-1])[path[-1]]
        yield f"{name} removed", removed
        for value in WRONG:
            changed = json.loads(text)
            _at(changed, path[:-1])[path[-1]] = copy.deepcopy(value)
            yield f"{name} is {str(value)[:20]!a}", changed


def _at(document: Any, path: Path) -> Any:
    for key in path:
        document = document[key]
    return document


def _paths(document: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each part of a document; of the items of a list, those of the first and the last."""
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _paths(value, (*path, key))
    if isinstance(document, list):
        for index in sorted({0, len(document) - 1}) if document else ():
            yield from _paths(document[index], (*path, index))
