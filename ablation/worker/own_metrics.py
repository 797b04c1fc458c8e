"""Makes metrics that the engine measures of the user's functions, and of torchmetrics' classes by their names.

A function gets outputs and targets of a whole split as NumPy arrays of its own, by position: the outputs as they are
(N, …), as probabilities, or as answers in the form of the targets. A call alters nothing of the training: generators of
random numbers are put back where they were.
"""

import contextlib
import inspect
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ablation.code import CodeFolders, bound, running
from ablation.errors import CodeInvalid
from ablation.records import TASKS, TORCHMETRICS, DataShape, DeclaredMetric, Given, TaskName
from ablation.training.settings import OwnMetric

Array = NDArray[Any]
TRUTH = ("y_true", "true", "truth", "targets", "target", "labels")
"""Names of a first argument that gets the targets, as scikit-learn's functions have them: outputs come second."""
TRIED_NUMBERS = 2**24
"""Of outputs, at most, that a metric is tried with."""
LONGEST_REMARK = 200

CLASS_AXES: Mapping[TaskName, int] = {"classification": -1, "tokens": -1, "segmentation": 1}
"""Where outputs have a number for each class, of tasks whose answers are one of them."""


def make_metrics(declared: Sequence[DeclaredMetric], shape: DataShape, *, code: CodeFolders) -> tuple[OwnMetric, ...]:
    """Return metrics ready to be measured, of data of that shape.

    Raises:
        CodeInvalid: a function is not there or does not take what it is given, or torchmetrics is not there.
    """
    return tuple(_made(one, shape, code) for one in declared)


def try_metrics(
    declared: Sequence[DeclaredMetric], shape: DataShape, *, targets: Array | None, code: CodeFolders
) -> None:
    """See that metrics can be called: with targets of the test split, where there are any, and made-up outputs.

    Raises:
        CodeInvalid: one cannot, with the user's traceback.
    """
    made = make_metrics(declared, shape, code=code)
    if targets is None:
        return
    few = np.array(targets[: max(2, TRIED_NUMBERS // math.prod(shape.output_shape))])
    if shape.task == "regression":  # as some take no number below 0, nor all numbers above
        outputs = np.roll(few, 1, axis=0).astype(np.float32)
    else:
        outputs = np.random.default_rng(0).standard_normal((len(few), *shape.output_shape)).astype(np.float32)
    for metric in made:
        metric.function(outputs, few)


def _made(declared: DeclaredMetric, shape: DataShape, code: CodeFolders) -> OwnMetric:
    if declared.given == "probabilities" and not TASKS[shape.task].has_classes:
        message = f"a {shape.task} has no probabilities; give outputs or answers"
        raise CodeInvalid(message, path=f"metrics.{declared.name}.given")
    call = _of_torchmetrics(declared, shape) if declared.is_of_torchmetrics else _of_function(declared, shape, code)
    remarks: list[str] = []

    def measure(outputs: Array, targets: Array) -> float:
        given = given_of(declared.given, outputs, targets, shape.task)
        path, doing = f"metrics.{declared.name}", f"it was called with {declared.given} and targets"
        with _undisturbed(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with running(declared.function, path=path, doing=doing):
                returned = call(given, np.array(targets))
            value = _number(returned, declared)
        found = list(dict.fromkeys(" ".join(str(one.message).split()) for one in said))
        told = [f"metric {declared.name}: {text[:LONGEST_REMARK]}" for text in found[:1]]
        remarks.extend(text for text in told if text not in remarks)
        return math.nan if any(_is_meaningless(text) for text in found) else value

    return OwnMetric(name=declared.name, function=measure, is_of_epochs=declared.is_of_epochs, remarks=remarks)


def _is_meaningless(warning: str) -> bool:
    """Whether torchmetrics says of what it returns, 0 for example, that it has no meaning: AUROC of one class."""
    return "should be meaningless" in warning


def _of_function(declared: DeclaredMetric, shape: DataShape, code: CodeFolders) -> Callable[[Array, Array], Any]:
    path = f"metrics.{declared.name}"
    function: Callable[..., Any] = code.load(declared.function, path=f"{path}.function")
    if isinstance(function, type):
        message = f"{declared.function} is a class; name a function, or a class of torchmetrics as '{TORCHMETRICS}NAME'"
        raise CodeInvalid(message, path=f"{path}.function")
    offered = {"classes": shape.classes, "ignore_index": shape.ignore_index}
    keywords = bound(function, declared.arguments, offered=offered, section=path, positions=("outputs", "targets"))
    if _takes_truth_first(function):
        return lambda given, targets: function(targets, given, **keywords)
    return lambda given, targets: function(given, targets, **keywords)


def _takes_truth_first(function: Callable[..., Any]) -> bool:
    try:
        return next(iter(inspect.signature(function).parameters), "") in TRUTH
    except (TypeError, ValueError):  # it is not written in Python
        return False


def _of_torchmetrics(declared: DeclaredMetric, shape: DataShape) -> Callable[[Array, Array], Any]:
    from ablation.worker.torch_metrics import metric_of

    return metric_of(declared, shape)


def given_of(given: Given, outputs: Array, targets: Array, task: TaskName) -> Array:
    """Return a split's outputs in the form that a metric is given them in, as an array of its own."""
    return GIVEN[given](outputs, targets, task)


def _outputs(outputs: Array, targets: Array, task: TaskName) -> Array:
    # A column of predictions and a row of targets would give a table of errors.
    return np.array(outputs.reshape(targets.shape) if task == "regression" else outputs)


def _probabilities(outputs: Array, _: Array, task: TaskName) -> Array:
    logits = torch.tensor(outputs)
    found: Array = (logits.softmax(CLASS_AXES[task]) if task in CLASS_AXES else logits.sigmoid()).numpy()
    return found


def _answers(outputs: Array, targets: Array, task: TaskName) -> Array:
    if task == "regression":
        return _outputs(outputs, targets, task)
    found: Array = outputs.argmax(CLASS_AXES[task]) if task in CLASS_AXES else (outputs > 0).astype(np.int64)
    return found


GIVEN: Mapping[Given, Callable[[Array, Array, TaskName], Array]] = {
    "outputs": _outputs,
    "probabilities": _probabilities,
    "answers": _answers,
}


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put the generators of random numbers back: what is measured must not alter what is trained next."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=()), torch.no_grad():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _number(value: Any, declared: DeclaredMetric) -> float:
    """Return what a metric returned as a number.

    Raises:
        CodeInvalid: it is none, or several.
    """
    found = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
    if isinstance(found, np.ndarray) and found.size == 1:
        found = found.reshape(()).item()
    if isinstance(found, bool | int | float | np.bool_ | np.integer | np.floating):
        return float(found)
    what = f"an array of shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
    message = f"{declared.function} returned {what}, and a metric is one number"
    raise CodeInvalid(message, path=f"metrics.{declared.name}")
