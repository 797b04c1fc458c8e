"""What must hold of a study that was killed and run again: what an undisturbed one comes to, and nothing beside it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from checks import (
    MEASURED_TIMES,
    Training,
    problems_of_folders,
    problems_of_optuna,
    problems_of_processes,
    trained_in,
)
from kill_injection import Operation
from kill_studies import Place
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from ablation.storage.run_folder import RunFolder

SHOWN = 300
"""Characters of a record that are shown where it differs."""
Curves = tuple[tuple[str, tuple[tuple[int, float], ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What MLflow has of one run, but for times; every value that a metric ever had, in its order."""

    kind: str
    name: str
    identity: str
    status: str
    outcome: str
    params: tuple[tuple[str, str], ...]
    final: tuple[tuple[str, float], ...]
    curves: Curves
    artifacts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a study leaves: its runs' folders by identity, its records, all its paths but those of MLflow's runs."""

    trainings: Mapping[str, Training]
    records: Counter[Record]
    tuning: Counter[str]
    paths: frozenset[str]
    temporary: frozenset[str]

    @classmethod
    def by(cls, place: Place) -> "Left":
        paths = frozenset(_paths(place))  # first: sqlite keeps files beside a database that is open
        return cls(
            trainings=trained_in(place.state),
            records=Counter(_records(place)),
            tuning=Counter(_tuning_trials(place)),
            paths=paths,
            temporary=frozenset(path.name for path in place.temporary.iterdir()),
        )


def problems_after_kills(place: Place, *, calm: Left, operations: Sequence[Operation]) -> list[str]:
    """Return in words what is not as an undisturbed study of this kind leaves it; `operations` tell who made a file."""
    left = Left.by(place)
    return [
        *_differences("MLflow", left.records, calm.records),
        *_damaged_artifacts(place),
        *_differences("Optuna's tuning", left.tuning, calm.tuning),
        *problems_of_optuna(place.kind.name, place.state, calm.trainings),
        *_unequal_values(place, left.records),
        *problems_of_folders(place.state, calm.trainings),
        *(f"stray: {path}" for path in _topmost(left.paths - calm.paths)),
        *(f"missing: {path}" for path in _topmost(calm.paths - left.paths)),
        *_temporary_files(_makers(place, calm, operations)),
        *problems_of_processes(place.state),
    ]


def temporary_files_of_others(place: Place, *, calm: Left, operations: Sequence[Operation]) -> list[str]:
    """Return what libraries have left among temporary files, and which: no process that is killed removes its own."""
    made = _makers(place, calm, operations)
    return [f"{path.name} of {maker}" for path, maker in made.items() if not _is_ours(maker)]


def _records(place: Place) -> Iterator[Record]:
    client = MlflowClient(place.address)
    yield from (_record(client, run) for run in _runs(client, place))


def _runs(client: MlflowClient, place: Place) -> list[Run]:
    experiment = client.get_experiment_by_name(place.kind.name)
    return client.search_runs([experiment.experiment_id], max_results=1000) if experiment is not None else []


def _damaged_artifacts(place: Place) -> Iterator[str]:
    """Compare what MLflow keeps of each run, and the report, with the files that they were recorded from."""
    for run in _runs(MlflowClient(place.address), place):
        kind, identity = run.data.tags.get("ablation.kind"), run.data.tags.get("ablation.identity", "")
        sources = {"run": RunFolder(path=place.state / "runs" / identity).artifacts}
        source = {**sources, "study": place.state / "reports" / place.kind.name}.get(str(kind))
        if source is None:
            continue
        for file in (path for path in source.rglob("*") if path.is_file()):
            recorded = _artifact_folder(run) / file.relative_to(source)
            if not recorded.is_file() or recorded.read_bytes() != file.read_bytes():
                yield f"artifact: {file.name} of {run.info.run_name} is not as it was written"


def _record(client: MlflowClient, run: Run) -> Record:
    tags, measured = run.data.tags, {name: value for name, value in run.data.metrics.items() if not _is_time(name)}
    curves = {name: client.get_metric_history(run.info.run_id, name) for name in sorted(measured)}
    return Record(
        kind=tags.get("ablation.kind", ""),
        name=str(run.info.run_name),
        identity=tags.get("ablation.identity", ""),
        status=run.info.status,
        outcome=tags.get("ablation.outcome", ""),
        params=tuple(sorted(run.data.params.items())),
        final=tuple(sorted(measured.items())),
        curves=tuple((name, tuple((one.step, one.value) for one in curve)) for name, curve in curves.items()),
        artifacts=tuple(sorted(_artifacts(run))),
    )


def _artifacts(run: Run) -> Iterator[str]:
    folder = _artifact_folder(run)
    return (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _artifact_folder(run: Run) -> Path:
    return Path(str(run.info.artifact_uri).removeprefix("file://"))


def _is_time(name: str) -> bool:
    return name.endswith(MEASURED_TIMES)


def _tuning_trials(place: Place) -> Iterator[str]:
    """Yield the trials of tuning that have ended by themselves: those that a kill ended are not tuning's."""
    with _optuna(place) as storage:
        for study in optuna.get_all_study_names(storage):
            if "/tuning/" not in study:
                continue
            for trial in optuna.load_study(study_name=study, storage=storage).trials:
                if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or not trial.state.is_finished():
                    yield f"{study}: {trial.state.name} {trial.value} {sorted(trial.params.items())}"


