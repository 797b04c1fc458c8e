"""Says in words what a key of a study file may be, from its type and limits: `a whole number from 1 to 5`."""

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Tag
from pydantic.fields import FieldInfo

from ablation.study.file import value_text

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOUNDS = {"gt": "greater than", "ge": "of at least", "lt": "less than", "le": "at most"}


def expected(annotation: Any) -> str:
    """Describe what a type accepts, but for null; text in its `Annotated` is taken as the description."""
    kind, limits = unannotated(annotation)
    given = [limit for limit in limits if isinstance(limit, str)]
    if given:
        return given[0]
    if is_union(kind):
        members = (member for member in get_args(kind) if member is not type(None))
        return ", or ".join(dict.fromkeys(map(expected, members)))
    if get_origin(kind) is Literal:
        *others, last = map(value_text, get_args(kind))
        return f"{', '.join(others)} or {last}" if others else last
    if get_origin(kind) is tuple:
        return f"a list{_length(limits, 'values')}, each {expected(get_args(kind)[0])}"
    if kind is str:
        return f"text{_length(limits, 'characters')}"
    return f"{_KINDS.get(kind, 'a mapping of keys to values')}{_range(limits)}"


def unannotated(annotation: Any) -> tuple[Any, list[Any]]:
    """Return a type without its `Annotated`, and what stood in that, pydantic's fields taken apart."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    kind, *metadata = get_args(annotation)
    return kind, [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def member_of(kind: Any, tag: Any) -> Any:
    """Return the member of a union that pydantic names by a tag, or None."""
    for member in get_args(kind):
        inner, metadata = unannotated(member)
        if any(isinstance(each, Tag) and each.tag == tag for each in metadata):
            return member
        found = member_of(inner, tag) if is_union(inner) else None
        if found is not None:
            return found
    return None


def _range(limits: Iterable[Any]) -> str:
    bounds = {name: getattr(limit, name) for limit in limits for name in _BOUNDS if hasattr(limit, name)}
    texts = {name: f"{bound:g}" if isinstance(bound, float) else str(bound) for name, bound in bounds.items()}
    if texts.keys() == {"ge", "le"}:
        return f" from {texts['ge']} to {texts['le']}"
    return " and".join(f" {words} {texts[name]}" for name, words in _BOUNDS.items() if name in texts)


def _length(limits: Iterable[Any], unit: str) -> str:
    most = [limit.max_length for limit in limits if hasattr(limit, "max_length")]
    return f" of at most {most[0]} {unit}" if most else f" of {unit}" if unit == "values" else ""
