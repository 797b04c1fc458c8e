"""Finds the names nearest to a misspelt one, and writes paths into nested mappings."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def few(names: Sequence[str], *, most: int = 3, joined: str = ", ") -> str:
    """Return the first names, and how many more there are."""
    return joined.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def nearest_names(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return up to `limit` known names that resemble `name`, most alike first."""
    return difflib.get_close_matches(name, sorted(known), n=limit, cutoff=0.66)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing where no known name is near."""
    near = nearest_names(name, known, limit=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) for every leaf of a nested mapping."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def replaced(mapping: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a nested mapping with the value at a dotted path set, its parents made where absent."""
    key, _, rest = path.partition(".")
    copy = dict(mapping)
    if rest:
        inner = copy.get(key)
        copy[key] = replaced(inner if isinstance(inner, Mapping) else {}, rest, value)
    else:
        copy[key] = value
    return copy


def value_at(mapping: Any, path: str) -> Any:
    """Return the value at a dotted path of a nested mapping, None where there is none."""
    for key in path.split("."):
        mapping = mapping.get(key) if isinstance(mapping, Mapping) else None
    return mapping


def overlap(first: str, second: str) -> bool:
    """Whether two dotted paths are the same, or one is of a value inside the other's."""
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


def is_same(first: Any, second: Any) -> bool:
    """Whether two plain values are equal, and both or neither a truth value: Python calls 1 and true equal."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(is_same, first, second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(is_same(value, second[key]) for key, value in first.items())
    return bool(first == second) and isinstance(first, bool) == isinstance(second, bool)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return {dotted path: (before, now)} for the leaves that differ; an absent leaf is None."""
    old, new = dict(flatten(before)), dict(flatten(now))
    return {
        path: (old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if not is_same(old.get(path), new.get(path))
    }