def _unequal_values(place: Place, records: Iterable[Record]) -> Iterator[str]:
    """Compare what Optuna was told of each run with its metric in MLflow."""
    recorded = {record.identity: dict(record.final) for record in records if record.kind == "run"}
    with _optuna(place) as storage:
        study = optuna.load_study(study_name=place.kind.name, storage=storage)
        for trial in study.get_trials(states=(TrialState.COMPLETE,)):
            value = recorded.get(str(trial.user_attrs["identity"]), {}).get(place.kind.metric)
            if value != trial.value:
                yield f"Optuna: trial {trial.number} has {trial.value}, MLflow {value}"


@contextmanager
def _optuna(place: Place) -> Iterator[RDBStorage]:
    storage = RDBStorage(f"sqlite:///{place.state / 'optuna.db'}")
    try:
        yield storage
    finally:
        storage.engine.dispose()


def _paths(place: Place) -> Iterator[str]:
    beside = {"tmp", "mlruns"}
    for top in place.folder.iterdir():
        if top.name in beside:
            continue
        yield top.name
        yield from (str(path.relative_to(place.folder)) for path in top.rglob("*"))


def _topmost(paths: frozenset[str]) -> list[str]:
    """Return the paths but for those within others."""
    return sorted(path for path in paths if not paths & set(map(str, Path(path).parents)))


def _differences(where: str, found: Counter[object], expected: Counter[object]) -> Iterator[str]:
    yield from (f"{where}: there is no {_short(one)}" for one in (expected - found).elements())
    yield from (f"{where}: undisturbed there is no {_short(one)}" for one in (found - expected).elements())


def _short(record: object) -> str:
    text = str(record)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _temporary_files(made: Mapping[Path, str]) -> Iterator[str]:
    counts = Counter(maker for maker in made.values() if _is_ours(maker))
    yield from (f"temporary: {count} left by {maker or 'nobody knows what'}" for maker, count in counts.items())


def _makers(place: Place, calm: Left, operations: Sequence[Operation]) -> dict[Path, str]:
    """Return what is left among temporary files that an undisturbed study does not leave, and what made each."""
    made = {path: "" for path in sorted(place.temporary.iterdir()) if path.name not in calm.temporary}
    for one in operations:
        if place.temporary in one.path.parents:
            top = place.temporary / one.path.relative_to(place.temporary).parts[0]
            if top in made:
                made[top] = made[top] or f"{one.module} for {one.lines}"
    return made


def _is_ours(maker: str) -> bool:
    """Whether a module of the product's made it, or nobody knows who; others are named by their packages."""
    return not maker or maker.startswith("ablation/")
