"""Turns what a user's function returned into the four arrays and the class names, or says all that is wrong with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.datasets.arrays import FEATURES, IMAGES, LABELS, SPLITS, array_problems
from ablation.errors import DataInvalid
from ablation.stopping import stopping

FORM = "return {'train': (inputs, labels), 'test': (inputs, labels)}, with 'classes': [names] where they have names"


def read_arrays(loaded: object, *, source: str) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return arrays by name and the class names.

    Inputs become uint8 (N, H, W, C) images or float32 (N, …) features, labels int64 (N,).

    Raises:
        DataInvalid: with every problem that can be seen at once.
    """
    problem = _problem_of_form(loaded)
    if problem is not None or not isinstance(loaded, Mapping):
        raise DataInvalid(source, [f"{problem}; {FORM}"])
    problems: list[str] = []
    inputs, labels = {}, {}
    for split in SPLITS:
        try:
            inputs[f"{split}_images"] = _inputs(loaded[split][0])
        except ValueError as error:
            problems.append(f"{split} inputs {error}")
        try:
            labels[split] = _labels(loaded[split][1])
        except ValueError as error:
            problems.append(f"{split} labels {error}")
    if problems:
        raise DataInvalid(source, problems)
    try:
        numbers, classes = _numbered(labels, _class_names(loaded.get("classes")))
    except ValueError as error:
        raise DataInvalid(source, [str(error)]) from None
    arrays = {**inputs, **{f"{split}_labels": array for split, array in numbers.items()}}
    problems = array_problems(arrays, classes)
    if problems:
        raise DataInvalid(source, problems)
    return arrays, classes


def _problem_of_form(loaded: object) -> str | None:
    if not isinstance(loaded, Mapping):
        return f"it returned {type(loaded).__name__}"
    unknown = [str(key) for key in loaded if key not in (*SPLITS, "classes")]
    missing = [split for split in SPLITS if split not in loaded]
    if unknown or missing:
        return f"it returned the keys {', '.join(map(str, loaded)) or '(none)'}"
    for split in SPLITS:
        if not isinstance(loaded[split], tuple | list) or len(loaded[split]) != 2:
            return f"its {split} is {type(loaded[split]).__name__}, not a pair (inputs, labels)"
    return None


def _inputs(value: object) -> NDArray[Any]:
    array = _array(value)
    if array.ndim and len(array) == 0:
        raise ValueError("are empty")
    if array.dtype == IMAGES:
        return _images(array)
    if array.dtype.kind != "f":
        raise ValueError(f"are {array.dtype} {array.shape}; give uint8 for images, 0..255, or floats for features")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"are {array.dtype} {array.shape}, not (N, features…)")
    with np.errstate(over="ignore"):  # what overflows is counted as infinite
        return np.ascontiguousarray(array, dtype=FEATURES)


def _images(array: NDArray[Any]) -> NDArray[Any]:
    shaped = array[..., np.newaxis] if array.ndim == 3 else array
    if shaped.ndim == 4 and shaped.shape[3] in (1, 3) and 0 not in shaped.shape:
        return np.ascontiguousarray(shaped)
    is_channels_first = array.ndim == 4 and array.shape[1] in (1, 3)
    hint = "move the channels last" if is_channels_first else "give floats for features"
    raise ValueError(f"are uint8 {array.shape}; images are (N, height, width) or (N, height, width, 1 or 3); {hint}")


def _labels(value: object) -> NDArray[Any]:
    """Return labels (N,) of an integer type, or of objects that are texts."""
    array = _array(value, texts=True)
    if array.ndim and len(array) == 0:
        raise ValueError("are empty")
    if array.dtype.kind not in "iuO":
        raise ValueError(
            f"are {array.dtype}; the built-in training is for classification: give integers 0..K-1 or class names, or "
            "train with a function of your own (`training.name`)"
        )
    if array.ndim != 1:
        raise ValueError(f"are {array.dtype} {array.shape}; give one per input, (N,)")
    return array


def _array(value: object, *, texts: bool = False) -> NDArray[Any]:
    """Return a numpy array; of objects only where `texts` are asked for and these are nothing else."""
    try:
        array = np.asarray(_off_device(value))
    except BaseException as error:
        if stopping.is_interruption(error):
            raise
        raise ValueError(f"cannot be made an array: {error}") from None
    if array.dtype.kind in "UT":
        array = array.astype(object)
    if array.dtype.kind == "O" and not (texts and all(isinstance(one, str) for one in array.flat)):
        kinds = sorted({type(one).__name__ for one in array.flat})[:3]
        raise ValueError(f"are {array.shape} of {', '.join(kinds)}, not numbers" + (" or class names" if texts else ""))
    return array


def _off_device(value: Any) -> Any:
    """Return a torch tensor, wherever it is and whatever its type, as one that numpy reads."""
    if not (hasattr(value, "detach") and hasattr(value, "is_floating_point")):
        return value
    tensor = value.detach().cpu()
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()


def _class_names(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(names, list | tuple) or not all(isinstance(name, str | int) for name in names):
        raise ValueError(f"its classes are {type(given).__name__}, not a list of names")
    texts = tuple(map(str, names))
    twice = sorted({name for name in texts if texts.count(name) > 1})
    if twice:
        raise ValueError(f"its classes have {twice[0]!r} twice")
    return texts


def _numbered(
    labels: Mapping[str, NDArray[Any]], given: tuple[str, ...] | None
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return labels as numbers of classes; class names that are not given are sorted, or numbers themselves."""
    are_texts = {array.dtype.kind == "O" for array in labels.values()}
    if len(are_texts) > 1:
        raise ValueError("the labels of one split are numbers and those of the other class names")
    if are_texts == {False}:
        classes = given or tuple(map(str, range(_class_count(labels))))
        _check_range(labels, len(classes))
        return {split: array.astype(LABELS) for split, array in labels.items()}, classes
    classes = given or tuple(sorted({str(name) for array in labels.values() for name in array}))
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = sorted({str(name) for array in labels.values() for name in array} - set(classes))
    if unknown:
        raise ValueError(f"its labels have {unknown[0]!r}, which is not among its classes: {', '.join(classes[:5])}")
    return {
        split: np.asarray([numbers[str(name)] for name in array], dtype=LABELS) for split, array in labels.items()
    }, classes


def _class_count(labels: Mapping[str, NDArray[Any]]) -> int:
    """Return how many classes the labels number; each needs an image to train on, so not more than there are."""
    highest, count = max(int(array.max()) for array in labels.values()), len(labels["train"])
    if highest >= count:
        raise ValueError(f"its labels go up to {highest}, with {count} training inputs; number the classes 0..K-1")
    return highest + 1


def _check_range(labels: Mapping[str, NDArray[Any]], classes: int) -> None:
    for split, array in labels.items():
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= classes:
            raise ValueError(f"{split} labels are {low}..{high}, not within 0..{classes - 1}")
