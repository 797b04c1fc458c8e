"""What the targets of each task must be, how they are kept, and what is to be known of them: one row per task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.lookup import few
from ablation.records import TASKS, TaskName

Array = NDArray[Any]
ROWS_BYTES = 1 << 24
MOST_VALUE = 2**31 - 1
"""Whole numbers other than classes are kept in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a task's targets are kept.

    `fits` says whether what was given is of the task's form, whatever its values; `is_meant` whether nothing but this
    task is likely to be meant by it. `problems` are what is wrong with targets that are kept, `notes` what is to be
    known of them: both get the split, the targets, names of classes and the ignore index.
    """

    word: str
    dtype: np.dtype[Any]
    fits: Callable[[Array], bool]
    is_meant: Callable[[Array], bool]
    problems: Callable[[str, Array, Sequence[str], int], list[str]]
    notes: Callable[[str, Array, Sequence[str], int], list[str]]
    share: Callable[[Array, int], float]


def rows_of(array: Array) -> Iterator[Array]:
    """Yield an array part by part, each of some megabytes at most or of one row."""
    rows = max(1, ROWS_BYTES // max(1, array[:1].nbytes)) if len(array) else 1
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def counts_of(targets: Array, classes: int, ignore_index: int | None = None) -> NDArray[np.int64]:
    """Return how many targets each class has, those of the ignore index left out."""
    counts = np.zeros(classes, dtype=np.int64)
    for part in rows_of(targets):
        counts += np.bincount(counted(part, ignore_index).astype(np.int64), minlength=classes)
    return counts


def counted(targets: Array, ignore_index: int | None) -> Array:
    """Return the targets that count for something, flat."""
    flat = np.asarray(targets).reshape(-1)
    return flat if ignore_index is None else flat[flat != ignore_index]


def range_of(targets: Array, ignore_index: int | None = None) -> tuple[int, int] | None:
    """Return the lowest and the highest of whole numbers that count, None where none does."""
    parts = [part for rows in rows_of(targets) if (part := counted(rows, ignore_index)).size]
    if not parts:
        return None
    return min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)


def wrong_form(array: Array, task: TaskName) -> str | None:
    """Say what was given, what the task takes, and which other task takes it; None where it is of the task's form."""
    if FORMS[task].fits(array):
        return None
    other = next((name for name, form in FORMS.items() if name != task and form.is_meant(array)), None)
    hint = f"; for these set `data.task: {other}`" if other is not None else ""
    return f"are {kind_of(array)}; {task} takes {TASKS[task].targets}{_whole(array, task)}{hint}{_one_hot(array, task)}"


def kind_of(array: Array) -> str:
    """Return an array's type and shape in words."""
    return f"{'text' if array.dtype.kind == 'O' else array.dtype} {array.shape}"


def _whole(array: Array, task: TaskName) -> str:
    """Say how whole numbers that are floats are given to a task that takes integers."""
    is_float = array.dtype.kind == "f" and FORMS[task].fits(np.zeros(array.shape, dtype=np.int64))
    are_whole = is_float and bool(np.isfinite(array).all() and (array == np.rint(array)).all())
    return " (make them integers, `astype(int)`, where they are numbers of classes)" if are_whole else ""


def _one_hot(array: Array, task: TaskName) -> str:
    is_one_hot = task == "classification" and _is_binary(array) and bool((array.sum(1) == 1).all())
    return ", or give the place of each row's 1, `argmax(1)`" if is_one_hot else ""


def _is_whole(array: Array, dimensions: int) -> bool:
    return array.dtype.kind in "iu" and array.ndim == dimensions


def _is_binary(array: Array) -> bool:
    """Whether it is (N, K) of nothing but 0 and 1, of whatever type."""
    if array.ndim != 2 or array.dtype.kind not in "biuf" or 0 in array.shape:
        return False
    return array.dtype.kind == "b" or all(bool(((part == 0) | (part == 1)).all()) for part in rows_of(array))


