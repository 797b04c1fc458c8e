"""Computes metrics of the user's own from the outputs that finished runs have kept, after they were trained."""

from __future__ import annotations

import functools
import io
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ablation.code import CodeFolders
from ablation.datasets import kept_dataset
from ablation.errors import MetricTaken, OutputsNotKept
from ablation.lookup import few
from ablation.records import DataFacts, DeclaredMetric, Outcome, Plan, RecordedRun, output_file
from ablation.worker import make_metrics

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ablation.tracking import Tracker

SPARE_BYTES = 2**20
"""What a file of outputs has beside its numbers, at most."""
_NOT_KEPT = "no outputs are kept"
_NO_TARGETS = "an earlier version kept its outputs without targets, and its data is not in this state folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What was computed of finished runs: values by identity and metric, and by reason the runs that have none."""

    values: Mapping[str, Mapping[str, float]]
    missing: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, values: Mapping[str, Mapping[str, float]], missing: Mapping[str, Iterable[str]]) -> Computed:
        return cls(values=values, missing={reason: tuple(names) for reason, names in missing.items()})

    def text(self) -> str:
        """Say of how many runs, and which have none and why."""
        lacking = [f"missing of {few(names)}: {reason}" for reason, names in self.missing.items()]
        runs = len(self.values)
        return "; ".join([f"computed from the outputs that {runs} run{'s' * (runs != 1)} kept", *lacking])


def compute_metrics(
    plan: Plan,
    runs: Sequence[RecordedRun],
    metrics: Sequence[DeclaredMetric],
    *,
    tracker: Tracker,
    code: CodeFolders,
    data_cache: Path,
) -> Computed:
    """Compute what finished runs lack of the metrics from the outputs that each has kept.

    Targets that an earlier version did not keep with the outputs are those of the data set in `data_cache`.

    Raises:
        CodeInvalid: a function is not there, or raised an error, with its traceback.
        TrackingUnavailable: the store does not answer.
    """
    values: dict[str, dict[str, float]] = {}
    missing: dict[str, dict[str, None]] = {}

    sets = {data.digest: data for data in plan.data_sets}
    made = {digest: make_metrics(metrics, data.shape, code=code) for digest, data in sets.items()}

    @functools.cache
    def targets(digest: str) -> NDArray[Any] | None:
        dataset = kept_dataset(sets[digest], cache=data_cache)
        return np.array(dataset.test_labels) if dataset is not None else None

    for run in {run.planned.identity: run for run in runs if run.outcome is Outcome.DONE}.values():
        data = plan.data_of(run.planned.variant)
        lacking = [metric for metric in made[data.digest] if metric.name not in run.metrics]
        if not lacking:
            continue
        arrays = _kept(run, plan, tracker, functools.partial(targets, data.digest))
        if isinstance(arrays, str):
            missing.setdefault(arrays, {})[run.planned.name] = None
            continue
        values[run.planned.identity] = {}
        for metric in lacking:
            value = metric.function(*arrays)
            if np.isfinite(value):
                values[run.planned.identity][metric.name] = value
            else:
                missing.setdefault(f"{metric.name} is {value}", {})[run.planned.name] = None
    return Computed.of(values, missing)


def with_metrics(
    plan: Plan,
    runs: Sequence[RecordedRun],
    asked: Sequence[DeclaredMetric],
    *,
    tracker: Tracker,
    code: CodeFolders,
    data_cache: Path,
) -> tuple[Plan, tuple[RecordedRun, ...]]:
    """Return a plan and its runs with metrics that somebody asks for after the runs; the plan's deviations say so.

    Raises:
        MetricTaken: the study has a metric of that name.
        OutputsNotKept: no run has outputs to compute it from.
        CodeInvalid, TrackingUnavailable: see `compute_metrics`.
    """
    for metric in asked:
        if metric.name in plan.metrics:
            raise MetricTaken(plan.name, metric.name)
    if plan.is_own_training:
        raise OutputsNotKept(plan.name, "its training function keeps what it likes")
    found = compute_metrics(plan, runs, asked, tracker=tracker, code=code, data_cache=data_cache)
    if not found.values:
        reason = next(iter(found.missing), "none is done")
        raise OutputsNotKept(plan.name, reason)
    named = ", ".join(f"{metric.name} ({metric.function}, {metric.direction})" for metric in asked)
    said = f"asked for by this summary, after results could be seen: {named}, {found.text()}"
    declared = {**(plan.study.get("metrics") or {}), **{metric.name: metric.plain() for metric in asked}}
    changed = replace(plan, study={**plan.study, "metrics": declared}, deviations=(*plan.deviations, said))
    return changed, tuple(_with_values(run, asked, found) for run in runs)


def _with_values(run: RecordedRun, asked: Sequence[DeclaredMetric], found: Computed) -> RecordedRun:
    if run.outcome is not Outcome.DONE:
        return run
    own = found.values.get(run.planned.identity, {})
    problems = [f"no metric {metric.name}" for metric in asked if metric.name not in own]
    return replace(run, metrics={**run.metrics, **own}, problems=(*run.problems, *problems))


def _kept(
    run: RecordedRun, plan: Plan, tracker: Tracker, of_data: Callable[[], NDArray[Any] | None]
) -> tuple[NDArray[Any], NDArray[Any]] | str:
    """Return a run's outputs and targets on test, or in words why there are none."""
    file, name = output_file(plan.task)
    data = plan.data_of(run.planned.variant, run.planned.seed)
    most = _most_bytes(data)
    content, problem = tracker.run_file(str(run.run_id), file, limit=most)
    if content is None:
        return problem or _NOT_KEPT
    arrays = _arrays(content, most)
    outputs, targets = arrays.get(name), arrays.get("targets")
    if outputs is None or len(outputs) != data.test_images or outputs.dtype.kind != "f":
        return f"{file} is damaged"
    targets = of_data() if targets is None and not plan.data.fold_sizes else targets
    if targets is None:
        return _NO_TARGETS
    return (outputs, targets) if len(targets) == len(outputs) else f"{file} is damaged"


def _most_bytes(data: DataFacts) -> int:
    """Return how large the outputs and targets of a test split are at most: float32 and int64."""
    shape = data.shape
    numbers = math.prod(shape.output_shape), math.prod(shape.target_shape)
    return data.test_images * (4 * numbers[0] + 8 * numbers[1]) + SPARE_BYTES


def _arrays(content: bytes, most: int) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of a file as NumPy writes it, of numbers alone; nothing of what is no such file, or too large.

    What a tracker returns is data that somebody else may have written.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(each.file_size for each in archive.infolist()) > most:
                return {}
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return {}
