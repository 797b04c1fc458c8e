"""Draws two factors together: the levels of one along x, a line of means per level of the other, every seed's point."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import FactorCell, FactorPair
from ablation.drawing import BLUE, DARK, GREEN, ORANGE, PURPLE, SKY, VERMILLION, text_of
from ablation.report.figures.panels import (
    Drawing,
    Margins,
    alpha_of,
    axis_label,
    grid,
    label_sides,
    left_out,
    pages,
    scale_over,
    sentence_case,
    share_scale,
)
from ablation.report.numbers import scale_of
from ablation.study.level_names import level_text, short_name

_COLOURS = (BLUE, VERMILLION, GREEN, DARK, PURPLE, ORANGE, SKY)
_DASHES = ("-", "--", ":")
_MARKERS = "osD^vPX"
_PANELS = 8
_MARGINS = Margins(right=1.35, between=1.5, below=0.5, bottom=0.48)
_LABEL_HEIGHT = 0.135


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    """A pair of factors as it is drawn: `along` is the one with more levels, so that lines are few."""

    along: str
    lines: str
    steps: tuple[str, ...]
    levels: tuple[str, ...]
    cells: Mapping[tuple[str, str], FactorCell]


def interaction_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield a panel per pair of factors that has a mean, all on one scale."""
    plots = [_plot(pair, analysis) for pair in analysis.factor_pairs if any(cell.values for cell in pair.cells)]
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
        height = max(2.2, _LABEL_HEIGHT * max(len(plot.levels) for plot in shown) + 0.2)
        heading = f"{sentence_case(axis_label(metric))}: factors together"
        titles = [f"{_short(plot.along)} × {_short(plot.lines)}" for plot in shown]
        page = grid(titles, heading=heading, height=height, columns=min(len(shown), 2), margins=_MARGINS)
        share_scale(page, x=None, y=ends)
        label_sides(page, x="", y=axis_label(metric))
        for axes, plot in zip(page.panels, shown, strict=True):
            _draw_plot(axes, plot, scale, height)
        yield Drawing(name=name, title="factors together", text=text, figure=page.figure)


def _plot(pair: FactorPair, analysis: Analysis) -> _Plot:
    counts = {factor: len(_levels(factor, pair, analysis)) for factor in (pair.first, pair.second)}
    along, lines = sorted(counts, key=lambda factor: -counts[factor])
    return _Plot(
        along=along,
        lines=lines,
        steps=_levels(along, pair, analysis),
        levels=_levels(lines, pair, analysis),
        cells={(level_text(cell.levels[along]), level_text(cell.levels[lines])): cell for cell in pair.cells},
    )


def _levels(factor: str, pair: FactorPair, analysis: Analysis) -> tuple[str, ...]:
    """Return a factor's levels that the pair has, in the study's order."""
    found: dict[str, Any] = dict.fromkeys(level_text(cell.levels[factor]) for cell in pair.cells)
    ordered = [text for text in map(level_text, analysis.factors.get(factor, ())) if text in found]
    return tuple(dict.fromkeys([*ordered, *found]))


def _short(factor: str) -> str:
    return text_of(short_name(factor))


def _draw_plot(axes: Axes, plot: _Plot, scale: float, height: float) -> None:
    ends = []
    for index, level in enumerate(plot.levels):
        cells = [plot.cells.get((step, level)) for step in plot.steps]
        means = [np.nan if cell is None or cell.mean is None else scale * cell.mean for cell in cells]
        shift = 0.06 * (index - (len(plot.levels) - 1) / 2) / max(1, len(plot.levels) / 4)
        look: dict[str, Any] = {
            "color": _COLOURS[index % len(_COLOURS)],
            "linestyle": _DASHES[index // len(_COLOURS) % len(_DASHES)],
            "marker": _MARKERS[index % len(_MARKERS)],
        }
        axes.plot(np.arange(len(cells)) + shift, means, **look, lw=1.7, markersize=4.5, zorder=3, gid="mean")
        _draw_seeds(axes, cells, shift, scale, look["color"])
        known = [mean for mean in means if not np.isnan(mean)]
        if known:
            ends.append((known[-1], level, look["color"]))
    longest = max(3, min(14, 36 // len(plot.steps)))
    names = [text_of(step, longest=longest) for step in plot.steps]
    axes.set_xticks(range(len(names)), names, fontsize=7.5)
    axes.set_xlim(-0.35, len(plot.steps) - 0.65)
    axes.set_xlabel(_short(plot.along), fontsize=8)
    _label_ends(axes, ends, plot.lines, height)


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


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], factor: str, height: float) -> None:
    """Write each line's level beside its end, moved apart where labels would overlap."""
    low, high = axes.get_ylim()
    gap = _LABEL_HEIGHT / height
    ordered = sorted(ends)
    places = _apart([(value - low) / (high - low) for value, _, _ in ordered], gap)
    for place, (_, level, colour) in zip(places, ordered, strict=True):
        text = text_of(f"{short_name(factor)} {level}", longest=21)
        axes.text(1.02, place, text, transform=axes.transAxes, va="center", fontsize=7.5, color=colour)


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Return ascending places moved up, then down from the top, until none is nearer to the next than `gap`."""
    moved = list(places)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + gap)
    ceiling = 1.0
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved
