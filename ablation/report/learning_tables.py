"""Lays out how the variants learn: curves, epochs to a target, loss at equal training loss, the best epoch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import LearningTarget, Points, Spread, TargetRow
from ablation.records import TASKS, Unit, declared_metrics
from ablation.report.names import training_function
from ablation.report.numbers import (
    NONE,
    decimals_for,
    duration_text,
    magnitude,
    scale_of,
    unit_of_differences,
    value_text,
)
from ablation.report.table import Table, difference_cells, shared_decimals

_NOT_LEARNING = ("epoch_seconds", "images_per_second", "learning_rate")
_MOST_REPORTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnCurve:
    """A curve that is drawn: its name in the records, the one in the report, its unit, its figure's file."""

    name: str
    title: str
    unit: str
    file: str


def curves(analysis: Analysis) -> Table:
    """Return the median over seeds of the curves that are drawn, after the first, the middle and the last epoch."""
    rows = tuple(row for variant in analysis.curves for row in _curve_rows(analysis, variant.variant, variant.median))
    return Table(head=("variant", "curve", "first epoch", "middle", "last"), rows=rows, text_columns=2)


def drawn_curves(analysis: Analysis) -> tuple[DrawnCurve, ...]:
    """Return the curves that are drawn, the split in the title; of a user's own function, the first six it reports."""
    split, task = analysis.heldout_split, TASKS[analysis.data.task]
    if training_function(analysis):
        return tuple(
            DrawnCurve(name=name, title=name, unit="score", file=f"reported-{number}")
            for number, name in enumerate(_reported(analysis)[:_MOST_REPORTED], start=1)
        )
    return (
        DrawnCurve(
            name=f"{split}_{task.score}",
            title=f"{split} {task.scores[task.score].label}",
            unit=task.scores[task.score].unit,
            file=f"{split}-{task.score.replace('_', '-')}",
        ),
        DrawnCurve(name=f"{split}_loss", title=f"{split} loss", unit=task.loss_unit, file=f"{split}-loss"),
        DrawnCurve(name="train_loss", title="training loss", unit=task.loss_unit, file="train-loss"),
        *_own_curves(analysis),
    )


def _own_curves(analysis: Analysis) -> Iterator[DrawnCurve]:
    """Yield the curves of metrics of the user's own that were measured after every epoch."""
    split = analysis.heldout_split
    for number, metric in enumerate(declared_metrics(analysis.study), start=1):
        if metric.is_of_epochs:
            title, unit = f"{split} {metric.name}", metric.metric().unit
            yield DrawnCurve(name=f"{split}_{metric.name}", title=title, unit=unit, file=f"own-{number}")


def targets(analysis: Analysis) -> Table:
    """Return how fast each variant reached each target, as restricted means with 95 % intervals of the differences."""
    found = [row for target in analysis.targets for row in target.rows]
    epochs = shared_decimals([row.epochs_difference for row in found], "epochs")
    seconds = shared_decimals([row.seconds_difference for row in found], "seconds")
    unit = _unit_of_score(analysis)
    rows = tuple(_target_row(target, row, unit, epochs, seconds) for target in analysis.targets for row in target.rows)
    head = (
        "target",
        "variant",
        "reached",
        "rate, 95 %",
        "epochs",
        "difference",
        "95 % interval",
        "seconds",
        "difference",
    )
    return Table(head=(*head, "95 % interval"), rows=rows, text_columns=2)


def matched_losses(analysis: Analysis) -> Table:
    """Return held-out losses at equal training loss, against the baseline's."""
    unit = TASKS[analysis.data.task].loss_unit
    decimals = shared_decimals([row.difference for row in analysis.matched_losses], unit)
    rows = tuple(
        (
            row.variant,
            value_text(row.train_loss, unit),
            value_text(row.heldout_loss, unit),
            value_text(row.baseline_heldout_loss, unit),
            *difference_cells(row.difference, unit, decimals=decimals),
            str(row.difference.n),
        )
        for row in analysis.matched_losses
    )
    split = analysis.heldout_split
    head = ("variant", "training loss", f"{split} loss", "the baseline's", "difference", "95 % interval", "n")
    return Table(head=head, rows=rows)


def best_epochs(analysis: Analysis) -> Table:
    """Return what choosing each run's best epoch on the held-out curve would seem to gain."""
    unit = _unit_of_score(analysis)
    gains = [scale_of(unit) * row.optimism.mean for row in analysis.best_epochs]
    decimals = decimals_for(None, gains) if unit != "fraction" else 2
    rows = tuple(
        (
            row.variant,
            value_text(row.last, unit),
            value_text(row.best, unit),
            f"{magnitude(scale_of(unit) * row.optimism.mean, decimals)} {unit_of_differences(unit)}".rstrip(),
            f"{row.median_epoch:g}",
            str(row.n),
        )
        for row in analysis.best_epochs
    )
    head = ("variant", "last epoch", "best epoch of each run", "would seem to gain", "median best epoch", "n")
    return Table(head=head, rows=rows)


def _unit_of_score(analysis: Analysis) -> Unit:
    task = TASKS[analysis.data.task]
    return task.scores[task.score].unit


def _target_row(target: LearningTarget, row: TargetRow, unit: Unit, epochs: int, seconds: int) -> tuple[str, ...]:
    reached = value_text(target.value, unit)
    return (
        f"{reached} ({100 * target.share_of_baseline:.0f} % of the baseline's)",
        row.variant,
        f"{row.reached} of {row.n}",
        f"{100 * row.share.low:.0f} to {100 * row.share.high:.0f} %",
        _mean(row.epochs),
        *difference_cells(row.epochs_difference, "epochs", decimals=epochs),
        duration_text(row.seconds.mean) if row.seconds else NONE,
        *difference_cells(row.seconds_difference, "seconds", decimals=seconds),
    )


def _mean(spread: Spread) -> str:
    return f"{spread.mean:.1f}"


def _curve_rows(analysis: Analysis, variant: str, median: Mapping[str, Points]) -> Iterator[tuple[str, ...]]:
    for curve in drawn_curves(analysis):
        points = median.get(curve.name)
        if points:
            chosen = (points[0], points[len(points) // 2], points[-1])
            yield variant, curve.title, *(f"{value_text(value, curve.unit)} ({epoch})" for epoch, value in chosen)


def _reported(analysis: Analysis) -> list[str]:
    names = dict.fromkeys(name for variant in analysis.curves for seed in variant.seeds for name in seed.curves)
    return [name for name in names if name not in _NOT_LEARNING]
