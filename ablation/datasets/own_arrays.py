"""Turns what a user's function returned into the four arrays and the class names, or says all that is wrong with it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.datasets.arrays import FEATURES, GROUPS, IDS, IMAGES, SPLITS, array_problems
from ablation.datasets.splits import NOT_DIVIDED, WAYS_OUT, Division, drawn_test, members_of_classes
from ablation.datasets.targets import FORMS, MOST_VALUE, inputs_problem, range_of, wrong_form
from ablation.errors import DataInvalid
from ablation.records import IGNORED, TASKS, TaskName
from ablation.stopping import stopping

Targets = Mapping[str, NDArray[Any]]
Classes = tuple[str, ...]


def read_arrays(
    loaded: object,
    *,
    source: str,
    task: TaskName = "classification",
    ignore_index: int = IGNORED,
    division: Division = NOT_DIVIDED,
) -> tuple[dict[str, NDArray[Any]], Classes]:
    """Return arrays by name and the class names; of data without a test split, divided as is asked for.

    Inputs become uint8 (N, H, W, C) images, float32 (N, …) features or int32 (N, …) whole numbers, targets what the
    task keeps.

    Raises:
        DataInvalid: with every problem that can be seen at once.
    """
    word = FORMS[task].word
    problem = _problem_of_form(loaded, word)
    if problem is not None or not isinstance(loaded, Mapping):
        raise DataInvalid(source, [f"{problem}; {_form(task, division)}"])
    _check_division(loaded, division, source)
    splits = [split for split in SPLITS if split in loaded]
    problems: list[str] = []
    inputs, targets = {}, {}
    for split in splits:
        try:
            inputs[f"{split}_images"] = _inputs(loaded[split][0], task)
        except ValueError as error:
            problems.append(f"{split} inputs {error}")
        try:
            targets[split] = _targets(loaded[split][1], task)
        except ValueError as error:
            problems.append(f"{split} {word} {error}")
    if problems:
        raise DataInvalid(source, problems)
    try:
        kept, classes = KEPT[task](targets, _class_names(loaded.get("classes")), ignore_index)
    except ValueError as error:
        raise DataInvalid(source, [str(error)]) from None
    arrays = {**inputs, **{f"{split}_labels": array for split, array in kept.items()}}
    if division.is_wanted:
        arrays |= {f"test_{what}": arrays[f"train_{what}"][:0] for what in ("images", "labels")}
    problems = array_problems(
        arrays, classes, task=task, ignore_index=ignore_index, is_undivided=division.is_wanted
    ) or _problems_of_groups(loaded, len(arrays["train_labels"]))
    if problems:
        raise DataInvalid(source, problems)
    if "groups" in loaded:
        _, arrays[GROUPS] = np.unique(np.asarray(loaded["groups"]), return_inverse=True)
    return _divided(arrays, classes, task, division, source) if division.test is not None else arrays, classes


def _divided(
    arrays: dict[str, NDArray[Any]], classes: Classes, task: TaskName, division: Division, source: str
) -> dict[str, NDArray[Any]]:
    """Return arrays of training examples with a share of these as test split."""
    assert division.test is not None
    labels, groups = arrays["train_labels"], arrays.get(GROUPS)
    members = members_of_classes(labels, len(classes)) if task == "classification" else [np.arange(len(labels))]
    train, test = drawn_test(members, groups, division.test, study_seed=division.study_seed, source=source)
    return {
        **{f"train_{what}": arrays[f"train_{what}"][train] for what in ("images", "labels")},
        **{f"test_{what}": arrays[f"train_{what}"][test] for what in ("images", "labels")},
        **({GROUPS: groups[train]} if groups is not None else {}),
    }


def _check_division(loaded: Mapping[Any, Any], division: Division, source: str) -> None:
    """Refuse to divide data that has a test split, and data without one that nothing divides."""
    if division.is_wanted and "test" in loaded:
        asks = f"the study asks for one to be made of train @ {division.setting}"
        raise DataInvalid(source, [f"it returned a test split, and {asks}; leave either out"])
    if not division.is_wanted and "test" not in loaded:
        raise DataInvalid(source, [f"it returned no test split; return one, or: {WAYS_OUT}"])


def _problems_of_groups(loaded: Mapping[Any, Any], count: int) -> list[str]:
    if "groups" not in loaded:
        return []
    try:
        groups = np.asarray(_off_device(loaded["groups"]))
    except BaseException as error:
        if stopping.is_interruption(error):
            raise
        return [f"its groups cannot be made an array: {error}"]
    if groups.shape == (count,) and (
        groups.dtype.kind in "iubUT" or (groups.dtype.kind == "O" and all(isinstance(one, str) for one in groups))
    ):
        return []
    return [f"its groups are {groups.dtype} {groups.shape}, not a number or a name for each of {count} training inputs"]


def _form(task: TaskName, division: Division) -> str:
    pair = f"(inputs, {FORMS[task].word})"
    names = ", with 'classes': [names] where they have names" if TASKS[task].has_classes else ""
    test = "" if division.is_wanted else f", 'test': {pair}"
    return f"return {{'train': {pair}{test}}}{names}"


def _problem_of_form(loaded: object, word: str) -> str | None:
    if not isinstance(loaded, Mapping):
        return f"it returned {type(loaded).__name__}"
    unknown = [str(key) for key in loaded if key not in (*SPLITS, "classes", "groups")]
    if unknown or "train" not in loaded:
        return f"it returned the keys {', '.join(map(str, loaded)) or '(none)'}"
    for split in SPLITS:
        if split in loaded and not _is_pair(loaded[split]):
            return f"its {split} is {type(loaded[split]).__name__}, not a pair (inputs, {word})"
    return None


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _inputs(value: object, task: TaskName) -> NDArray[Any]:
    array = _array(value)
    if array.ndim and len(array) == 0:
        raise ValueError("are empty")
    kept = _kept_inputs(array)
    problem = inputs_problem(task, kept)
    if problem is not None:
        raise ValueError(problem)
    return kept


def _kept_inputs(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == IMAGES and array.ndim != 2:
        return _images(array)
    if array.dtype.kind in "iu" and not _is_like_images(array):
        return _ids(array)
    if array.dtype.kind != "f":
        wanted = "give uint8 for images, 0..255, floats for features, or whole numbers for ids"
        raise ValueError(f"are {array.dtype} {array.shape}; {wanted}")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"are {array.dtype} {array.shape}, not (N, features…)")
    with np.errstate(over="ignore"):  # what overflows is counted as infinite
        return np.ascontiguousarray(array, dtype=FEATURES)


def _is_like_images(array: NDArray[Any]) -> bool:
    """Whether whole numbers have the shape of images with channels, which nothing but images is likely to have."""
    return array.ndim == 4 and (array.shape[3] in (1, 3) or array.shape[1] in (1, 3))


def _ids(array: NDArray[Any]) -> NDArray[np.int32]:
    """Return whole numbers (N, …) that stand for something, as tokens of a vocabulary do."""
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"are {array.dtype} {array.shape}, not (N, …): an input is several whole numbers")
    low, high = range_of(array) or (0, 0)
    if low < 0 or high >= MOST_VALUE:
        raise ValueError(f"are whole numbers {low}..{high}; ids are 0..{MOST_VALUE - 1}; give floats for features")
    return np.ascontiguousarray(array, dtype=IDS)


def _images(array: NDArray[Any]) -> NDArray[Any]:
    shaped = array[..., np.newaxis] if array.ndim == 3 else array
    if shaped.ndim == 4 and shaped.shape[3] in (1, 3) and 0 not in shaped.shape:
        return np.ascontiguousarray(shaped)
    is_channels_first = array.ndim == 4 and array.shape[1] in (1, 3)
    hint = "move the channels last" if is_channels_first else "give floats for features"
    raise ValueError(f"are uint8 {array.shape}; images are (N, height, width) or (N, height, width, 1 or 3); {hint}")


def _targets(value: object, task: TaskName) -> NDArray[Any]:
    """Return targets of the task's form, of any type that it takes."""
    array = _array(value, texts=task == "classification")
    if array.ndim and len(array) == 0:
        raise ValueError("are empty")
    problem = wrong_form(array, task)
    if problem is not None:
        raise ValueError(problem)
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


