"""What must hold of a study when all is over, whatever happened to it: each check returns what is wrong, in words."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from targets import processes_of

from ablation.records import epoch_metrics
from ablation.storage.run_folder import CHECKPOINT, RunFolder

MEASURED_TIMES = ("seconds", "per_second", "peak_memory_mib")
"""Ends of the names of metrics that no two trainings share."""
ENDING_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a run measured, but for times: each final metric, and each curve as (step, value) pairs."""

    metrics: Mapping[str, float]
    curves: Mapping[str, tuple[tuple[int, float], ...]]


def trained_in(state: Path) -> dict[str, Training]:
    """Return what the finished runs of a state folder measured, by identity."""
    return {folder.name: _training(RunFolder(path=folder)) for folder in sorted((state / "runs").glob("*"))}


def problems_at_the_end(study: str, *, expected: Mapping[str, Training], address: str, state: Path) -> list[str]:
    return [
        *_of_mlflow(study, MlflowClient(address), expected),
        *problems_of_optuna(study, state, expected),
        *problems_of_folders(state, expected),
        *problems_of_processes(state),
    ]


def _of_mlflow(study: str, client: MlflowClient, expected: Mapping[str, Training]) -> Iterator[str]:
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        yield "MLflow: there is no experiment"
        return
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    yield from (f"MLflow: {run.info.run_name} is RUNNING" for run in found if run.info.status == "RUNNING")
    studies = [run.info.status for run in found if run.data.tags.get("ablation.kind") == "study"]
    if studies != ["FINISHED"]:
        yield f"MLflow: the study runs are {studies}"
    runs = [run for run in found if run.data.tags.get("ablation.kind") == "run"]
    yield from _unequal_counts("MLflow", Counter(run.data.tags["ablation.identity"] for run in runs), expected)
    for run in runs:
        yield from _of_run(client, run, expected)


def _of_run(client: MlflowClient, run: Run, expected: Mapping[str, Training]) -> Iterator[str]:
    outcome, name = run.data.tags.get("ablation.outcome"), run.info.run_name
    if (outcome, run.info.status) != ("done", "FINISHED"):
        yield f"MLflow: {name} is {outcome} and {run.info.status}"
    wanted = expected.get(run.data.tags["ablation.identity"])
    if wanted is None:
        return
    final = {metric: run.data.metrics.get(metric) for metric in wanted.metrics}
    curves = {
        metric: tuple((entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, metric))
        for metric in wanted.curves
    }
    yield from _differences(f"MLflow: {name}", final, wanted.metrics)
    yield from _differences(f"MLflow: {name}", curves, wanted.curves)


def problems_of_optuna(study: str, state: Path, expected: Mapping[str, Training]) -> Iterator[str]:
    trials = optuna.load_study(study_name=study, storage=f"sqlite:///{state / 'optuna.db'}").trials
    complete = Counter(str(trial.user_attrs["identity"]) for trial in trials if trial.state is TrialState.COMPLETE)
    yield from _unequal_counts("Optuna", complete, expected)
    open_states = (TrialState.WAITING, TrialState.RUNNING)
    yield from (f"Optuna: trial {trial.number} is {trial.state.name}" for trial in trials if trial.state in open_states)


def problems_of_folders(state: Path, expected: Mapping[str, Training]) -> Iterator[str]:
    left = {
        *(state / "begun").glob("*"),
        *(path for path in state.rglob("*") if CHECKPOINT.fullmatch(path.name) or path.name.startswith(".")),
    }
    yield from (f"state folder: {path.relative_to(state)} is left" for path in sorted(left))
    for identity, training in trained_in(state).items():
        if identity in expected:
            yield from _differences(f"folder of {identity}", training.metrics, expected[identity].metrics)
            yield from _differences(f"folder of {identity}", training.curves, expected[identity].curves)


def problems_of_processes(state: Path) -> Iterator[str]:
    deadline = time.monotonic() + ENDING_S
    while (left := processes_of(state)) and time.monotonic() < deadline:
        time.sleep(0.1)
    yield from (f"process {process.pid} is left: {process.name()}" for process in left)


def _training(folder: RunFolder) -> Training:
    ended, epochs = folder.ended(), folder.epochs()
    by_epoch = [(epoch.epoch, epoch_metrics(epoch, heldout_split="test")) for epoch in epochs]
    names = [name for name in (by_epoch[0][1] if by_epoch else {}) if not name.endswith(MEASURED_TIMES)]
    final = ended.metrics if ended is not None else {}
    return Training(
        metrics={name: value for name, value in final.items() if not name.endswith(MEASURED_TIMES)},
        curves={name: tuple((epoch, values[name]) for epoch, values in by_epoch) for name in names},
    )


def _unequal_counts(where: str, found: Counter[str], expected: Mapping[str, Training]) -> Iterator[str]:
    for identity in sorted({*found, *expected}):
        wanted = int(identity in expected)
        if found[identity] != wanted:
            yield f"{where}: {identity} is there {found[identity]} times, not {wanted}"


def _differences(where: str, found: Mapping[str, object], expected: Mapping[str, object]) -> Iterator[str]:
    for name, value in expected.items():
        if found.get(name) != value:
            yield f"{where}: {name} is {found.get(name)}, undisturbed it is {value}"
