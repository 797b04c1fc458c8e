"""Draws two factors of two levels together: a line of means per level of the second, every seed's point."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import FactorCell
from ablation.drawing import BLUE, VERMILLION, text_of
from ablation.report.figures.factor_pairs import PairPlot, pair_plots, short_name
from ablation.report.figures.panels import (
    Drawing,
    Margins,
    alpha_of,
    axis_label,
    grid,
    label_ends,
    label_sides,
    left_out,
    pages,
    scale_over,
    sentence_case,
    share_scale,
)
from ablation.report.numbers import scale_of

_COLOURS = (BLUE, VERMILLION)
_MARKERS = "os"
_SHIFT = 0.03
_PANELS = 8
_HEIGHT = 2.2
_MARGINS = Margins(right=1.35, between=1.5, below=0.5, bottom=0.48)


def interaction_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield a panel per pair of factors of two levels each, all on one scale; heat maps have the other pairs."""
    plots = pair_plots(analysis, are_smallest=True)
    if not plots:
        return
    metric, scale = analysis.metric, scale_of(analysis.metric.unit)
    values = [value.value for plot in plots for cell in plot.cells.values() for value in cell.values]
    ends = scale_over([scale * value for value in values], unit=metric.unit)
    text = (
        f"{sentence_case(axis_label(metric))} by the levels of two factors: means as lines, every seed as a dot. "
        "Parallel lines mean that the factors add up."
    ) + left_out(len(plots), "pairs of factors", size=_PANELS)
    for name, shown in pages("interaction", plots, size=_PANELS):
        heading = f"{sentence_case(axis_label(metric))}: factors together"
        titles = [plot.title for plot in shown]
        page = grid(titles, heading=heading, height=_HEIGHT, columns=min(len(shown), 2), margins=_MARGINS)
        share_scale(page, x=None, y=ends)
        label_sides(page, x="", y=axis_label(metric))
        for axes, plot in zip(page.panels, shown, strict=True):
            _draw_plot(axes, plot, scale)
        yield Drawing(name=name, title="factors together", text=text, figure=page.figure)


def _draw_plot(axes: Axes, plot: PairPlot, scale: float) -> None:
    ends = []
    for level, colour, marker, shift in zip(plot.levels, _COLOURS, _MARKERS, (-_SHIFT, _SHIFT), strict=True):
        cells = [plot.cells.get((step, level)) for step in plot.steps]
        means = [np.nan if cell is None or cell.mean is None else scale * cell.mean for cell in cells]
        look: dict[str, Any] = {"color": colour, "marker": marker, "lw": 1.7, "markersize": 4.5}
        axes.plot(np.arange(len(cells)) + shift, means, **look, zorder=3, gid="mean")
        _draw_seeds(axes, cells, shift, scale, colour)
        known = [mean for mean in means if not np.isnan(mean)]
        if known:
            ends.append((known[-1], f"{short_name(plot.other)} {level}", colour))
    names = [text_of(step, longest=14) for step in plot.steps]
    axes.set_xticks(range(len(names)), names, fontsize=7.5)
    axes.set_xlim(-0.35, len(plot.steps) - 0.65)
    axes.set_xlabel(short_name(plot.along), fontsize=8)
    label_ends(axes, ends, height=_HEIGHT)


def _draw_seeds(axes: Axes, cells: Sequence[FactorCell | None], shift: float, scale: float, colour: str) -> None:
    points = [
        (step + shift, scale * value.value)
        for step, cell in enumerate(cells)
        if cell is not None
        for value in cell.values
    ]
    if points:
        x, y = zip(*points, strict=True)
        alpha = min(0.5, alpha_of(len(points)))
        axes.plot(x, y, "o", markersize=3, color=colour, alpha=alpha, markeredgewidth=0, zorder=2, gid="seeds")