def _numbered(targets: Targets, given: Classes | None, _: int) -> tuple[dict[str, NDArray[Any]], Classes]:
    """Return labels as numbers of classes; class names that are not given are sorted, or numbers themselves."""
    are_texts = {array.dtype.kind == "O" for array in targets.values()}
    dtype = FORMS["classification"].dtype
    if len(are_texts) > 1:
        raise ValueError("the labels of one split are numbers and those of the other class names")
    if are_texts == {False}:
        classes = given or tuple(map(str, range(_class_count(targets))))
        _check_range(targets, len(classes))
        return {split: array.astype(dtype) for split, array in targets.items()}, classes
    classes = given or tuple(sorted({str(name) for array in targets.values() for name in array}))
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = sorted({str(name) for array in targets.values() for name in array} - set(classes))
    if unknown:
        raise ValueError(f"its labels have {unknown[0]!r}, which is not among its classes: {', '.join(classes[:5])}")
    return {
        split: np.asarray([numbers[str(name)] for name in array], dtype=dtype) for split, array in targets.items()
    }, classes


def _class_count(targets: Targets) -> int:
    """Return how many classes the labels number, where these are likely to be numbers of classes."""
    highest, count = max(int(array.max()) for array in targets.values()), len(targets["train"])
    if highest >= count:
        raise ValueError(f"its labels go up to {highest}, with {count} training inputs; number the classes 0..K-1")
    return highest + 1


