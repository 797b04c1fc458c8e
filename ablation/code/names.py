"""Tells names of code from other names, and says what is wrong with their form."""

import keyword
from collections.abc import Iterable
from typing import Any

from ablation.records import NO_WEIGHTS, TORCHMETRICS, DeclaredMetric, Settings

BUILT_IN = ("torchvision:", TORCHMETRICS)
FORMS = "write 'file.py:name' or 'package.module:name'"


def is_code(name: object) -> bool:
    """Whether a value is meant as the name of code; `code_problem` says whether it is a good one."""
    if not isinstance(name, str) or name.startswith(BUILT_IN):
        return False
    return ":" in name or name.endswith(".py")


def code_names(settings: Settings) -> list[str]:
    """Return the user's own files that settings name: code of data, model, replacements, training, loss; weights."""
    sections = [section.name for section in (settings.data, settings.model) if section is not None]
    replacements = settings.model.replace.values() if settings.model is not None else ()
    weights = settings.model.weights if settings.model is not None else NO_WEIGHTS
    named = [name for name in (*sections, *_trained_by(settings), *replacements) if is_code(name)]
    return named if weights == NO_WEIGHTS else [*named, weights_name(weights)]


def weights_name(path: str) -> str:
    """Return a name for a file of weights, by which it is found, digested and carried as the files of code are."""
    return f"{path if is_file(path) else f'./{path}'}:weights"


def is_weights(name: str) -> bool:
    """Whether a name that `code_names` gives is that of a file of weights."""
    location = name.rpartition(":")[0]
    return is_file(location) and not location.endswith(".py")


def metric_code_names(metrics: Iterable[DeclaredMetric]) -> list[str]:
    """Return the code of the user's that measures metrics: it alters no run, and stands in no identity."""
    return [metric.function for metric in metrics if is_code(metric.function)]


def _trained_by(settings: Settings) -> list[Any]:
    if not settings.is_own_training:
        return [settings.engine.loss]
    # An argument `loss` that names code is code too: identities have its digest.
    return [settings.function.name, settings.function.arguments.get("loss")]


def code_problem(name: str) -> str | None:
    """Return what is wrong with the form of a name of code, in words, or None; whether it is there is not looked at."""
    location, colon, attribute = name.rpartition(":")
    if not name.isprintable():
        return f"{name!a} has characters that no name of code has; {FORMS}"
    if not colon:
        module, dot, last = name.rpartition(".")
        if dot and _is_dotted(name) and last != "py":
            return f"{name!r} has no ':' before the name of the function; write '{module}:{last}'"
        return f"{name!r} names a file and nothing in it; write '{name}:name'"
    if not location:
        return f"{name!r} names no file or module; {FORMS}"
    if not _is_dotted(attribute):
        return f"{attribute!r} in {name!r} is not a name in Python; {FORMS}"
    if is_file(location):
        return None if location.endswith(".py") else f"{location!r} is not a .py file; {FORMS}"
    return None if _is_dotted(location) else f"{location!r} is neither a .py file nor a module; {FORMS}"


def is_file(location: str) -> bool:
    """Whether the part before the colon is a path, rather than a module."""
    return location.endswith(".py") or "/" in location or "\\" in location


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split("."))
