"""Shows a study's progress: a live view on a terminal, plain lines elsewhere, and what it came to at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ablation.api.notebook import NotebookView, notebook_view
from ablation.api.result import counts_text
from ablation.coordinator.conclusion import StudyOutcome
from ablation.coordinator.progress import Progress
from ablation.output import last_line, plain, width, wrapped
from ablation.records import Epoch, EpochMetrics, Outcome, PlannedRun, RunResult
from ablation.report.characters import first_screen_text, in_terminal
from ablation.report.numbers import duration_text
from ablation.report.prose import out_of_budget_text
from ablation.report.rows import first_screen
from ablation.study import Study
from ablation.tracking import START_UI, Tracker

MOST_SHOWN = 10
"""Runs under way that the live view has a line for."""
Steps = Generator[Progress, None, StudyOutcome]


def follow(steps: Steps, *, study: Study, slots: int, is_quiet: bool) -> StudyOutcome:
    """Show each step in the notebook or on standard error, as fits what that is, and return the outcome."""
    clock = _Clock(study=study, slots=slots)
    if is_quiet:
        return _drain(steps, lambda _: None)
    if (notebook := notebook_view()) is not None:
        return _drain(steps, lambda progress: _show_in(notebook, progress, clock))
    console = Console(stderr=True, force_jupyter=False)
    if not console.is_terminal:
        return _drain(steps, lambda progress: _print_plainly(progress, clock))
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def show(progress: Progress) -> None:
            if progress.latest is not None or progress.note is not None:
                live.console.print(Text(plain(_event_text(progress, clock))))
            live.update(_view(progress, clock))

        return _drain(steps, show)


def _show_in(notebook: NotebookView, progress: Progress, clock: _Clock) -> None:
    if progress.latest is not None or progress.note is not None:
        notebook.note(_event_text(progress, clock))
    notebook.show(_view(progress, clock))


def outcome_text(outcome: StudyOutcome, tracker: Tracker) -> str:
    """Return the last words of a study: its rows, how its runs ended, where the report is, how to look at the runs."""
    record, columns = outcome.record, width()
    counts = f"{record.plan.name}: {counts_text(outcome.ended, len(outcome.runs))}"
    if (out := record.spending.out) is not None and outcome.analysis is None:
        counts += f"\n{out_of_budget_text(out)}"  # else the lines below the rows say it
    lines = [wrapped(plain(counts), columns)]
    if outcome.analysis is not None:
        lines = [in_terminal(first_screen_text(first_screen(outcome.analysis), columns)), "", *lines]
        lines.append(f"Report: {outcome.report}/report.html")
    return "\n".join([*lines, _way_to_look(tracker.links(record))])


def _way_to_look(links: Sequence[tuple[str, str]]) -> str:
    """Return the study run's address where a server shows it, else the one command that starts it."""
    found = dict(links)
    shown = START_UI if START_UI in found else "study run"
    return f"{shown[0].upper()}{shown[1:]}: {plain(found[shown])}" if shown in found else ""


def outcome_json(outcome: StudyOutcome, tracker: Tracker) -> str:
    record = outcome.record
    return json.dumps(
        {
            "study": record.plan.name,
            "runs": len(outcome.runs),
            **{kind.value: outcome.ended.get(kind, 0) for kind in Outcome},
            "study_run_id": record.study_run_id,
            "experiment_id": record.experiment_id,
            "report": str(outcome.report) if outcome.report is not None else None,
            "out_of_budget": asdict(out) if (out := record.spending.out) is not None else None,
            "links": dict(tracker.links(record)),
        },
        indent=1,
    )


