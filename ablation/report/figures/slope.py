"""Draws from the baseline to each variant the line of every seed, and thick that of the means."""

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import MeasuredMetric
from ablation.analysis.descriptive_records import VariantRow
from ablation.drawing import BLUE, DARK, GREY, VERMILLION, wrapped
from ablation.records import SIGNS
from ablation.report.figures.panels import (
    Drawing,
    Margins,
    Scale,
    add_lines,
    alpha_of,
    axis_label,
    grid,
    label_sides,
    left_out,
    pages,
    scale_over,
    sentence_case,
    share_scale,
    within,
)
from ablation.report.numbers import scale_of

_MARGINS = Margins(bottom=0.28)

_BESIDE = Scale(ends=(-0.12, 1.12), ticks=(0.0, 1.0))


def slope_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield a panel per variant that has runs, all on one scale; nothing where the baseline has none."""
    pairs = [(analysis.reference(row), row) for row in analysis.variants]
    variants = [row for reference, row in pairs if reference is not row and reference.values and row.values]
    if not variants:
        return
    beside = {row.name: reference for reference, row in pairs}
    metric = analysis.metric
    scale = scale_of(metric.unit)
    values = [scale * value.value for row in variants for of in (beside[row.name], row) for value in of.values]
    ends = scale_over(values, unit=metric.unit)
    text = (
        f"{axis_label(metric)} of every seed (thin) and the mean (thick), from the baseline to each variant. Seeds "
        "that got better are blue, worse ones vermillion, equal ones grey; dots without a line have no run to "
        "pair with."
    ) + left_out(len(variants), "variants")
    for name, shown in pages("slope", variants):
        heading = f"{sentence_case(axis_label(metric))} by seed, from the baseline to each variant"
        titles = [wrapped(row.name, longest=_longest(len(shown))) for row in shown]
        page = grid(titles, heading=heading, height=1.55, margins=_MARGINS)
        share_scale(page, x=_BESIDE, y=ends)
        for axes, row in zip(page.panels, shown, strict=True):
            _draw_slopes(axes, beside[row.name], row, metric)
        for index, axes in enumerate(page.panels):
            if page.is_lowest(index):
                axes.set_xticks(_BESIDE.ticks, ["baseline", "variant"], fontsize=7.5)
        label_sides(page, x="", y=axis_label(metric))
        yield Drawing(
            name=name, title="seeds from the baseline to each variant", text=sentence_case(text), figure=page.figure
        )


def _longest(count: int) -> int:
    return 30 if count > 3 else 34


def _draw_slopes(axes: Axes, baseline: VariantRow, row: VariantRow, metric: MeasuredMetric) -> None:
    scale = scale_of(metric.unit)
    before = {value.seed: value.value for value in baseline.values}
    after = {value.seed: value.value for value in row.values}
    paired = [seed for seed in before if seed in after]
    lines = [within([(0, before[seed]), (1, after[seed])], scale=scale) for seed in paired]
    colours = [_colour(after[seed] - before[seed], metric) for seed in paired]
    look: dict[str, Any] = {"colors": colours, "linewidths": 0.9, "alpha": alpha_of(len(lines))}
    add_lines(axes, lines, **look)
    _draw_unpaired(axes, 0, [scale * value for seed, value in before.items() if seed not in after])
    _draw_unpaired(axes, 1, [scale * value for seed, value in after.items() if seed not in before])
    means = [of.spreads[metric.name].mean for of in (baseline, row) if metric.name in of.spreads]
    if len(means) == 2:
        axes.plot([0, 1], [scale * mean for mean in means], "o-", color=DARK, lw=2, markersize=4, zorder=4, gid="mean")


def _draw_unpaired(axes: Axes, position: int, values: Sequence[float]) -> None:
    axes.plot([position] * len(values), values, "o", markersize=3, markerfacecolor="none", color=GREY, zorder=3)


def _colour(change: float, metric: MeasuredMetric) -> str:
    if change == 0:
        return GREY
    return BLUE if SIGNS[metric.direction] * change > 0 else VERMILLION