def _check_range(targets: Targets, classes: int) -> None:
    for split, array in targets.items():
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= classes:
            raise ValueError(f"{split} labels are {low}..{high}, not within 0..{classes - 1}")


def _as_numbers(targets: Targets, given: Classes | None, _: int) -> tuple[dict[str, NDArray[Any]], Classes]:
    if given:
        raise ValueError("its targets are numbers, which have no classes: leave 'classes' out, or set `data.task`")
    with np.errstate(over="ignore"):  # what overflows is counted as infinite
        return {split: array.astype(FORMS["regression"].dtype) for split, array in targets.items()}, ()


def _as_labels(targets: Targets, given: Classes | None, _: int) -> tuple[dict[str, NDArray[Any]], Classes]:
    classes = given or tuple(map(str, range(targets["train"].shape[1])))
    return {split: array.astype(FORMS["multilabel"].dtype) for split, array in targets.items()}, classes


def _as_positions(
    targets: Targets, given: Classes | None, ignore_index: int
) -> tuple[dict[str, NDArray[Any]], Classes]:
    found = [one for array in targets.values() if (one := range_of(array, ignore_index)) is not None]
    low, high = min((low for low, _ in found), default=0), max((high for _, high in found), default=1)
    if max(-low, high) > MOST_VALUE:
        raise ValueError(f"its targets are {low}..{high}; number the classes 0..K-1")
    classes = given or tuple(map(str, range(_class_count_of_positions(targets, high, ignore_index))))
    kept = {}
    for split, array in targets.items():
        kept[split] = array.astype(FORMS["tokens"].dtype)
        kept[split][array == ignore_index] = ignore_index  # which an unsigned type holds as another number
    return kept, classes


def _class_count_of_positions(targets: Targets, highest: int, ignore_index: int) -> int:
    """Return how many classes the targets number; a number that stands alone far above the others is likely no class.

    Raises:
        ValueError: it does.
    """
    numbers = {int(one) for array in targets.values() for one in np.unique(array)} - {ignore_index}
    below = max((number for number in numbers if number < highest), default=-1)
    if highest > MOST_UNNAMED_GAP and highest - below > MOST_UNNAMED_GAP:
        raise ValueError(
            f"its targets go up to {highest}, and {below + 1}..{highest - 1} do not occur; where {highest} counts for "
            f"nothing, set `data.ignore_index: {highest}`, else name the classes in 'classes'"
        )
    return highest + 1


MOST_UNNAMED_GAP = 100
"""How many numbers of classes in a row may be without a target where classes are not named: masks often have 255 for
what counts for nothing."""
KEPT: Mapping[TaskName, Callable[[Targets, Classes | None, int], tuple[dict[str, NDArray[Any]], Classes]]] = {
    "classification": _numbered,
    "regression": _as_numbers,
    "multilabel": _as_labels,
    "tokens": _as_positions,
    "segmentation": _as_positions,
}
"""Gives targets of the task's form as they are kept, and the names of their classes."""
