"""Turns the name of a class of torch.nn into what makes one of it in a component's place."""

import inspect
from collections.abc import Callable

from torch import nn

from ablation.errors import ComponentInvalid
from ablation.lookup import nearest_names

OWN_FUNCTION = "your own function 'file.py:function' that takes the old module and returns the new one"


def replacement(name: str) -> Callable[[nn.Module], nn.Module]:
    """Return what builds `torch.nn.<name>` without arguments, whatever module it is to replace.

    Raises:
        ComponentInvalid: torch.nn has no such class, or the class needs arguments.
    """
    kind = getattr(nn, name, None)
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        near = _near(name)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else f"name one of its classes, or use {OWN_FUNCTION}"
        )
        raise ComponentInvalid(f"torch.nn has no module {name!r}; {hint}", path="model.replace")
    needed = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ComponentInvalid(
            f"torch.nn.{name} needs {', '.join(needed)}, which differ from place to place; use {OWN_FUNCTION}",
            path="model.replace",
        )

    def build(_old: nn.Module) -> nn.Module:
        return kind()

    return build


def _near(name: str) -> list[str]:
    """Return names of torch.nn's modules that resemble a name, in whatever case it is written."""
    known = {
        key.lower(): key for key, kind in vars(nn).items() if isinstance(kind, type) and issubclass(kind, nn.Module)
    }
    return [known[near] for near in nearest_names(name.lower(), known)]
