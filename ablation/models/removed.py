"""Stands where a component was removed: answers any call with its first tensor input."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Removed(nn.Module):
    """What is left of a removed module: no parameters, and its first tensor input unchanged as its first output.

    `outputs` is what `emptied` gave for the module's own output. Plain attributes are those of the removed module, as
    code around it may read them; its weights are left without values, so that none can be used unnoticed.
    """

    def __init__(self, module: nn.Module, outputs: Any) -> None:
        super().__init__()
        self.removed_type = type(module).__name__
        self.outputs = outputs
        self.is_copied = False
        self.__dict__["removed"] = _without_values(module)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        given = first_tensor([*arguments, *named.values()])
        if given is None:
            raise TypeError(f"what was a {self.removed_type} is given no tensor")
        return _filled(self.outputs, given.clone() if self.is_copied else given)

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


def first_tensor(value: Any) -> Tensor | None:
    """Return the first tensor in nested lists, tuples and mappings, where there is one."""
    if isinstance(value, Tensor):
        return value
    items = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(items, list | tuple):
        return None
    found = (first_tensor(item) for item in items)
    return next((tensor for tensor in found if tensor is not None), None)


def first_output(output: Any) -> Tensor | None:
    """Return a module's output, or the first item of its outputs, where that is a tensor."""
    if isinstance(output, dict):
        output = next(iter(output.values()), None)
    elif isinstance(output, list | tuple):
        output = output[0] if output else None
    return output if isinstance(output, Tensor) else None


def emptied(output: Any) -> Any:
    """Return the list, tuple or dict that outputs came in with None for each; None where the output is a tensor."""
    if isinstance(output, dict):
        empty = copy.copy(output)
        empty.update(dict.fromkeys(output))
        return empty
    return _sequence_like(output, [None] * len(output)) if isinstance(output, list | tuple) else None


def _filled(outputs: Any, first: Tensor) -> Any:
    if isinstance(outputs, dict):
        full = copy.copy(outputs)
        full[next(iter(outputs))] = first
        return full
    return first if outputs is None else _sequence_like(outputs, [first, *outputs[1:]])


def _sequence_like(sequence: Any, items: list[Any]) -> Any:
    """Return a list, a tuple or a named tuple of the kind of another."""
    return sequence._make(items) if hasattr(sequence, "_make") else type(sequence)(items)


def _without_values(module: nn.Module) -> nn.Module | None:
    try:
        return copy.deepcopy(module).to("meta")
    except (RuntimeError, TypeError):  # some modules cannot be copied
        return None
