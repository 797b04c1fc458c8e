"""Lays out what a report says of the errors of each task: its section, in words, and the table of its own numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import Spread, TaskDetail
from ablation.records import ERROR_QUANTILES, TaskName
from ablation.report.numbers import NONE, value_text
from ablation.report.table import Table, difference_cells, shared_decimals

_MOST_CLASSES = 12
"""Whose numbers are shown; of more, those that differ most from the baseline's."""
_QUANTILES = {0.0: "lowest", 0.5: "median", 1.0: "highest"}
NO_TABLE = Table(head=(), rows=())


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSection:
    """A task's section on errors: its heading, what it holds in a few words, what its table shows, and the table.

    `counted` is what the counts of its confusion matrices are of, `units` those of its metrics.
    """

    heading: str
    summary: str
    text: str
    table: Callable[[Analysis], Table]
    counted: str
    units: str
    has_calibration: bool = False


def details(analysis: Analysis) -> Table:
    """Return the table of the task's own numbers on the test split; empty where it has none."""
    return TASK_SECTIONS[analysis.data.task].table(analysis)


def _none(_: Analysis) -> Table:
    return NO_TABLE


def _quantiles(analysis: Analysis) -> Table:
    """Return the quantiles of the test errors by variant, means over its runs."""
    found = {(detail.variant, detail.of): detail.spread.mean for detail in analysis.details}
    names = [f"{quantile:g}" for quantile in ERROR_QUANTILES]
    variants = list(dict.fromkeys(detail.variant for detail in analysis.details))
    rows = tuple(
        (variant, *(value_text(found[variant, name], "target") for name in names if (variant, name) in found))
        for variant in variants
    )
    head = ("variant", *(_QUANTILES.get(quantile, f"{100 * quantile:g} %") for quantile in ERROR_QUANTILES))
    return Table(head=head, rows=rows)


def _by_class(analysis: Analysis) -> Table:
    """Return a row per class and variant: the number, and its difference to the baseline's."""
    shown = _largest(analysis.details)
    decimals = shared_decimals([detail.difference for detail in shown], "fraction")
    rows = tuple(
        (
            detail.of,
            detail.variant,
            _mean_and_sd(detail.spread),
            *(
                ("", "")
                if detail.variant == analysis.baseline
                else difference_cells(detail.difference, "fraction", reach=1.0, decimals=decimals)
            ),
            str(detail.spread.n),
        )
        for detail in shown
    )
    head = ("class", "variant", "mean ± SD", "difference to the baseline", "95 % interval", "n")
    return Table(head=head, rows=rows, text_columns=2)


def _largest(found: Sequence[TaskDetail]) -> list[TaskDetail]:
    """Return the numbers of the classes that differ most from the baseline's, in the order of the classes."""
    classes = list(dict.fromkeys(detail.of for detail in found))
    apart = {
        name: max((abs(each.difference.mean) for each in found if each.of == name and each.difference), default=0.0)
        for name in classes
    }
    kept = set(sorted(classes, key=lambda name: -apart[name])[:_MOST_CLASSES])
    return [detail for detail in found if detail.of in kept]


def _tokens(analysis: Analysis) -> Table:
    """Return what a token costs, means over runs: in nats, in bits, and e to the power of the nats, the perplexity."""
    rows = []
    for row in analysis.variants:
        spread = row.spreads.get("test_nll")
        if spread is not None:
            bits, accuracy = (row.spreads.get(name) for name in ("test_bits", "test_accuracy"))
            rows.append(
                (
                    row.name,
                    value_text(spread.mean, "nats"),
                    value_text(bits.mean, "bits") if bits else NONE,
                    value_text(_perplexity(spread.mean), "score"),
                    value_text(accuracy.mean, "fraction") if accuracy else NONE,
                    str(spread.n),
                )
            )
    head = ("variant", "nats per token", "bits per token", "perplexity", "right tokens", "n")
    return Table(head=head, rows=tuple(rows))


def _perplexity(nats: float) -> float:
    return math.exp(min(nats, 690.0))  # the largest that a float holds


def _mean_and_sd(spread: Spread) -> str:
    sd = f" ± {value_text(spread.sd, 'fraction')}" if spread.sd is not None else ""
    return value_text(spread.mean, "fraction").removesuffix(" %" if sd else "") + sd


TASK_SECTIONS: Mapping[TaskName, TaskSection] = {
    "classification": TaskSection(
        heading="Errors and calibration",
        summary="confusion, disagreement, calibration",
        text="",
        table=_none,
        counted="answer",
        units="accuracies and areas in percent, losses in nats",
        has_calibration=True,
    ),
    "regression": TaskSection(
        heading="Errors",
        summary="how far predictions are from their targets",
        text=(
            "Errors on test (prediction minus target, in the targets' unit) by their quantiles: 90 % of them lie "
            "between the columns 5 % and 95 %. Means over a variant's runs:"
        ),
        table=_quantiles,
        counted="answer",
        units="RMSE and MAE in the targets' unit, the loss in that of what is trained on",
    ),
    "multilabel": TaskSection(
        heading="Labels",
        summary="F1 of each label",
        text=(
            f"F1 of each label on test, descriptive (95 %, unadjusted); of more than {_MOST_CLASSES} labels those that "
            "differ most from the baseline's:"
        ),
        table=_by_class,
        counted="answer",
        units="F1, AUROC, average precision and areas in percent, losses in nats",
    ),
    "tokens": TaskSection(
        heading="Tokens",
        summary="nats, bits and perplexity",
        text=(
            "What a token of the test split costs: the mean negative log-likelihood in nats, the same in bits (nats "
            "divided by ln 2), and the perplexity, e to the power of the nats: as many equally likely tokens would be "
            "as hard to tell. Ignored positions do not count."
        ),
        table=_tokens,
        counted="answer",
        units="accuracies and areas in percent, losses in nats",
    ),
    "segmentation": TaskSection(
        heading="Classes",
        summary="IoU of each class, confusion of pixels",
        text=(
            f"IoU of each class on test, descriptive (95 %, unadjusted); of more than {_MOST_CLASSES} classes those "
            "that differ most from the baseline's:"
        ),
        table=_by_class,
        counted="answer, in pixels",
        units="IoU, Dice, accuracies and areas in percent, losses in nats",
    ),
}
"""What the report says of errors, by task."""
