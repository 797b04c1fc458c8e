"""Stands where a component was removed: answers any call with its first tensor input."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

MOST_NESTED = 16
"""Levels that are looked into: what holds itself has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a module's outputs come in: a type, and what its items are called, or their positions."""

    kind: type
    names: tuple[Any, ...]

    def holding(self, first: Tensor) -> Any:
        """Return a new one whose first item is a tensor and all others None.

        Raises:
            TypeError: the type cannot be made so.
        """
        for make in self._ways():
            try:
                made = make(dict(zip(self.names, [first, *[None] * len(self.names)], strict=False)))
                if type(made) is self.kind and first_output(made) is first:
                    return made
            except Exception:  # noqa: BLE001, S112 - of another's type, each way is only tried
                continue
        raise TypeError(f"{self.kind.__name__} cannot be made of other tensors")

    def _ways(self) -> Iterator[Callable[[dict[Any, Any]], Any]]:
        """Yield what may make one from {name: item}."""
        if is_dataclass(self.kind):
            taken = [field.name for field in fields(self.kind) if field.init]
            yield lambda items: self.kind(**{name: items.get(name) for name in taken})
        if issubclass(self.kind, list | tuple):
            yield lambda items: self.kind._make(items.values())  # type: ignore[attr-defined]  # a named tuple
            yield lambda items: self.kind(list(items.values()))
        else:
            yield lambda items: self.kind(items)
            yield lambda items: self.kind(**items)


class Removed(nn.Module):
    """What is left of a removed module: no parameters, and its first tensor input unchanged as its first output.

    `outputs` is what the module's own outputs came in. Plain attributes are those of the removed module, as code around
    it may read them; its weights are left without values, so that none can be used unnoticed.
    """

    def __init__(self, module: nn.Module, outputs: Outputs | None) -> None:
        super().__init__()
        self.removed_type = type(module).__name__
        self.outputs = outputs
        self.is_copied = False
        self.__dict__["removed"] = _without_values(module)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        given = first_tensor([*arguments, *named.values()])
        if given is None:
            raise TypeError(f"what was a {self.removed_type} is given no tensor")
        answer = given.clone() if self.is_copied else given
        return answer if self.outputs is None else self.outputs.holding(answer)

    def extra_repr(self) -> str:
        return self.removed_type

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            removed = self.__dict__.get("removed")
            if removed is None:
                raise
            return getattr(removed, name)


def first_tensor(value: Any, *, depth: int = 0) -> Tensor | None:
    """Return the first tensor in nested lists, tuples, mappings and records, where there is one."""
    if isinstance(value, Tensor) or depth > MOST_NESTED:
        return value if isinstance(value, Tensor) else None
    found = (first_tensor(item, depth=depth + 1) for item in _items(value).values())
    return next((tensor for tensor in found if tensor is not None), None)


def first_output(output: Any) -> Tensor | None:
    """Return a module's output, or the first item of its outputs, where that is a tensor."""
    if not isinstance(output, Tensor):
        output = next(iter(_items(output).values()), None)
    return output if isinstance(output, Tensor) else None


def outputs_of(output: Any) -> Outputs | None:
    """Return what a module's outputs come in; None where the output is a tensor, or nothing that has items."""
    items = {} if isinstance(output, Tensor) else _items(output)
    return Outputs(kind=type(output), names=tuple(items)) if items else None


def _items(value: Any) -> Mapping[Any, Any]:
    """Return the items of a list, tuple, mapping, dataclass or namespace, by name or position; of a record, those set.

    Whatever else there is has none: what an object's attributes mean only its own code knows.
    """
    if isinstance(value, Mapping):
        return {name: value[name] for name in value}
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: item for field in fields(value) if (item := getattr(value, field.name)) is not None}
    return vars(value) if isinstance(value, SimpleNamespace) else {}


def _without_values(module: nn.Module) -> nn.Module | None:
    try:
        return copy.deepcopy(module).to("meta")
    except (RuntimeError, TypeError):  # some modules cannot be copied
        return None
