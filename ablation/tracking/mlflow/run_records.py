"""What a run is trained with and what it measured, as parameters, metrics, tags and files of its MLflow run."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException

from ablation.errors import RecordRefused
from ablation.records import TASKS, DataFacts, Outcome, Plan, PlannedRun, RunResult, epoch_metrics
from ablation.study.level_names import NOT_VARIED
from ablation.tracking.interface import RunDescription, RunNews
from ablation.tracking.mlflow.attempts import log_batch
from ablation.tracking.mlflow.notes import NOTE, is_free, run_note
from ablation.tracking.mlflow.reading import FINAL, FIRST, OUTCOME, READ_BACK
from ablation.tracking.mlflow.store import Store

MAX_TAG = 5_000
MAX_PARAM = 6_000
MAX_KEY = 250
MAX_DATASET_NAME = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecords:
    """The records of runs in a store; see Tracker for what each method does.

    `begun` are runs that were started here and have not ended: what their notes say of them.
    """

    store: Store
    begun: dict[str, tuple[PlannedRun, Plan]] = field(default_factory=dict)

    def log(self, run_id: str, news: RunNews) -> None:
        with self.store.explained(of=run_id):
            self._log(run_id, news)

    def _log(self, run_id: str, news: RunNews, more: Sequence[Metric] = ()) -> None:
        """Record what is new, and more metrics, in one request, as each costs more than what it brings."""
        described = news.description
        params = _params(_described(described)) if described is not None else []
        self._log_batch(run_id, params, [*_metrics(news), *more])
        if described is not None:
            self.log_data(run_id, described.data)

    def log_data(self, run_id: str, *data: DataFacts) -> None:
        """Record what data a run is of; recording the same again changes nothing."""
        self.store.client.log_inputs(run_id, list(map(_dataset_input, data)))

    def finish(self, run_id: str, result: RunResult, artifacts: Path | None, news: RunNews) -> None:
        ended = result.ended_ms or time.time_ns() // 1_000_000
        tags = {
            OUTCOME: result.outcome.value,
            "ablation.failure": result.failure,
            "ablation.diverged_epoch": result.diverged_epoch,
            "ablation.diverged_step": result.diverged_step,
            "ablation.error": result.error and result.error[-MAX_TAG:],
            "ablation.path": result.path or None,
            "ablation.path_note": result.path_note or None,
            READ_BACK: "yes",
            FIRST: "yes" if result.is_first else None,
            FINAL: _final_names(result),
            "ablation.left_out": "; ".join(result.left_out)[:MAX_TAG] or None,
        }
        with self.store.explained(of=run_id):
            run = self._log_final_metrics(run_id, result, ended, news)
            if artifacts is not None:
                self.store.log_files(run, artifacts)
            if result.error is not None:
                self.store.log_file(run, "traceback.txt", result.error)
            known = {name: str(value) for name, value in tags.items() if value is not None}
            self.store.tag(run_id, {**known, **self._note(run, result)})
            status = "FAILED" if result.outcome is Outcome.FAILED else "FINISHED"
            self.store.client.set_terminated(run_id, status, end_time=ended)
            self.begun.pop(run_id, None)

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        with self.store.explained(of=run_id):
            now = time.time_ns() // 1_000_000
            run = self.log_latest(run_id, metrics, time_ms=now, steps=dict.fromkeys(metrics, 0))
            if (final := run.data.tags.get(FINAL)) is not None:
                self.store.tag(run_id, {FINAL: ",".join(sorted({*final.split(","), *metrics}))})

    def _note(self, run: Run, result: RunResult) -> dict[str, str]:
        """Return the tag that is a run's note; none where a person has written one, or the next report writes it."""
        if run.info.run_id not in self.begun or not is_free(run.data.tags.get(NOTE, "")):
            return {}
        note = run_note(
            *self.begun[run.info.run_id],
            result.outcome,
            metrics=result.metrics,
            error=result.error,
            diverged_epoch=result.diverged_epoch,
        )
        return {NOTE: note}

    def log_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Record parameters; those that are there stay, as nothing can change them, also where 0 was written as 0.0."""
        self._log_batch(run_id, _params(values), [])

    def _log_batch(self, run_id: str, params: Sequence[Param], metrics: Sequence[Metric]) -> None:
        try:
            log_batch(self.store.client, run_id, params=params, metrics=metrics)
        except MlflowException:
            if not params:
                raise
            there = self.store.client.get_run(run_id).data.params
            missing = [param for param in params if param.key not in there]
            log_batch(self.store.client, run_id, params=missing, metrics=metrics)

    def _log_final_metrics(self, run_id: str, result: RunResult, ended_ms: int, news: RunNews) -> Run:
        """Record what is new and a run's final metrics so that they are what a reader gets; return the run as read.

        They have a step after every epoch's, but for those that the last epoch with one of their name has too.
        """
        latest = {metric.key: metric.value for metric in _metrics(replace(news, told=0))}
        steps = dict.fromkeys(result.metrics, result.epochs + 1)
        new = {name: value for name, value in result.metrics.items() if latest and latest.get(name) != value}
        self._log(run_id, news, _at(new, ended_ms, steps))
        return self.log_latest(run_id, result.metrics, time_ms=ended_ms, steps=steps)

    def log_latest(self, run_id: str, metrics: Mapping[str, float], *, time_ms: int, steps: Mapping[str, int]) -> Run:
        """Record metrics so that they are what a reader gets, and see that they are; return the run as it was read.

        Those that are already stay.

        Of values of one name MLflow gives that of the largest step, then of the latest time, then the largest: so one
        that would be outdone has a step after whatever else was recorded under its name.

        Raises:
            RecordRefused: MLflow gives another value all the same.
        """
        client = self.store.client
        run = client.get_run(run_id)
        if missing := _other_than(run, metrics):  # the last epoch's may be there already
            log_batch(client, run_id, metrics=_at(missing, time_ms, steps))
            run = client.get_run(run_id)
        if outdone := _other_than(run, missing):
            later = {name: self._last_step(run_id, name) + 1 for name in outdone}
            log_batch(client, run_id, metrics=_at(outdone, time_ms, later))
            run = client.get_run(run_id)
        if wrong := _other_than(run, outdone):
            name, value = next(iter(wrong.items()))
            known = run.data.metrics.get(name)
            raise RecordRefused(run_id, f"it was told that {name} is {value!r}, and says that it is {known!r}")
        return run

    def _last_step(self, run_id: str, name: str) -> int:
        return max((entry.step for entry in self.store.client.get_metric_history(run_id, name)), default=0)


def _metrics(news: RunNews) -> list[Metric]:
    """Return what is new of a run's epochs; what is not finite, no store takes."""
    return [
        Metric(name, value, epoch.timestamp_ms, epoch.epoch)
        for epoch in news.epochs
        if epoch.epoch > news.told
        for name, value in _in_order(epoch_metrics(epoch, heldout_split=news.heldout_split), news.heldout_split).items()
        if math.isfinite(value)
    ]


