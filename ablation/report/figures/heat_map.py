"""Draws two factors of several levels together: a cell per combination of levels, in its colour and with its mean."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ablation.analysis.analysis_record import Analysis
from ablation.drawing import DARK, text_of
from ablation.records import SIGNS
from ablation.report.figures.factor_pairs import PairPlot, pair_plots, short_name
from ablation.report.figures.panels import (
    Drawing,
    Margins,
    axis_label,
    draw_colours,
    grid,
    left_out,
    pages,
    sentence_case,
)
from ablation.report.numbers import NONE, decimals_for, in_brackets, magnitude, scale_of

_PANELS = 6
_ROW = 0.34
_WIDEST_OF_TWO = 8
"""Levels along x up to which two panels stand beside each other."""
_MOST_NUMBERED = 24
"""Levels along x up to which a mean fits into its cell."""
_DARK_FROM = 0.55
_MARGINS = Margins(left=0.95, between=1.05, below=0.55, bottom=0.55)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Colours:
    """The scale of colours of all panels, on the scale that means are shown on: the darker, the better."""

    low: float
    high: float
    is_rising: bool

    @property
    def map(self) -> str:
        return "Blues" if self.is_rising else "Blues_r"

    def is_dark(self, mean: float) -> bool:
        share = (mean - self.low) / ((self.high - self.low) or 1.0)
        return (share if self.is_rising else 1 - share) > _DARK_FROM


def heat_map_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield a panel per pair of factors of which one has three levels or more, all on one scale of colours."""
    plots = pair_plots(analysis, are_smallest=False)
    metric = analysis.metric
    text = (
        f"Mean {axis_label(metric)} by the levels of two factors, over seeds and the other factors' levels; "
        "the darker, the better; the baseline's levels are framed."
    ) + left_out(len(plots), "pairs of factors", size=_PANELS)
    for name, shown in pages("heat-map", plots, size=_PANELS):
        yield Drawing(name=name, title="means by two factors", text=text, figure=_figure(shown, plots, analysis))


def _figure(shown: Sequence[PairPlot], plots: Sequence[PairPlot], analysis: Analysis) -> Figure:
    metric = analysis.metric
    means = np.concatenate([_means(plot, scale_of(metric.unit)).ravel() for plot in plots])
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    colours = _Colours(low=low, high=high, is_rising=SIGNS[metric.direction] > 0)
    is_wide = len(shown) == 1 or max(len(plot.steps) for plot in shown) > _WIDEST_OF_TWO
    page = grid(
        [f"{short_name(plot.other)} (down) × {short_name(plot.along)}" for plot in shown],
        heading=f"{sentence_case(axis_label(metric))} by two factors",
        height=_ROW * max(len(plot.levels) for plot in shown),
        columns=1 if is_wide else 2,
        widest=min(9.0, 0.7 * max(len(plot.steps) for plot in shown)) if len(shown) == 1 else 9.0,
        margins=_MARGINS,
    )
    decimals = decimals_for((high - low) / 10 or None, [])
    for axes, plot in zip(page.panels, shown, strict=True):
        _draw_cells(axes, plot, _means(plot, scale_of(metric.unit)), colours, decimals)
    draw_colours(page, ScalarMappable(Normalize(low, high), colours.map), in_brackets(metric.unit).strip(" ()"))
    return page.figure


def _means(plot: PairPlot, scale: float) -> NDArray[np.float64]:
    """Return the means [level, step], scaled; NaN where there is none."""
    found = [[plot.cells.get((step, level)) for step in plot.steps] for level in plot.levels]
    return np.array(
        [[np.nan if each is None or each.mean is None else scale * each.mean for each in row] for row in found]
    )


def _draw_cells(axes: Axes, plot: PairPlot, means: NDArray[np.float64], colours: _Colours, decimals: int) -> None:
    axes.imshow(means, cmap=colours.map, vmin=colours.low, vmax=colours.high, aspect="auto", interpolation="nearest")
    axes.tick_params(length=0, labelsize=7.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    steps = [text_of(step, longest=max(3, min(14, 72 // len(plot.steps)))) for step in plot.steps]
    axes.set_xticks(range(len(steps)), steps)
    axes.set_yticks(range(len(plot.levels)), [text_of(level, longest=12) for level in plot.levels])
    axes.set_xlabel(short_name(plot.along), fontsize=8)
    if (cell := plot.baseline)[0] in plot.steps and cell[1] in plot.levels:
        corner = (plot.steps.index(cell[0]) - 0.5, plot.levels.index(cell[1]) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=DARK, linewidth=1.6, clip_on=False))
    if len(plot.steps) > _MOST_NUMBERED:
        return
    for (row, column), mean in np.ndenumerate(means):
        text = magnitude(mean, decimals) if not np.isnan(mean) else NONE
        colour = "white" if colours.is_dark(mean) else DARK
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