def _are_numbers(array: Array) -> bool:
    return array.dtype.kind in "iuf" and array.ndim in (1, 2) and 0 not in array.shape


def _problems_of_classes(split: str, targets: Array, classes: Sequence[str], _: int) -> list[str]:
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(classes):
        return [f"{split} labels are {low}..{high}, not within 0..{len(classes) - 1}"]
    return []


def _problems_of_numbers(split: str, targets: Array, _: Sequence[str], __: int) -> list[str]:
    wrong = sum(int((~np.isfinite(part)).sum()) for part in rows_of(targets))
    if wrong:
        return [f"{split} targets have {wrong} values that are NaN or infinite as float32"]
    if split == "test":
        return []
    return [f"{which} {split}: there is nothing to learn" for which in _constant_targets(targets)]


def _problems_of_labels(split: str, targets: Array, classes: Sequence[str], _: int) -> list[str]:
    if targets.shape[1] != len(classes):
        return [f"{split} targets are {targets.shape}, and its classes name {len(classes)} labels"]
    return [f"{split} targets are up to {targets.max()}, not 0 or 1"] if targets.max() > 1 else []


def _problems_of_positions(split: str, targets: Array, classes: Sequence[str], ignore_index: int) -> list[str]:
    found = range_of(targets, ignore_index)
    if found is None:
        return [f"all {split} targets are the ignore index, {ignore_index}; nothing is left to train on or to measure"]
    low, high = found
    if low >= 0 and high < len(classes):
        return []
    odd = low if low < 0 else high
    return [
        f"{split} targets are {low}..{high}, not within 0..{len(classes) - 1}; where {odd} counts for nothing, set "
        f"`data.ignore_index: {odd}`"
    ]


def _notes_of_classes(split: str, targets: Array, classes: Sequence[str], _: int) -> list[str]:
    counts = counts_of(targets, len(classes))
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1] if split == "train" else []
    verb = "has" if len(single) == 1 else "have"
    alone = [f"{_named('class', single)} {verb} 1 example in {split}, which is never held out"] if single else []
    return [*_absent(split, counts, classes), *alone]


def _notes_of_numbers(split: str, targets: Array, _: Sequence[str], __: int) -> list[str]:
    return [f"{which} {split}: R² is undefined there" for which in _constant_targets(targets) if split == "test"]


def _notes_of_labels(split: str, targets: Array, classes: Sequence[str], _: int) -> list[str]:
    there = sum(part.sum(0, dtype=np.int64) for part in rows_of(targets))
    never, always = (
        [name for name, count in zip(classes, np.atleast_1d(there), strict=True) if count == wanted]
        for wanted in (0, len(targets))
    )
    return [
        *([f"{_named('label', never)} {_has(never)} no positives in {split}"] if never else []),
        *([f"{_named('label', always)} {_has(always)} no negatives in {split}"] if always else []),
    ]


def _notes_of_positions(split: str, targets: Array, classes: Sequence[str], ignore_index: int) -> list[str]:
    counts = counts_of(targets, len(classes), ignore_index)
    if 0 <= ignore_index < len(classes):
        counts[ignore_index] = 1  # it is a class that is not to be counted
    return _absent(split, counts, classes)


