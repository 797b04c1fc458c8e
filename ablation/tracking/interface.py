"""What a tracker is: the one place that remembers a study and its runs, and from which alone a report is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from ablation.records import (
    AnswerSummary,
    DataFacts,
    Epoch,
    LeftOut,
    Plan,
    PlannedRun,
    RecordedRun,
    RunResult,
    Spending,
)
from ablation.storage.holder import Holder

START_UI = "start MLflow's UI"
"""The label of the command that shows a store which no server shows yet."""
StudyStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """A study as its tracker knows it; `study_run_id` is the one run that stands for the whole study.

    `has_answers`: a report's answers were kept with it; earlier versions kept its files alone.
    """

    study_run_id: str
    experiment_id: str
    plan: Plan
    status: StudyStatus
    spending: Spending = field(default_factory=Spending)
    has_answers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """What a run is trained with; `size` is that of its model, by name, where it was measured."""

    seed: int
    configuration: Mapping[str, Any]
    levels: Mapping[str, Any]
    size: Mapping[str, int]
    data: DataFacts

    @classmethod
    def of(cls, planned: PlannedRun, plan: Plan) -> Self:
        variant, summary = plan.variant(planned.variant), plan.of_trained_models().summaries[planned.variant]
        sizes = {"parameters": summary.parameters, "flops": summary.flops}
        trainable = {"trainable_parameters": summary.trainable} if summary.trainable is not None else {}
        return cls(
            seed=planned.seed,
            configuration=variant.configuration,
            levels=variant.levels,
            size={**sizes, **trainable} if summary.layers else {},
            data=plan.data_of(planned.variant),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNews:
    """What is to be recorded of a run but for how it ended: its description where that is not yet, and its epochs.

    `epochs` are all that there are to record; those up to number `told` were.
    """

    description: RunDescription | None = None
    epochs: Sequence[Epoch] = ()
    told: int = 0
    heldout_split: str = ""


NO_NEWS = RunNews()


class Tracker(Protocol):
    """Remembers studies and runs.

    It may be used by several threads, each about runs of its own. What it returned is not changed by later calls. Every
    method but the constructor, `answers` and `run_address` may raise TrackingUnavailable, and may have done its work
    all the same: when it is called again then, with the same arguments, it changes nothing more. Those that record a
    run raise RecordRefused where it can never be recorded.

    `settles_s` is how long after it was begun a write is seen by everybody, but for what was suspended meanwhile.
    """

    settles_s: float

    def elsewhere(self) -> "Callable[[], Tracker] | None":
        """Return what opens the same store in another process, to which it is sent; None where only this one can."""
        ...

    def answers(self) -> bool:
        """Whether the store can be reached now, as far as that can be told within seconds."""
        ...

    def find_study(self, name: str) -> StudyRecord | None:
        """Return the study of that name, or None; nothing is created."""
        ...

    def study_names(self) -> tuple[str, ...]:
        """Return the names of all recorded studies, the one that began last first; nothing is created."""
        ...

    def remarks(self, name: str) -> tuple[str, ...]:
        """Return in sentences what a person should know before a study is recorded here."""
        ...

    def study_run_id(self, name: str, *, beside: str | None = None) -> str | None:
        """Return the run that stands for the study of that name, with a plan or without one yet, or None.

        With `beside`, only where it lies in the same experiment as that run.
        """
        ...

    def make_study_run(self, plan: Plan, *, holder: Holder | None) -> str:
        """Make the study run of a study that has none, held from its first moment, and return its ID.

        The runs of a study run that was deleted while the study ran are taken over.

        Raises:
            StudyLocked: another holder has made one.
        """
        ...

    def open_study(self, plan: Plan, *, holder: Holder | None = None) -> StudyRecord:
        """Take or make the study run of the plan's study, keep the plan in it, and mark it RUNNING.

        Raises:
            StudyLocked: another holder than this one has it.
        """
        ...

    def holder(self, study_run_id: str) -> Holder | None:
        """Return who wrote last that it runs the study, None where nobody does.

        Raises:
            StudyRunGone: the run was deleted.
        """
        ...

    def hold(self, study_run_id: str, holder: Holder | None) -> None:
        """Write who runs the study, or that nobody does."""
        ...

    def discard_study_run(self, study_run_id: str) -> None:
        """Delete a study run that was made in vain: somebody else has made one in the same moment."""
        ...

    def identities(self, name: str) -> frozenset[str]:
        """Return the identities of all compared runs that name a study, those in the trash too."""
        ...

    def results_elsewhere(self, probes: Sequence[str], /, *, name: str) -> Mapping[str, frozenset[str]]:
        """Return which runs other studies than `name` have a result of, as identities by study.

        Only studies that have a result of any of the `probes`, a handful of identities that are looked up one by one.
        Of a study with more than 1,000 runs the first ones that it began are given.
        """
        ...

    def count_runs(self, name: str) -> int:
        """Return how many runs `delete_study` would delete."""
        ...

    def is_deleted(self, name: str) -> bool:
        """Whether a study of that name was deleted while nobody ran it; asked where there is none now."""
        ...

    def delete_study(self, name: str) -> None:
        """Move all runs that name a study to the trash, the study run last."""
        ...

    def clear_experiment(self, name: str) -> None:
        """Take the experiment for a study out of the trash, where it is there, and leave its runs in the trash."""
        ...

    def recorded_runs(self, record: StudyRecord, *, with_details: bool = True) -> tuple[RecordedRun, ...]:
        """Return one record per planned run, in plan order; without details, curves are empty.

        So is `confusion`, but of runs at chance (`is_at_chance`): where a study stands depends on what they answered.
        """
        ...

    def run_file(self, run_id: str, name: str, /, *, limit: int) -> tuple[bytes | None, str]:
        """Return a file that a run left, None where it has none or a larger one, and in words why but for the first."""
        ...

    def left_out(self, record: StudyRecord) -> tuple[LeftOut, ...]:
        """Return the runs that stand among the study's and are none of its planned ones."""
        ...

    def reconcile(self, record: StudyRecord) -> None:
        """Put right what other executions left: no run stays RUNNING, of two records of one run the first stays.

        The caller is the only one who runs the study.
        """
        ...

    def start_run(
        self, record: StudyRecord, planned: PlannedRun, provenance: Mapping[str, str], *, attempt: str
    ) -> str:
        """Begin the record of a run, or take up that of the same attempt, and return its ID.

        Records of other attempts at the run are removed. `provenance` says where it comes from: commit, versions,
        device, host.
        """
        ...

    def start_tuning_run(
        self,
        record: StudyRecord,
        planned: PlannedRun,
        settings: Mapping[str, Any],
        provenance: Mapping[str, str],
        *,
        attempt: str,
    ) -> str:
        """Do the same for a run of a variant's tuning, known by its name and kept apart from the compared ones.

        `settings` are its variant, trial, seed and what is tried. It is ended by `finish_run`.
        """
        ...

    def log_run(self, run_id: str, news: RunNews) -> None:
        """Record what is new of a run under way; recording the same again changes nothing."""
        ...

    def finish_run(self, run_id: str, result: RunResult, artifacts: Path | None, news: RunNews = NO_NEWS) -> None:
        """Record how a run ended, its final metrics, the files of a folder, and what else is new of it.

        When it returns, the metrics that a reader gets are those of the result: they are read back.
        """
        ...

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Record further final metrics of a finished run, which were computed from what it has kept."""
        ...

    def abandon_run(self, run_id: str) -> None:
        """Mark a run as not under way, because it was interrupted; `start_run` takes it up again."""
        ...

    def note_look(self, record: StudyRecord, look: int) -> None:
        """Record how many of a study's planned looks are complete; of a study of one look nothing is recorded.

        Where the record has it that the study is out of budget, that is recorded beside it.
        """
        ...

    def note_spending(self, study_run_id: str, spending: Spending) -> None:
        """Record what the study's executions took so far; `find_study` gives it back."""
        ...

    def log_report(
        self, record: StudyRecord, folder: Path, *, overview: Sequence[str], answers: Sequence[AnswerSummary]
    ) -> None:
        """Keep a report with the study run: its files, the lines of its overview, and its answers as records.

        Each answer's numbers and verdict are found under its name; a verdict replaces the one before, and that of an
        answer which is given no more is removed. Keeping the same again changes nothing.
        """
        ...

    def close_study(self, record: StudyRecord, status: StudyStatus) -> None:
        """Mark how an execution of the study ended."""
        ...

    def links(self, record: StudyRecord, /) -> tuple[tuple[str, str], ...]:
        """Return (label, address or command) pairs that lead a person to the study."""
        ...

    def run_address(self, record: StudyRecord, run_id: str, /) -> str | None:
        """Return the address of a run's page, None where no server is known to show one; no store is asked."""
        ...
