"""Shows a study's progress: a live view on a terminal, plain lines elsewhere, and what it came to at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ablation.api.live_view import Room, ending_text, standing_lines, time_left_text
from ablation.api.notebook import NotebookView, notebook_view
from ablation.api.result import counts_text
from ablation.coordinator.conclusion import StudyOutcome
from ablation.coordinator.progress import Progress
from ablation.output import cells, clipped, last_line, plain, width, wrapped
from ablation.records import Epoch, Outcome, RunResult
from ablation.report.characters import first_screen_text, in_terminal
from ablation.report.numbers import duration_text, reported
from ablation.report.prose import out_of_budget_text
from ablation.report.replicates import in_folds
from ablation.report.rows import first_screen
from ablation.stopping import stopping
from ablation.study import Study
from ablation.tracking import START_UI, Tracker

Steps = Generator[Progress, None, StudyOutcome]


def follow(steps: Steps, *, study: Study, is_quiet: bool) -> StudyOutcome:
    """Show each step in the notebook or on standard error, as fits what that is, and return the outcome."""
    clock = _Clock(study=study)
    if is_quiet:
        return _drain(steps, lambda _: None)
    if (notebook := notebook_view()) is not None:
        return _drain(steps, lambda progress: _show_in(notebook, progress, clock))
    console = Console(stderr=True, force_jupyter=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return _drain(steps, lambda progress: _print_plainly(progress, clock))
    view = _LiveView(console, clock)
    live = Live(console=console, get_renderable=view.drawn, refresh_per_second=4, transient=True)
    with stopping.shown(), live, closing(steps):  # an end in good order, of whatever comes here, is seen too
        return _drain(steps, view.show)


class _LiveView:
    """What is drawn over on a terminal, by a thread of its own, and the lines that stay above it."""

    def __init__(self, console: Console, clock: _Clock) -> None:
        self._console = console
        self._clock = clock
        self._seen: tuple[Progress, float | None] | None = None

    def show(self, progress: Progress) -> None:
        self._seen = progress, self._clock.seconds_left(progress)
        for line in _event_lines(progress, self._console.width, metric=self._clock.metric):
            self._console.print(Text(line), soft_wrap=True)

    def drawn(self) -> Text:
        size, asked = self._console.size, stopping.seconds_asked
        # A terminal writes ^C behind the last line: where that takes a new line, the view is drawn one too low.
        columns = size.width - len("^C")
        room = Room(columns=columns, rows=2 * size.height // 3, is_ascii=self._console.options.ascii_only)
        progress, left = self._seen or (None, None)
        ending = ending_text(progress, asked) if asked is not None else None
        if progress is None:
            return Text(wrapped(ending or "starting", room.columns))
        lines = standing_lines(progress, room, left=left, epoch_text=self._clock.epoch_text, ending=ending)
        return Text("\n".join(lines), no_wrap=True, overflow="crop")


def _show_in(notebook: NotebookView, progress: Progress, clock: _Clock) -> None:
    left = clock.seconds_left(progress)
    for line in _event_lines(progress, notebook.room.columns, metric=clock.metric):
        notebook.note(line)
    notebook.show("\n".join(standing_lines(progress, notebook.room, left=left, epoch_text=clock.epoch_text)))


def outcome_text(outcome: StudyOutcome, tracker: Tracker) -> str:
    """Return the last words of a study: its rows, how its runs ended, where the report is, how to look at the runs."""
    record, columns = outcome.record, width()
    counts = f"{record.plan.name}: {counts_text(outcome.ended, len(outcome.runs))}"
    if (out := record.spending.out) is not None and outcome.analysis is None:
        counts += f"\n{out_of_budget_text(out)}"  # else the lines below the rows say it
    lines = [wrapped(plain(counts), columns)]
    if outcome.analysis is not None:
        rows = in_terminal(first_screen_text(first_screen(outcome.analysis), columns))
        lines = [in_folds(rows, outcome.analysis.folds), "", *lines]
        lines.append(_to_copy("Report", f"{outcome.report}/report.html", columns))
    return "\n".join([*lines, _way_to_look(tracker.links(record), columns)])


def _way_to_look(links: Sequence[tuple[str, str]], columns: int) -> str:
    """Return the study run's address where a server shows it, else the one command that starts it."""
    found = dict(links)
    shown = START_UI if START_UI in found else "study run"
    return _to_copy(f"{shown[0].upper()}{shown[1:]}", found[shown], columns) if shown in found else ""


def _to_copy(label: str, what: str, columns: int) -> str:
    """Return a path, an address or a command behind what it is, whole; on a line of its own where both do not fit."""
    line = plain(f"{label}: {what}")
    return line if cells(line) <= columns else plain(f"{label}:\n  {what}")


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

    def __init__(self, *, study: Study) -> None:
        epochs = study.spec.settings().training.plain().get("epochs")
        self._epochs = epochs if isinstance(epochs, int) and epochs > 0 else None
        """Of a run; a training function may report otherwise, and need not say how often."""
        self.metric = study.spec.metric.name
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
    left = time_left_text(clock.seconds_left(progress))
    for line in _event_lines(progress, width(sys.stderr), metric=clock.metric, left=left):
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - plain lines are the view here


def _event_lines(progress: Progress, columns: int, *, metric: str, left: str = "") -> Iterator[str]:
    """Yield the news of a step: what a run came to, a failed one's error cut to a line, and the step's note."""
    count = f"[{sum(progress.ended.values())}/{progress.planned}]"
    if progress.latest is not None:
        run, result = progress.latest
        if result.outcome is Outcome.FAILED:
            yield clipped(plain(f"{count} {run.name}: failed: {last_line(result.error)}"), columns)
        else:
            said = plain(f"{count} {run.name}: {_reached_text(result, metric=metric)}")
            yield f"{said}{left}" if cells(said) + cells(left) <= columns else wrapped(said, columns)
    if progress.note is not None:
        yield wrapped(plain(f"{count} {progress.note}"), columns)


def _reached_text(result: RunResult, *, metric: str) -> str:
    """Return what one run measured by itself: a single one says nothing of a comparison, and tells a broken run."""
    if result.outcome is Outcome.DIVERGED:
        return f"diverged in epoch {result.diverged_epoch}"
    value = result.metrics.get(metric)
    reached = f"{metric} {reported(value)}" if value is not None else f"no {metric}"
    return f"{reached} in {duration_text(result.metrics['total_seconds'])}"
