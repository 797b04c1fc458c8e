"""Draws the rows of the first screen: each comparison's seeds, mean and interval over what is too small to matter.

At the widths that papers print at, 6.75 inches across a page and 3.3 inches in a column; no text is below 6 points.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ablation.analysis.analysis_record import Analysis
from ablation.drawing import DARK, GREY, line_width, quiet, text_of
from ablation.output import cells, folded
from ablation.report.figures.panels import MOST_PAGES, Drawing, alpha_of, left_out, scale_for
from ablation.report.limits import reach_of
from ablation.report.numbers import scale_of
from ablation.report.rows import FirstScreen, MetricRows, Row, first_screen

_ROWS = 40
_LINE = 0.135
"""The height of a line of text, in inches."""
_LETTER = 0.0088
"""The width of a digit in inches, for each point of its size; bold ones are a tenth wider."""
_TOP, _AXIS, _BETWEEN = 0.03, 0.2, 0.06
_BAND, _FAINT = "#e6e6e6", "#dddddd"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """Where things stand across a figure, in inches from the left, and how many letters go on a line of each."""

    name: str
    width: float
    change: float
    verdict: float | None
    drawing: tuple[float, float]
    letters: int
    verdict_letters: int
    heading_letters: int
    has_bounds: bool
    size: float


_PAGE = _Form(
    name="forest",
    width=6.75,
    change=0.02,
    verdict=2.22,
    drawing=(3.62, 5.52),
    letters=32,
    verdict_letters=20,
    heading_letters=120,
    has_bounds=True,
    size=7.5,
)
_COLUMN = _Form(
    name="forest-column",
    width=3.3,
    change=0.02,
    verdict=None,  # below the change
    drawing=(1.62, 2.78),
    letters=25,
    verdict_letters=26,
    heading_letters=52,
    has_bounds=False,
    size=6.5,
)


def forest_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield the rows at the width of a page, or nothing where no comparison has a number."""
    yield from _drawings(analysis, _PAGE)


def column_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield the rows at the width of a column."""
    yield from _drawings(analysis, _COLUMN)


def _drawings(analysis: Analysis, form: _Form) -> Iterator[Drawing]:
    screen = first_screen(analysis)
    if not any(row.dots for row in screen.rows):
        return
    for page, groups in enumerate(_pages(screen)):
        text = (
            "Every comparison, what is decided first and then by size: every seed's difference (dots), their mean "
            "(diamond) and interval (bar; an arrow where it goes on), and what is too small to matter (grey band)."
        ) + left_out(len(screen.rows), "comparisons", size=_ROWS)
        name = f"{form.name}-{page + 1}" if page else form.name
        yield Drawing(name=name, title="answers", text=text, figure=_figure(groups, form))


def _pages(screen: FirstScreen) -> list[list[MetricRows]]:
    """Return the rows of each page, at most two pages of them."""
    pages: list[list[MetricRows]] = []
    room = 0
    for group in screen.groups:
        rows = group.rows
        while rows:
            if not room:
                pages.append([])
                room = _ROWS
            pages[-1].append(replace(group, rows=rows[:room]))
            rows, room = rows[room:], max(0, room - len(rows))
    return pages[:MOST_PAGES]


def _figure(groups: Sequence[MetricRows], form: _Form) -> Figure:
    heights = [_height(group, form) for group in groups]
    total = sum(heights) + _TOP
    figure = Figure(figsize=(form.width, total))
    top = total - _TOP
    for group, height in zip(groups, heights, strict=True):
        _draw_group(figure, group, form, top)
        top -= height
    return figure


def _height(group: MetricRows, form: _Form) -> float:
    rows = sum(_row_height(row, form) for row in group.rows)
    return _LINE * len(_heading(group, form)) + rows + _AXIS + _BETWEEN


def _row_height(row: Row, form: _Form) -> float:
    change, verdict = _change(row, form), _verdict(row, form)
    lines = len(change) + len(verdict) if form.verdict is None else max(len(change), len(verdict))
    return _LINE * max(2, lines) + 0.05


def _heading(group: MetricRows, form: _Form) -> list[str]:
    return [group.heading, *textwrap.wrap(group.legend, form.heading_letters)]


def _change(row: Row, form: _Form) -> list[str]:
    return [text_of(part) for line in row.lines for part in _wrapped(line, form.letters)]


def _verdict(row: Row, form: _Form) -> list[str]:
    return folded(f"{row.mark.shape} {row.verdict}", form.verdict_letters, measure=_bold_width)


def _bold_width(text: str) -> float:
    return 1.1 * line_width(text)


def _wrapped(text: str, letters: int) -> list[str]:
    return folded(text, letters, measure=line_width)


def _draw_group(figure: Figure, group: MetricRows, form: _Form, top: float) -> None:
    width, total = figure.get_size_inches()
    heading = _heading(group, form)
    for number, line in enumerate(heading):
        y = (top - _LINE * (number + 0.5)) / total
        look: dict[str, Any] = (
            {"fontsize": 6.2, "color": GREY} if number else {"fontsize": form.size, "weight": "bold", "color": DARK}
        )
        figure.text(form.change / width, y, text_of(line, longest=140), va="center", gid="heading", **look)
    top -= _LINE * len(heading)
    heights = [_row_height(row, form) for row in group.rows]
    left, right = form.drawing
    right = min(right, width - max(_numbers_width(row, form) for row in group.rows))
    axes = figure.add_axes((left / width, (top - sum(heights)) / total, (right - left) / width, sum(heights) / total))
    axes.set(xlim=(group.axis.low, group.axis.high), ylim=(sum(heights), 0))  # y in inches from the top
    middle = 0.0
    for row, height in zip(group.rows, heights, strict=True):
        _draw_row(axes, row, group, middle + height / 2, height)
        _write_row(figure, row, form, top - middle - height / 2)
        middle += height
        figure.add_artist(_rule(width, total, top - middle))
    _draw_axis(axes, group, letters=int((right - left) / (6 * _LETTER)))


def _numbers_width(row: Row, form: _Form) -> float:
    """Return the inches that a row's numbers take at the right, with a gap before them."""
    bounds = cells(row.bounds) * 6.5 if form.has_bounds else 0.0
    return 0.08 + _LETTER * max(1.1 * form.size * cells(row.effect), bounds)