def _at(metrics: Mapping[str, float], time_ms: int, steps: Mapping[str, int]) -> list[Metric]:
    return [Metric(name, value, time_ms, steps[name]) for name, value in metrics.items()]


def _other_than(run: Run, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of which MLflow has another value, or none."""
    return {name: value for name, value in metrics.items() if run.data.metrics.get(name) != value}


def _described(description: RunDescription) -> dict[str, Any]:
    known = {"seed": description.seed, **_parameters(description.configuration)}
    levels = {path: level for path, level in description.levels.items() if level != NOT_VARIED}
    named = {path: "null" if level is None else level for path, level in levels.items()}
    return {**known, **named, **description.size}


def _in_order(metrics: Mapping[str, float], heldout_split: str) -> dict[str, float]:
    """Return an epoch's metrics with those on the held-out split first: MLflow shows a run's as they came first."""
    measured = dict.fromkeys(task.score for task in TASKS.values())
    first = [f"{heldout_split}_{name}" for name in (*measured, "loss")]
    return {name: metrics[name] for name in (*first, *metrics) if name in metrics}


def _parameters(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration by dotted paths of two keys at most: what lies deeper may have keys MLflow cannot take."""
    found: dict[str, Any] = {}
    for section, values in configuration.items():
        own = values.items() if isinstance(values, Mapping) else [("", values)]
        found |= {f"{section}.{key}" if key else section: value for key, value in own if value is not None}
    return found


def _params(values: Mapping[str, Any]) -> list[Param]:
    texts = {key: json.dumps(value) if isinstance(value, Mapping) else str(value) for key, value in values.items()}
    return [Param(key[:MAX_KEY], text[:MAX_PARAM]) for key, text in texts.items()]


def _final_names(result: RunResult) -> str | None:
    """Return the names of what a training function returned, as MLflow adds what it only reported; None where long."""
    text = ",".join(sorted(result.metrics)) if not result.path else ""
    return text if 0 < len(text) <= MAX_TAG else None


def _dataset_input(data: DataFacts) -> DatasetInput:
    dataset = Dataset(
        name=data.name[:MAX_DATASET_NAME],
        digest=data.digest[:32],
        source_type="ablation",
        source=json.dumps({"name": data.name, "digest": data.digest}),
        profile=json.dumps({"train_images": data.train_images, "test_images": data.test_images}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training and test")])


def tags_of(provenance: Mapping[str, str]) -> dict[str, str]:
    return {name if name.startswith("mlflow.") else f"ablation.{name}": value for name, value in provenance.items()}
