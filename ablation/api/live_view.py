"""Draws where a running study stands: how far it is, each variant's runs, its looks, and what is under way.

Of results it shows what single runs under way report, so that a broken one is noticed. Nothing is averaged, compared or
judged here: what a comparison came to is said when its look is complete, by the rule, and no one may act on it before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ablation.api.result import counts_text
from ablation.coordinator.progress import Progress, VariantRuns
from ablation.output import cells, clipped, plain, wrapped
from ablation.records import Epoch, EpochMetrics
from ablation.report.numbers import duration_text, reported

MOST_RUNS = 10
"""Runs under way that have a line."""
MOST_VARIANTS = 30
LEAST_ROWS = 3
LEAST_NAME = 16
"""Columns of a name, for which the columns behind it give way."""
BAR = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much a view may take up; `is_ascii` where the terminal shows no other characters."""

    columns: int
    rows: int
    is_ascii: bool = False


def standing_lines(
    progress: Progress,
    room: Room,
    *,
    left: float | None,
    epoch_text: Callable[[Epoch], str],
    ending: str | None = None,
) -> list[str]:
    """Return lines that fit into the room; where an end was asked for, `ending` stands in place of the seconds left."""
    head = [*_head(progress, room, time_left=time_left_text(left) if ending is None else "")]
    if ending is not None:
        head += wrapped(ending, room.columns).split("\n")
    below = max(2 * LEAST_ROWS, room.rows - len(head))
    of_runs = _limited(len(progress.running), below - min(len(progress.variants), below // 2), MOST_RUNS)
    of_variants = _limited(len(progress.variants), below - of_runs, MOST_VARIANTS)
    return [
        *head,
        *_variant_lines(progress, room, most=of_variants),
        *_running_lines(progress, room, epoch_text, most=of_runs),
    ]


def ending_text(progress: Progress | None, seconds: float) -> str:
    """Say what is waited for since an end was asked for, and how to wait no longer."""
    running = len(progress.running) if progress is not None else 0
    runs = f"{running} {'run' if running == 1 else 'runs'} under way to keep a checkpoint, and for " if running else ""
    return f"Ending ({seconds:.0f} s): waiting for {runs}MLflow to record it. Ctrl-C ends at once."


def _bar(done: int, asked: int, *, is_ascii: bool) -> str:
    """Return `███░░░░░░░`; it is full only where all is done."""
    full = min(BAR, BAR * done // max(1, asked))
    whole, rest = ("#", ".") if is_ascii else ("█", "░")
    return whole * full + rest * (BAR - full)


def _head(progress: Progress, room: Room, *, time_left: str) -> Iterator[str]:
    counts = f"{counts_text(progress.ended, progress.planned)}{time_left}"
    drawn = _bar(sum(progress.ended.values()), progress.planned, is_ascii=room.is_ascii)
    yield from wrapped(f"{drawn} {counts}", room.columns).split("\n")
    for line in (progress.look, progress.budget, progress.waiting):
        if line is not None:
            yield from wrapped(line, room.columns).split("\n")


def _limited(count: int, room: int, most: int) -> int:
    """Return how many lines a list gets: one for each, as far as there is room."""
    return min(count, max(LEAST_ROWS, room), most)


def _variant_lines(progress: Progress, room: Room, *, most: int) -> list[str]:
    """Return a line per variant in the plan's order; of more than there is room for, those under way come first."""
    variants = progress.variants
    if len(variants) > most:
        under_way = {run.variant for run, _ in progress.running}
        variants = tuple(sorted(variants, key=lambda one: (one.variant not in under_way, one.is_complete)))
    rows = [_variant_cells(one, room) for one in variants]
    return _listed(rows, room, most=most)


def _variant_cells(one: VariantRuns, room: Room) -> tuple[str, ...]:
    counts = f"{one.ended}/{one.asked}"
    return (one.variant, counts, _bar(one.ended, one.asked, is_ascii=room.is_ascii))


def _running_lines(progress: Progress, room: Room, epoch_text: Callable[[Epoch], str], *, most: int) -> list[str]:
    rows = [
        (run.name, "starting") if epoch is None else (run.name, epoch_text(epoch), *_epoch_texts(epoch))
        for run, epoch in progress.running
    ]
    return _listed(rows, room, most=most)


def _epoch_texts(epoch: Epoch) -> list[str]:
    if isinstance(epoch, EpochMetrics):
        score = next((name for name in epoch.heldout if name != "loss"), "loss")
        return [
            f"training loss {reported(epoch.train['loss'])}",
            f"held-out {score.replace('_', ' ')} {reported(epoch.heldout[score])}",
        ]
    return [f"{name} {value:.4g}" for name, value in list(epoch.metrics.items())[:2]]


def _listed(rows: Sequence[Sequence[str]], room: Room, *, most: int) -> list[str]:
    """Return the first rows, and how many more there are in the place of the last."""
    shown = rows if len(rows) <= most else rows[: max(1, most - 1)]
    lines = _aligned([[plain(cell) for cell in row] for row in shown], room.columns - 2)
    more = [f"and {len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
    return [f"  {line}" for line in (*lines, *more)]


def _aligned(rows: Sequence[Sequence[str]], columns: int) -> list[str]:
    """Return rows in columns, without the last ones where the names would have too little room, and names cut then."""
    widths = [max(map(cells, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    while len(widths) > 2 and sum(widths) + 2 * len(widths) - 2 > columns:
        widths.pop()
    if not widths:
        return []
    widths[0] = min(widths[0], max(LEAST_NAME, columns - sum(widths[1:]) - 2 * len(widths) + 2))
    return [_row(row, widths, columns) for row in rows]


def _row(row: Sequence[str], widths: Sequence[int], columns: int) -> str:
    kept = [clipped(cell, width) for cell, width in zip(row, widths, strict=False)]
    padded = [cell + " " * (width - cells(cell)) for cell, width in zip(kept, widths, strict=False)]
    return clipped("  ".join(padded).rstrip(), columns)


def time_left_text(seconds: float | None) -> str:
    return f", about {duration_text(seconds)} left" if seconds else ""