def _rule(width: float, total: float, y: float) -> Line2D:
    return Line2D([0.02 / width, 1 - 0.02 / width], [y / total] * 2, color=_FAINT, linewidth=0.5)


def _draw_axis(axes: Axes, group: MetricRows, *, letters: int) -> None:
    quiet(axes)
    axes.patch.set_visible(False)
    axes.axvline(0, color=GREY, linewidth=0.7, zorder=1)
    scale = scale_for(group.axis.low, group.axis.high, letters=letters)
    is_interaction = any(row.answer.is_interaction for row in group.rows)
    reach = scale_of(group.metric.unit) * reach_of(group.metric, is_interaction=is_interaction)
    ticks = [tick for tick in scale.ticks if abs(tick) <= reach]
    axes.set_xticks(ticks, [scale.text(tick) for tick in ticks])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", labelsize=6, length=2, pad=1, color=GREY)


def _draw_row(axes: Axes, row: Row, group: MetricRows, y: float, height: float) -> None:
    colour, axis = row.mark.colour, group.axis
    if group.band is not None:
        band = Rectangle(
            (-group.band, y - height / 2), 2 * group.band, height, facecolor=_BAND, edgecolor="none", zorder=0
        )
        axes.add_patch(band)
    if row.low is not None and row.high is not None:
        ends = [max(row.low, axis.low), min(row.high, axis.high)]
        axes.plot(ends, [y - 0.04] * 2, color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2, gid="interval")
        for bound, end, marker in ((row.low, axis.low, "<"), (row.high, axis.high, ">")):
            if not axis.holds(bound):
                axes.plot([end], [y - 0.04], marker, markersize=4, color=colour, clip_on=False, zorder=3, gid="cut")
    if row.mean is not None:
        axes.plot([row.mean], [y - 0.04], "D", markersize=4, color=colour, zorder=3, gid="mean")
    values = [dot.value for dot in row.dots]
    look: dict[str, Any] = {"markersize": 2.6, "alpha": min(0.6, alpha_of(len(values))), "markeredgewidth": 0}
    axes.plot(values, [y + 0.07] * len(values), "o", color=colour, zorder=2, gid="seeds", **look)


def _write_row(figure: Figure, row: Row, form: _Form, y: float) -> None:
    """Write a row's words and numbers around its drawing; `y` is its middle, in inches from the bottom."""
    width, total = figure.get_size_inches()
    change, verdict = _change(row, form), _verdict(row, form)
    blocks = [(form.change, [(line, DARK, "normal") for line in change])]
    words = [(line, row.mark.colour, "bold") for line in verdict]
    if form.verdict is None:
        blocks[0][1].extend(words)
    else:
        blocks.append((form.verdict, words))
    for x, lines in blocks:
        for number, (line, colour, weight) in enumerate(lines):
            place = (y + _LINE * ((len(lines) - 1) / 2 - number)) / total
            look: dict[str, Any] = {"fontsize": form.size, "color": colour, "weight": weight, "va": "center_baseline"}
            figure.text(x / width, place, line, gid="verdict" if weight == "bold" else "change", **look)
    right = 1 - 0.02 / width
    bounds = form.has_bounds and row.bounds
    numbers: dict[str, Any] = {"ha": "right", "va": "center_baseline", "color": DARK}
    figure.text(
        right, (y + (_LINE / 2 if bounds else 0)) / total, row.effect, fontsize=form.size, weight="bold", **numbers
    )
    if bounds:
        figure.text(right, (y - _LINE / 2) / total, row.bounds, fontsize=6.5, **numbers)