class _Clock:
    """Estimates the time left from the runs that have ended since it was made, or since what is counted changed."""

    def __init__(self, *, study: Study, slots: int) -> None:
        epochs = study.spec.settings().training.plain().get("epochs")
        self._epochs = epochs if isinstance(epochs, int) and epochs > 0 else None
        """Of a run; a training function may report otherwise, and need not say how often."""
        self.metric = study.spec.metric.name
        self._slots = slots
        self._begun = time.monotonic()
        self._ended_before: int | None = None
        self._planned = 0
        self._has_looks = False

    def seconds_left(self, progress: Progress) -> float | None:
        """Return the seconds left, or None before there is anything to estimate them from."""
        ended = sum(progress.ended.values())
        is_a_later_look = self._has_looks and progress.look is not None
        if self._ended_before is None or (progress.planned != self._planned and not is_a_later_look):
            self._ended_before, self._begun = ended, time.monotonic()  # tuning ends and the comparison begins
        self._planned, self._has_looks = progress.planned, progress.look is not None
        shares = [self._share(metrics) for _, metrics in progress.running if metrics is not None]
        done = ended - self._ended_before + sum(shares)
        if done <= 0:
            return None
        return (time.monotonic() - self._begun) / done * max(0.0, progress.planned - ended - sum(shares))

    def epoch_text(self, epoch: Epoch) -> str:
        is_within = self._epochs is not None and epoch.epoch <= self._epochs
        return f"epoch {epoch.epoch}/{self._epochs}" if is_within else f"epoch {epoch.epoch}"

    def _share(self, epoch: Epoch) -> float:
        """Return how much of a run is done after an epoch, as far as that can be told."""
        return min(1.0, epoch.epoch / self._epochs) if self._epochs is not None else 0.0


def _drain(steps: Steps, show: Callable[[Progress], None]) -> StudyOutcome:
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            outcome: StudyOutcome = end.value
            return outcome
        show(progress)


def _print_plainly(progress: Progress, clock: _Clock) -> None:
    if progress.latest is not None or progress.note is not None:
        print(plain(_event_text(progress, clock)), file=sys.stderr, flush=True)  # noqa: T201 - plain lines are the view here
    else:
        clock.seconds_left(progress)


def _event_text(progress: Progress, clock: _Clock) -> str:
    ended = sum(progress.ended.values())
    left = clock.seconds_left(progress)
    ended_text = [_ended_text(*progress.latest, metric=clock.metric)] if progress.latest is not None else []
    text = "; ".join([*ended_text, *([progress.note] if progress.note is not None else [])])
    return f"[{ended}/{progress.planned}] {text}" + (f", about {duration_text(left)} left" if left else "")


def _ended_text(run: PlannedRun, result: RunResult, *, metric: str) -> str:
    match result.outcome:
        case Outcome.DONE:
            value = result.metrics.get(metric)
            reached = f"{metric} {value:.4f}" if value is not None else f"no {metric}"
            return f"{run.name}: {reached} in {duration_text(result.metrics['total_seconds'])}"
        case Outcome.DIVERGED:
            return f"{run.name}: diverged in epoch {result.diverged_epoch}"
        case Outcome.FAILED:
            return f"{run.name}: failed: {last_line(result.error)}"


def _view(progress: Progress, clock: _Clock) -> Group:
    ended = sum(progress.ended.values())
    left = clock.seconds_left(progress)
    table = Table.grid(padding=(0, 2))
    for run, metrics in progress.running[:MOST_SHOWN]:
        if metrics is None:
            table.add_row(Text(plain(run.name)), "starting")
        else:
            table.add_row(Text(plain(run.name)), clock.epoch_text(metrics), *map(Text, _epoch_texts(metrics)))
    if len(progress.running) > MOST_SHOWN:
        table.add_row(f"and {len(progress.running) - MOST_SHOWN} more")
    bar = Table.grid(padding=(0, 2))
    time_left = f", about {duration_text(left)} left" if left else ""
    counts = counts_text(progress.ended, progress.planned)
    bar.add_row(ProgressBar(total=max(1, progress.planned), completed=ended, width=40), counts + time_left)
    return Group(table, bar, *(Text(line) for line in (progress.look, progress.budget) if line is not None))


def _epoch_texts(epoch: Epoch) -> list[str]:
    if isinstance(epoch, EpochMetrics):
        return [f"training loss {epoch.train_loss:.4f}", f"held-out accuracy {epoch.heldout_accuracy:.4f}"]
    return [plain(f"{name} {value:.4g}") for name, value in list(epoch.metrics.items())[:2]]
