"""Lays out errors: confusion and its differences beside chance, disagreement between runs, calibration."""

from collections.abc import Iterable, Sequence

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import MeasuredMetric
from ablation.analysis.descriptive_records import ConfusionDifference, ConfusionMatrix, VariantRow
from ablation.report.limits import reach_of
from ablation.report.numbers import NONE, signed, value_text
from ablation.report.table import Table, difference_cells
from ablation.report.tables import metric_decimals

_MOST_CLASSES = 12
_LARGEST = 3
_CALIBRATION = {"test_loss": "NLL (nats)", "test_brier_score": "Brier score"}


def confusions(analysis: Analysis) -> Table:
    """Return the three most frequent mistakes of each variant on each split."""
    rows = tuple(
        (matrix.variant, matrix.split, str(len(matrix.run_ids)), mistakes)
        for matrix in analysis.confusion
        if (mistakes := "; ".join(_mistakes(matrix, analysis.data.classes)))
    )
    return Table(
        head=("variant", "split", "runs", "true → answered (share of the true class)"), rows=rows, text_columns=4
    )


def confusion_counts(matrix: ConfusionMatrix, analysis: Analysis) -> Table | None:
    """Return the counts of one matrix, or None where there are too many classes to read."""
    classes = analysis.data.classes
    if len(classes) > _MOST_CLASSES:
        return None
    rows = tuple((name, *map(str, counts)) for name, counts in zip(classes, matrix.counts, strict=True))
    return Table(head=("true class", *classes), rows=rows)


def confusion_differences(analysis: Analysis) -> Table:
    """Return how far each variant's confusion is from the baseline's, beside what other seeds alone would do."""
    rows = tuple(
        (
            row.variant,
            f"{100 * row.size:.2f} points",
            f"{100 * row.reseeding_size:.2f} points" if row.reseeding_size is not None else NONE,
            str(row.n),
            "; ".join(_largest_changes(row, analysis.data.classes)) or NONE,
        )
        for row in analysis.confusion_differences
    )
    head = ("variant", "size of the difference", "other seeds alone", "n", "largest changes (other seeds alone)")
    return Table(head=head, rows=rows)


def disagreements(analysis: Analysis) -> Table:
    """Return on how many test images runs differ in being right."""
    rows = tuple((row.variant, _share(row.between_seeds), _share(row.with_baseline)) for row in analysis.disagreements)
    return Table(head=("variant", "two seeds of it", "it and the baseline, same seed"), rows=rows)


def calibration(analysis: Analysis) -> Table:
    """Return NLL and Brier score on test, with differences to the baseline and their 95 % intervals."""
    metrics = [metric for metric in analysis.metrics if metric.name in _CALIBRATION]
    rows = tuple(
        (
            row.name,
            *(
                cell
                for metric in metrics
                for cell in _calibration_cells(row, metric, metric_decimals(metric, analysis))
            ),
        )
        for row in analysis.variants
        if any(metric.name in row.spreads for metric in metrics)
    )
    names = [_CALIBRATION[metric.name] for metric in metrics]
    columns = [(f"{name}, mean ± SD", "difference", "95 % interval") for name in names]
    return Table(head=("variant", *(column for three in columns for column in three)), rows=rows)


def _calibration_cells(row: VariantRow, metric: MeasuredMetric, decimals: int) -> tuple[str, str, str]:
    spread, unit = row.spreads.get(metric.name), metric.unit
    if spread is None:
        return NONE, NONE, NONE
    sd = f" ± {value_text(spread.sd, unit)}" if spread.sd is not None else ""
    if row.is_baseline:
        return value_text(spread.mean, unit) + sd, "", ""
    difference = row.differences.get(metric.name)
    differences = difference_cells(difference, unit, reach=reach_of(metric), decimals=decimals)
    return value_text(spread.mean, unit) + sd, *differences


def _share(value: float | None) -> str:
    return f"{100 * value:.1f} %" if value is not None else NONE


def _largest_changes(row: ConfusionDifference, classes: Sequence[str]) -> Iterable[str]:
    cells = [
        (change, true, answered)
        for true, changes in enumerate(row.difference)
        for answered, change in enumerate(changes)
        if change and true != answered
    ]
    for change, true, answered in sorted(cells, key=lambda cell: (-abs(cell[0]), *cell[1:]))[:_LARGEST]:
        chance = f" ({100 * row.reseeding[true][answered]:.1f})" if row.reseeding is not None else ""
        yield f"{classes[true]} → {classes[answered]} {signed(100 * change, 1)} points{chance}"


def _mistakes(matrix: ConfusionMatrix, classes: Sequence[str]) -> Iterable[str]:
    counted = [
        (count, true, answered)
        for true, row in enumerate(matrix.counts)
        for answered, count in enumerate(row)
        if count and true != answered
    ]
    for count, true, answered in sorted(counted, key=lambda mistake: (-mistake[0], *mistake[1:]))[:3]:
        yield f"{classes[true]} → {classes[answered]} {100 * count / sum(matrix.counts[true]):.1f} %"
