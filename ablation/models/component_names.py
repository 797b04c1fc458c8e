"""Finds the modules of a model that patterns match, and lists names for people."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from ablation.errors import ComponentInvalid
from ablation.lookup import nearest_names

SHOWN_NAMES = 8

Names = Mapping[str, Sequence[str]]
"""Every name of a module, by its first."""


def names_of(model: nn.Module) -> Names:
    """Return the dotted names of every module but the model itself, in order."""
    first: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name:
            names.setdefault(first.setdefault(id(module), name), []).append(name)
    return names


def matching(pattern: str, names: Names, *, path: str) -> list[str]:
    """Return the first names of the modules that have a name which matches."""
    if not pattern:
        raise ComponentInvalid("'' is the whole model; name a part of it", path=path)
    matching = [first for first, every in names.items() if any(fnmatchcase(name, pattern) for name in every)]
    if not matching:
        near = nearest_names(pattern, names)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {shortened(names)}"
        raise ComponentInvalid(f"the model has no component {pattern!r}; {hint}", path=path)
    return matching


def outermost(matched: Mapping[str, str], names: Names, called: Collection[str]) -> list[str]:
    """Leave out of {first name: pattern} what is inside another match.

    A container that is not called, but has matches inside that are, is left out itself where a wildcard matched it.
    """
    holders = {parent for first in matched if first in called for name in names[first] for parent in _parents(name)}
    kept = [first for first, pattern in matched.items() if first in called or first not in holders or first == pattern]
    taken = {name for first in kept for name in names[first]}
    return [first for first in kept if any(taken.isdisjoint(_parents(name)) for name in names[first])]


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def shortened(names: Iterable[str]) -> str:
    """List the names of the least depth, and count the others."""
    ordered = sorted(names, key=lambda name: name.count("."))
    more = [f"and {len(ordered) - SHOWN_NAMES} more"] if len(ordered) > SHOWN_NAMES else []
    return ", ".join([*ordered[:SHOWN_NAMES], *more])


def listed(names: Iterable[str]) -> str:
    """List names quoted, the first three of many."""
    ordered = list(dict.fromkeys(names))
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(map(repr, ordered[:3])) + more


def short(text: str) -> str:
    """Cut a text to a line."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"
