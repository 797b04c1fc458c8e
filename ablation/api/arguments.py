"""Refuses arguments of a wrong type or range, which the command line refuses by its options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike
from typing import Any

from ablation.errors import ArgumentInvalid

_PATH = ((str, PathLike), "a path, as text or pathlib.Path")
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "file": ((str, PathLike, Mapping), "the path of a study file, or a mapping with its keys"),
    "set": ((Mapping,), 'a mapping such as {"training.epochs": 5}'),
    "study": ((str,), "the name of a recorded study, as text"),
    "metric": ((str,), "the name of a metric"),
    "metrics": ((Mapping,), 'a mapping such as {"f1": {"function": "metrics.py:f1", "direction": "maximize"}}'),
    "executor": ((str,), "text"),
    "tracking_uri": ((str,), "the address of an MLflow store, such as 'sqlite:///mlflow.db'"),
    "storage": ((str,), "the address of a database, such as 'sqlite:///optuna.db'"),
    "budget": ((str,), "a time such as '2h', '90m' or '1h30m', as text"),
    "state_dir": _PATH,
    "variant": ((str, Mapping), 'the name of a variant, or its levels such as {"model.depth": 3}'),
    "code": ((str, PathLike, list, tuple, set, frozenset), "a folder, the name of installed code, or a list of them"),
    "figure": ((str,), "the name of a figure, such as 'forest'"),
    "form": ((str,), "the name of a form, such as 'html'"),
}


def check_kind(argument: str, value: Any, *, kind: str | None = None, is_optional: bool = False) -> None:
    """See that an argument can be read; `kind` says as which one, where its name does not.

    Raises:
        ArgumentInvalid: it is of another type.
    """
    kinds, words = _KINDS[kind or argument]
    if not (isinstance(value, kinds) or (value is None and is_optional)):
        raise ArgumentInvalid(argument, value, words)


def check_switches(**switches: Any) -> None:
    """See that switches are on or off: any text would be taken for on.

    Raises:
        ArgumentInvalid: one is neither True nor False.
    """
    for argument, value in switches.items():
        if not isinstance(value, bool):
            raise ArgumentInvalid(argument, value, "True or False")


def check_above_zero(argument: str, value: Any, *, below: float = math.inf) -> None:
    """See that a number is above 0 and below another, or left out.

    Raises:
        ArgumentInvalid: it is not.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < below):
        limit = f" and below {below:g}" if below < math.inf else ""
        raise ArgumentInvalid(argument, value, f"a number above 0{limit}")
