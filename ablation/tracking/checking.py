"""Judges the record of a finished run: what of it counts, and in words what is missing or damaged."""

import math
import sys
from collections.abc import Mapping, Sequence

from ablation.provenance import LIBRARIES
from ablation.records import (
    DETAILS,
    EVALUATION_FILE,
    TASKS,
    DataFacts,
    Plan,
    RunEvaluation,
    TaskName,
)

LARGEST = 1e300
"""Of a number that is compared: sums and intervals of larger ones would be infinite."""

Problems = tuple[str, ...]
NO_PROBLEMS: Problems = ()


def too_large(name: str, limit: int) -> tuple[None, str]:
    """Return nothing in the place of a file that has more bytes than it can have, and say so."""
    return None, f"{name} is damaged: it is larger than {limit / 2**20:.0f} MiB"


def is_number(value: float) -> bool:
    """Say whether a recorded value is a number, and one whose sums are; MLflow keeps an infinite one as the largest."""
    return math.isfinite(value) and abs(value) <= LARGEST


def checked_metrics(metrics: Mapping[str, float], expected: Sequence[str]) -> tuple[dict[str, float], Problems]:
    """Return the metrics that are numbers, and which are not, or are expected and missing."""
    numbers = {name: value for name, value in metrics.items() if is_number(value)}
    return numbers, (
        *(f"metric {name} is {_what(metrics[name])}" for name in sorted(metrics.keys() - numbers.keys())),
        *(f"no metric {name}" for name in expected if name not in metrics),
    )


def _what(value: float) -> str:
    is_large = math.isfinite(value) and abs(value) < sys.float_info.max
    return f"beyond ±{LARGEST:g}, too large to be averaged" if is_large else "not a number"


def library_versions(provenance: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of libraries, of Python and of this package, by name, that a run's provenance tells."""
    versions = {name: provenance.get(f"{name}_version") for name in ("python", *LIBRARIES)}
    versions["ablation"] = provenance.get("version")
    for package in provenance.get("code_packages", "").split(", "):
        name, _, version = package.partition(" ")
        versions.setdefault(name, version or None)
    return {name: version for name, version in versions.items() if version}


def curve_names(heldout_split: str, task: TaskName) -> tuple[str, ...]:
    """Return the curves that every finished run of the engine has; those of further scores may be missing."""
    measured = ("loss", TASKS[task].score)
    splits = ("train", "train_sample", heldout_split)
    return (*(f"{split}_{name}" for split in splits for name in measured), "epoch_seconds")


def own_curve_names(plan: Plan) -> tuple[str, ...]:
    """Return the curves of metrics of the user's own; a run may lack them, or values of some epochs."""
    return tuple(f"{plan.heldout_split}_{metric.name}" for metric in plan.own_metrics if metric.is_of_epochs)


def missing_curves(curves: Mapping[str, Sequence[object]], heldout_split: str, task: TaskName) -> Problems:
    return tuple(f"no curve of {name}" for name in curve_names(heldout_split, task) if not curves.get(name))


def checked_evaluation(text: str | None, data: DataFacts) -> tuple[RunEvaluation, Problems]:
    """Return what EVALUATION_FILE holds that fits the data set, and what of it does not; None where it is missing."""
    if text is None:
        return RunEvaluation(confusion={}, test_correct=""), (f"{EVALUATION_FILE} is missing",)
    try:
        found = RunEvaluation.from_json(text)
    except ValueError:
        return RunEvaluation(confusion={}, test_correct=""), (f"{EVALUATION_FILE} is damaged",)
    task = TASKS[data.shape.task]
    sizes = {"train": data.train_images, "test": data.test_images} if task.has_confusion else {}
    positions = math.prod(data.shape.target_shape)  # 1 of a target that is one number
    confusion = {
        split: found.confusion[split]
        for split, size in sizes.items()
        if _fits(found.confusion.get(split, ()), classes=len(data.shape.classes), most=size * positions)
    }
    lengths = {name: len(items(data.shape)) for name, items in DETAILS[data.shape.task].items()}
    details = {name: found.details[name] for name, size in lengths.items() if len(found.details.get(name, ())) == size}
    is_whole = task.has_one_answer and len(found.test_correct) == data.test_images
    share = found.constant_share if not task.has_confusion and 0 <= (found.constant_share or 0) <= 1 else None
    problems = [
        f"{EVALUATION_FILE} has no confusion matrix of the {split} split" for split in sizes if split not in confusion
    ]
    if task.has_one_answer and not is_whole:
        problems.append(f"{EVALUATION_FILE} lacks an answer for some of the {data.test_images} test images")
    if not task.has_confusion and share is None:
        problems.append(f"{EVALUATION_FILE} does not say which share of the test answers is the commonest one")
    problems += [f"{EVALUATION_FILE} lacks {name} of the test split" for name in lengths if name not in details]
    kept = found.test_correct if is_whole else ""
    return RunEvaluation(confusion=confusion, test_correct=kept, constant_share=share, details=details), tuple(problems)


def _fits(rows: tuple[tuple[int, ...], ...], *, classes: int, most: int) -> bool:
    """Say whether square counts are of so many classes, and of no more examples or pixels than there are."""
    counts = [count for row in rows for count in row]
    return len(rows) == classes > 0 and min(counts) >= 0 and sum(counts) <= most