def _absent(split: str, counts: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    return [f"{_named('class', absent)} {_has(absent)} no examples in {split}"] if absent else []


def _named(what: str, names: Sequence[str]) -> str:
    plural = {"class": "classes", "label": "labels"}[what]
    return f"{what if len(names) == 1 else plural} {few([repr(name) for name in names])}"


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _constant_targets(targets: Array) -> list[str]:
    """Say which of an example's targets have one value throughout."""
    if len(targets) < 2:
        return []
    columns = targets.reshape(len(targets), -1)
    constant = np.flatnonzero((columns == columns[:1]).all(0))
    if not len(constant):
        return []
    if columns.shape[1] == 1:
        return [f"the target is {columns[0, 0]:g} in all of"]
    names = few([str(place) for place in constant])
    what = f"target {names}" if len(constant) == 1 else f"targets {names}"
    return [f"{what} of 0..{columns.shape[1] - 1} {'is' if len(constant) == 1 else 'are'} constant in all of"]


def _share_of_classes(targets: Array, _: int) -> float:
    return float(np.bincount(targets).max() / len(targets))


def _share_of_positions(targets: Array, ignore_index: int) -> float:
    found = range_of(targets, ignore_index)
    if found is None:
        return 0.0
    counts = counts_of(targets, found[1] + 1, ignore_index)
    return float(counts.max() / counts.sum())


def _no_share(_: Array, __: int) -> float:
    return 0.0


FORMS: Mapping[TaskName, Form] = {
    "multilabel": Form(
        word="targets",
        dtype=np.dtype("uint8"),
        fits=_is_binary,
        is_meant=_is_binary,
        problems=_problems_of_labels,
        notes=_notes_of_labels,
        share=_no_share,
    ),
    "classification": Form(
        word="labels",
        dtype=np.dtype("<i8"),
        fits=lambda array: array.dtype.kind in "iuO" and array.ndim == 1,
        is_meant=lambda array: array.dtype.kind in "iuO" and array.ndim == 1,
        problems=_problems_of_classes,
        notes=_notes_of_classes,
        share=_share_of_classes,
    ),
    "tokens": Form(
        word="targets",
        dtype=np.dtype("<i4"),
        fits=lambda array: _is_whole(array, 2),
        is_meant=lambda array: _is_whole(array, 2),
        problems=_problems_of_positions,
        notes=_notes_of_positions,
        share=_share_of_positions,
    ),
    "segmentation": Form(
        word="targets",
        dtype=np.dtype("<i4"),
        fits=lambda array: _is_whole(array, 3),
        is_meant=lambda array: _is_whole(array, 3),
        problems=_problems_of_positions,
        notes=_notes_of_positions,
        share=_share_of_positions,
    ),
    "regression": Form(
        word="targets",
        dtype=np.dtype("<f4"),
        fits=_are_numbers,
        is_meant=lambda array: _are_numbers(array) and array.dtype.kind == "f",
        problems=_problems_of_numbers,
        notes=_notes_of_numbers,
        share=_no_share,
    ),
}
"""One row per task, in the order in which what was given is looked up where it does not fit the task."""


def positions_problem(task: TaskName, inputs: Array, targets: Array) -> str | None:
    """Say where an example's targets are not one for each of its positions; None where they are, or have none."""
    if task == "tokens" and inputs.shape[1] != targets.shape[1]:
        return f"inputs are sequences of {inputs.shape[1]}, targets of {targets.shape[1]}; give one for each position"
    if task == "segmentation":
        size = inputs.shape[1:3] if inputs.dtype == np.uint8 else inputs.shape[2:]
        if size != targets.shape[1:]:
            return f"inputs have pixels of {size}, targets of {targets.shape[1:]}; give one for each pixel"
    return None


def inputs_problem(task: TaskName, inputs: Array) -> str | None:
    """Say why a task takes no such inputs, which are as they are kept; None where it does."""
    if task == "tokens" and inputs.dtype == np.uint8:
        return (
            "are images; tokens takes sequences: whole numbers (N, T), or floats (N, T, F). Cut an image into its "
            "parts yourself, or set the task of its targets in `data.task`"
        )
    if task == "segmentation" and inputs.dtype != np.uint8 and (inputs.dtype.kind != "f" or inputs.ndim != 4):
        return (
            f"are {inputs.dtype} {inputs.shape}; segmentation takes images, uint8 (N, H, W) or (N, H, W, 1 or 3), or "
            "floats (N, C, H, W)"
        )
    return None
