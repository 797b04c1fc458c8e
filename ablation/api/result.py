"""What a study came to, for Python and for a notebook: its answers, tables, figures and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from ablation.api.arguments import check_kind
from ablation.errors import NameUnknown, NoResults
from ablation.lookup import nearest_names
from ablation.records import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from ablation.analysis import Analysis, Answer, RuleChange
    from ablation.coordinator.conclusion import StudyOutcome
    from ablation.pipeline import AskedMetrics
    from ablation.records import OutOfBudget, Plan
    from ablation.report import ReportFormat
    from ablation.tracking import StudyRecord, Tracker


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class StudyResult:
    """What a study came to when it was asked; the tables are read from MLflow when they are asked for.

    `ended` counts its planned runs by how they ended; those without a result yet are not in it. `analysis` is all that
    the report says, None where no run has ended.
    """

    record: StudyRecord
    ended: Mapping[Outcome, int]
    analysis: Analysis | None
    tracker: Tracker = field(repr=False)

    @classmethod
    def of(cls, outcome: StudyOutcome, tracker: Tracker) -> Self:
        return cls(record=outcome.record, ended=outcome.ended, analysis=outcome.analysis, tracker=tracker)

    @classmethod
    def recorded(
        cls, name: str, tracker: Tracker, *, change: RuleChange | None = None, asked: AskedMetrics | None = None
    ) -> Self:
        """Read a recorded study; a changed rule is a deviation, and so are metrics that are asked for after the runs.

        Raises:
            StudyUnknown, NameUnknown, TrackingUnavailable.
            MetricTaken, OutputsNotKept, CodeInvalid: a metric cannot be computed.
        """
        from ablation.pipeline import find_study, summarize_study

        analysis = None
        try:
            record, analysis = summarize_study(name, tracker=tracker, change=change, asked=asked)
        except NoResults:
            record = find_study(name, tracker=tracker)
        runs = tracker.recorded_runs(record, with_details=False)
        ended = Counter(run.outcome for run in runs if run.outcome is not None)
        return cls(record=record, ended=ended, analysis=analysis, tracker=tracker)

    @property
    def name(self) -> str:
        return self.record.plan.name

    @property
    def plan(self) -> Plan:
        return self.record.plan

    @property
    def planned_runs(self) -> int:
        """How many runs the looks so far have asked for."""
        if self.analysis is not None:
            return self.analysis.planned_runs
        return len(self.plan.variants) * self.plan.locked.schedule[0]

    @property
    def is_complete(self) -> bool:
        """Whether every planned run has a result, and nothing is out of budget; a failed run has none."""
        return self._has_results and self.out_of_budget is None

    @property
    def has_ended_well(self) -> bool:
        """Whether no run has failed, and none lacks a result but those that the budget was too small for."""
        is_cut_short = self.out_of_budget is not None and not self.ended.get(Outcome.FAILED)
        return self._has_results or is_cut_short

    @property
    def out_of_budget(self) -> OutOfBudget | None:
        """How the last execution ended for its budget, and what it needs to go on; None where it did not."""
        return self.record.spending.out

    @property
    def _has_results(self) -> bool:
        return sum(count for kind, count in self.ended.items() if kind.is_result) >= self.planned_runs

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The answers to the study's questions, in the plan's order; none where no run has ended."""
        return self.analysis.answers if self.analysis is not None else ()

    @property
    def links(self) -> dict[str, str]:
        """Addresses that lead to the study in MLflow, or the command that shows it, by what they lead to."""
        return dict(self.tracker.links(self.record))

    def frame(self) -> DataFrame:
        """Return a row per planned run: variant, seed, outcome, the factors and the metrics; `ablation export`."""
        from ablation.pipeline import export_study

        return export_study(self.name, tracker=self.tracker, by_epoch=False)

    def epochs(self) -> DataFrame:
        """Return a row per run and epoch; `ablation export --epochs`."""
        from ablation.pipeline import export_study

        return export_study(self.name, tracker=self.tracker, by_epoch=True)

    def figure(self, name: str = "forest") -> Figure:
        """Return a figure of the report: `forest`, `slope`, `curves`, ...; a further page of one is `curves-2`.

        Raises:
            NameUnknown: the report has no such figure, and which it has.
            NoResults: no run has ended.
        """
        check_kind("figure", name)
        from ablation.api.notebook import shown
        from ablation.report.figures import figure_of

        return shown(figure_of(self._analysed(), name))

    def report(self, form: str = "markdown") -> str:
        """Return the report as `markdown`, `html`, `json`, `latex` (for a column of a paper) or `latex-wide`.

        Raises:
            NameUnknown: there is no such form.
            NoResults: no run has ended.
        """
        check_kind("form", form)
        from ablation.report import FORMATS, report_text

        if form not in FORMATS:
            raise NameUnknown("form", form, near=nearest_names(form, FORMATS), known=FORMATS, option="report")
        address = partial(self.tracker.run_address, self.record)
        return report_text(self._analysed(), cast("ReportFormat", form), address=address)

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write the whole report, with its figures, into a folder, and return the path of its report.html.

        Raises:
            NoResults: no run has ended.
            OSError: the folder cannot be written.
        """
        from ablation.report import FORMATS, write_report

        address = partial(self.tracker.run_address, self.record)
        write_report(self._analysed(), Path(folder), address=address)
        return Path(folder) / FORMATS["html"]

    def _analysed(self) -> Analysis:
        if self.analysis is None:
            raise NoResults(self.name)
        return self.analysis

    def __repr__(self) -> str:
        decided = sum(answer.verdict.is_decided for answer in self.answers)
        answers = f"; {decided} of {len(self.answers)} comparisons decided" if self.answers else ""
        return f"<StudyResult {self.name!r}: {self._counts_text()}{answers}>"

    def __str__(self) -> str:
        from ablation.report import answers_text

        return f"{self!r}\n{answers_text(self.analysis)}" if self.analysis is not None else repr(self)

    def _repr_html_(self) -> str:
        from ablation.report.fragments import answers_html

        return answers_html(self.name, self._counts_text(), self.analysis)

    def _counts_text(self) -> str:
        counts = counts_text(self.ended, self.planned_runs)
        return counts if self.out_of_budget is None else f"{counts}, out of budget"


def counts_text(ended: Mapping[Outcome, int], planned: int) -> str:
    """Return `7 done, 0 diverged, 1 failed of 8 runs`."""
    counts = ", ".join(f"{ended.get(kind, 0)} {kind.value}" for kind in Outcome)
    return f"{counts} of {planned} runs"
