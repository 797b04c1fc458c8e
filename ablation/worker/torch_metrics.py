"""Calls classes of torchmetrics by their names: made anew for each split, with what the data says of their arguments.

It is the one place that imports torchmetrics, and is imported only where a study names a class of it.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ablation.code import bound, running
from ablation.errors import CodeInvalid
from ablation.lookup import did_you_mean
from ablation.records import TORCHMETRICS, DataShape, DeclaredMetric, TaskName

DOMAINS = ("classification", "regression", "segmentation", "text", "clustering", "nominal", "retrieval", "image")
"""Modules that a class is looked for in, after torchmetrics itself."""
TASKS_THERE: Mapping[TaskName, str] = {
    "classification": "multiclass",
    "tokens": "multiclass",
    "segmentation": "multiclass",
    "multilabel": "multilabel",
}
"""What torchmetrics calls a task, where it has a word for it."""


def metric_of(declared: DeclaredMetric, shape: DataShape) -> Callable[[NDArray[Any], NDArray[Any]], Any]:
    """Return what measures by a class of torchmetrics; it is made once here, so that wrong arguments are found.

    Raises:
        CodeInvalid: torchmetrics is not installed, has no such class, or that does not take what it is given.
    """
    path = f"metrics.{declared.name}"
    kind = _class(declared.function.removeprefix(TORCHMETRICS), path=f"{path}.function")
    arguments = bound(kind, declared.arguments, offered=_offered(shape), section=path)
    is_binary = _is_binary(kind, arguments)
    if is_binary and shape.task == "classification" and len(shape.classes) != 2:
        message = f"{declared.function} is for two classes, and the data has {len(shape.classes)}; see Multiclass…"
        raise CodeInvalid(message, path=f"{path}.function")
    with running(declared.function, path=path, doing="it was made"):
        _new(kind, arguments)

    def measure(given: NDArray[Any], targets: NDArray[Any]) -> Any:
        metric = _new(kind, arguments)
        metric.update(_predictions(given, kind, declared, shape, is_binary=is_binary), _targets(targets, shape.task))
        return metric.compute()

    return measure


def _new(kind: type[Any], arguments: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():  # that it keeps a whole split, as is wished
        warnings.simplefilter("ignore")
        return kind(**arguments)


def _offered(shape: DataShape) -> dict[str, Any]:
    """Return what is filled in from the data where a class takes it and the study file does not say it."""
    kind, count = TASKS_THERE.get(shape.task), len(shape.classes)
    counted = {"num_labels" if kind == "multilabel" else "num_classes": count} if kind is not None else {}
    ignored = {"ignore_index": shape.ignore_index} if shape.task in ("tokens", "segmentation") else {}
    return {**({"task": kind} if kind is not None else {}), **counted, **ignored}


def _is_binary(kind: type[Any], arguments: Mapping[str, Any]) -> bool:
    return kind.__name__.startswith("Binary") or arguments.get("task") == "binary"


def _predictions(
    given: NDArray[Any], kind: type[Any], declared: DeclaredMetric, shape: DataShape, *, is_binary: bool
) -> torch.Tensor:
    """Return what is given in torchmetrics' form: classes at axis 1, and of two classes the second one's number."""
    found = torch.from_numpy(np.ascontiguousarray(given))
    if declared.given == "answers":
        return found
    if shape.task == "tokens" and not kind.__module__.startswith("torchmetrics.text"):  # there they stay last
        found = found.movedim(-1, 1)
    if is_binary and shape.task == "classification":
        return found[:, 1] - found[:, 0] if declared.given == "outputs" else found[:, 1]
    return found


def _targets(targets: NDArray[Any], task: TaskName) -> torch.Tensor:
    found = torch.from_numpy(np.ascontiguousarray(targets))
    return found if task == "regression" else found.long()


def _class(name: str, *, path: str) -> type[Any]:
    try:
        import torchmetrics
    except ImportError:
        message = f"{TORCHMETRICS}{name} needs torchmetrics, which is not installed here: `pip install torchmetrics`"
        raise CodeInvalid(message, path=path) from None
    within, _, last = name.rpartition(".")
    known: dict[str, None] = {}
    for module in _modules(torchmetrics, within):
        found = getattr(module, last, None)
        if isinstance(found, type) and issubclass(found, torchmetrics.Metric):
            return found
        known |= dict.fromkeys(each for each in dir(module) if each[:1].isupper())
    hint = did_you_mean(last, known) or "; see the list of its metrics in its documentation"
    raise CodeInvalid(f"torchmetrics {torchmetrics.__version__} has no metric {name!r}{hint}", path=path)


def _modules(torchmetrics: ModuleType, within: str) -> Iterator[ModuleType]:
    """Yield the modules that may have a class: the one that its name says, or all of them."""
    if not within:
        yield torchmetrics
    for domain in (domain for domain in DOMAINS if within in ("", domain)):
        try:
            yield importlib.import_module(f"torchmetrics.{domain}")
        except ImportError:  # it needs a package that is not installed, or is none
            continue
