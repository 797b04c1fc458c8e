"""Lays out errors: confusion and its differences beside chance, disagreement between runs, calibration."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import MeasuredMetric
from ablation.analysis.descriptive_records import ConfusionDifference, ConfusionMatrix, Spread, VariantRow
from ablation.records import TaskName
from ablation.report.limits import reach_of
from ablation.report.numbers import NONE, ratio_text, signed, value_text
from ablation.report.table import Table, difference_cells, shared_decimals
from ablation.report.tables import metric_decimals
from ablation.report.task_words import words_of

_MOST_CLASSES = 12
_LARGEST = 3
_NLL = "test_nll"
_MOST_NATS = 600.0
"""Beyond which a perplexity is no number any more."""
_MOST_ITEMS = 24
"""Labels or classes that a table lists."""


def confusions(analysis: Analysis) -> Table:
    """Return the three most frequent mistakes of each variant on each split."""
    rows = tuple(
        (matrix.variant, matrix.split, str(len(matrix.run_ids)), mistakes)
        for matrix in analysis.confusion
        if (mistakes := "; ".join(_mistakes(matrix, analysis.data.classes_of(matrix.variant))))
    )
    return Table(
        head=("variant", "split", "runs", "true → answered (share of the true class)"), rows=rows, text_columns=4
    )


def confusion_counts(matrix: ConfusionMatrix, analysis: Analysis) -> Table | None:
    """Return the counts of one matrix, or None where there are too many classes to read."""
    classes = analysis.data.classes_of(matrix.variant)
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
            "; ".join(_largest_changes(row, analysis.data.classes_of(row.variant))) or NONE,
        )
        for row in analysis.confusion_differences
    )
    head = ("variant", "size of the difference", "other seeds alone", "n", "largest changes (other seeds alone)")
    return Table(head=head, rows=rows)


def disagreements(analysis: Analysis) -> Table:
    """Return on how many test examples runs differ in being right."""
    rows = tuple((row.variant, _share(row.between_seeds), _share(row.with_baseline)) for row in analysis.disagreements)
    return Table(head=("variant", "two seeds of it", "it and the baseline, same seed"), rows=rows)


def calibration(analysis: Analysis) -> Table:
    """Return what the task has of probabilities on test, with differences to the baseline and their 95 % intervals."""
    known = words_of(analysis).calibration
    metrics = [metric for metric in analysis.metrics if metric.name in known]
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
    names = [known[metric.name] for metric in metrics]
    columns = [(f"{name}, mean ± SD", "difference", "95 % interval") for name in names]
    return Table(head=("variant", *(column for three in columns for column in three)), rows=rows)


def perplexities(analysis: Analysis) -> Table:
    """Return each variant's perplexity, e to its mean NLL per token, and how it compares with the baseline's."""
    known = {row.name: row.spreads[_NLL].mean for row in analysis.variants if _NLL in row.spreads}

    def beside(row: VariantRow) -> str:
        reference = analysis.reference(row)
        if reference is row:
            return ""
        return _ratio(known[row.name] - known[reference.name]) if reference.name in known else NONE

    rows = tuple(
        (row.name, _perplexity(known[row.name]), beside(row)) for row in analysis.variants if row.name in known
    )
    return Table(head=("variant", "perplexity", "against the baseline"), rows=rows)


def _perplexity(nll: float) -> str:
    return value_text(math.exp(min(nll, _MOST_NATS)), "target")


def _ratio(difference: float) -> str:
    return ratio_text(math.exp(min(difference, _MOST_NATS)))


def details(analysis: Analysis) -> Table:
    """Return what the task alone measures of the test split: of a regression, quantiles of its errors."""
    return _DETAILS[analysis.data.task](analysis)


def details_left_out(analysis: Analysis) -> int:
    """Return how many labels or classes the table of details does not list."""
    return max(0, len({detail.item for detail in analysis.details}) - _MOST_ITEMS) if analysis.data.classes else 0


def _no_details(analysis: Analysis) -> Table:  # noqa: ARG001 - it has none
    return Table(head=("variant",), rows=())


def _error_quantiles(analysis: Analysis) -> Table:
    by_variant: dict[str, dict[str, float]] = {}
    for detail in analysis.details:
        by_variant.setdefault(detail.variant, {})[detail.item] = detail.spread.mean
    items = list(dict.fromkeys(detail.item for detail in analysis.details))
    rows = tuple(
        (variant, *(value_text(found[item], "target") if item in found else NONE for item in items))
        for variant, found in by_variant.items()
    )
    return Table(head=("variant", *items), rows=rows)


def _by_class(what: str, noun: str, analysis: Analysis) -> Table:
    """Return a row for each label or class and variant."""
    items = list(dict.fromkeys(detail.item for detail in analysis.details))[:_MOST_ITEMS]
    shown = [detail for detail in analysis.details if detail.item in items]
    decimals = shared_decimals([detail.difference for detail in shown], "fraction")
    rows = tuple(
        (
            detail.item,
            detail.variant,
            mean_and_sd_text(detail.spread, "fraction"),
            *(
                ("", "")
                if detail.variant == analysis.baseline
                else difference_cells(detail.difference, "fraction", reach=1.0, decimals=decimals)
            ),
            str(detail.spread.n),
        )
        for detail in shown
    )
    head = (noun, "variant", f"{what}, mean ± SD", "difference", "95 % interval", "n")
    return Table(head=head, rows=rows, text_columns=2)


_DETAILS: Mapping[TaskName, Callable[[Analysis], Table]] = {
    "classification": _no_details,
    "regression": _error_quantiles,
    "multilabel": partial(_by_class, "F1", "label"),
    "tokens": _no_details,
    "segmentation": partial(_by_class, "IoU", "class"),
}


def mean_and_sd_text(spread: Spread, unit: str) -> str:
    """Return `82.83 % ± 0.41 %`, or the mean alone with one run."""
    sd = f" ± {value_text(spread.sd, unit)}" if spread.sd is not None else ""
    return value_text(spread.mean, unit) + sd


def _calibration_cells(row: VariantRow, metric: MeasuredMetric, decimals: int) -> tuple[str, str, str]:
    spread, unit = row.spreads.get(metric.name), metric.unit
    if spread is None:
        return NONE, NONE, NONE
    shown = mean_and_sd_text(spread, unit)
    if row.is_baseline:
        return shown, "", ""
    difference = row.differences.get(metric.name)
    differences = difference_cells(difference, unit, reach=reach_of(metric), decimals=decimals)
    return shown, *differences


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
