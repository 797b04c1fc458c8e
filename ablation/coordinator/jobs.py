"""Makes the jobs of a study: what is trained where, by names that hold wherever that is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ablation.code import NO_FOLDERS, CodeFolders
from ablation.coordinator.data import Datasets, dataset_of
from ablation.coordinator.preparation import Prepared
from ablation.coordinator.request import Request
from ablation.datasets import Dataset
from ablation.executors import Files, Needed
from ablation.provenance import git_commit
from ablation.records import DeclaredMetric, Plan, PlannedRun, Variant
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.worker import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyJobs:
    """What all jobs of a study have in common.

    `code_digests` are by variant, `needs` what every job reads, `carried_code` where the user's code is looked for
    below a place that it is brought to, `commit` that of the repository which the study is run in, where there is one.
    `metrics` are the user's own, `metric_digest` is that of their code.
    """

    state: State
    datasets: Datasets
    code: CodeFolders = NO_FOLDERS
    code_digests: Mapping[str, str | None] = field(default_factory=dict)
    needs: Mapping[str, Needed] = field(default_factory=dict)
    carried_code: tuple[str, ...] = ()
    commit: str | None = None
    cudnn_benchmark: bool = False
    metrics: tuple[DeclaredMetric, ...] = ()
    metric_digest: str | None = None

    @classmethod
    def of(cls, request: Request, prepared: Prepared) -> Self:
        """Return those of a study that can be run."""
        study, code = request.study, prepared.code
        carried = f"code/{code.digest}" if code is not None else ""
        return cls(
            state=request.state,
            datasets=prepared.datasets,
            code=study.code,
            code_digests={variant.name: study.code_digest(variant) for variant in study.variants},
            needs={need.name: need for need in _needs(prepared, carried)},
            carried_code=tuple(f"{carried}/{folder}" for folder in code.folders) if code is not None else (),
            commit=git_commit(),
            cudnn_benchmark=request.cudnn_benchmark,
            metrics=study.spec.own_metrics,
            metric_digest=study.metric_digest(),
        )

    def of_run(self, planned: PlannedRun, plan: Plan, *, slot: str) -> Job:
        """Return the job of a compared run."""
        variant = plan.variant(planned.variant)
        return Job(
            planned=planned,
            settings=variant.settings,
            heldout_split=plan.heldout_split,
            data_folder=self.data_folder(variant),
            folder=RunFolder(path=self.below(self.state.begun(plan.name, planned.identity).path)),
            device=slot,
            code=self.code,
            code_digest=self.code_digests.get(variant.name),
            carried_code=self.carried_code,
            expected_metrics=plan.expected_metrics,
            commit=self.commit,
            cudnn_benchmark=self.cudnn_benchmark,
            metrics=self.metrics,
            metric_digest=self.metric_digest,
            study=plan.name,
        )

    def files(self, jobs: Sequence[Job], on_change: Callable[[PlannedRun], object]) -> Files:
        """Return what jobs read and leave: data, code, and the folders of their runs."""
        data = {job.data_folder.as_posix() for job in jobs if job.data_folder is not None}
        unused = {_data_name(dataset) for dataset in self.datasets.values()} - data
        runs = {job.folder.path.as_posix(): job.planned for job in jobs}
        return Files(
            home=self.state.folder,
            needs=tuple(need for name, need in self.needs.items() if name not in unused),
            leaves=tuple(runs),
            on_change=lambda name: on_change(runs[name]),
        )

    def data_folder(self, variant: Variant) -> Path | None:
        """Where a variant's data set is below the place where a job runs."""
        dataset = dataset_of(variant, self.datasets)
        return Path(_data_name(dataset)) if dataset is not None else None

    def below(self, path: Path) -> Path:
        """Return a path as it is below the place where a job runs."""
        return path.relative_to(self.state.folder)


def _needs(prepared: Prepared, carried: str) -> Iterator[Needed]:
    """Yield what jobs read: the data sets, where there are any, and the user's code, where that is brought there."""
    for dataset in prepared.datasets.values():
        files = {file.name: file for file in sorted(dataset.folder.iterdir())}
        yield Needed(name=_data_name(dataset), files=files)
    if prepared.code is not None:
        yield Needed(name=carried, files=prepared.code.files)


def _data_name(dataset: Dataset) -> str:
    """Return where a data set is below a place: as below a state folder, whatever that is a link to."""
    return f"data/{dataset.folder.name}"
