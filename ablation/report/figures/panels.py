"""Lays panels out on pages in fixed inches: faster than a layout solver, and no name can squeeze a panel."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Transform

from ablation.analysis.answer_records import MeasuredMetric
from ablation.drawing import DARK, GREY, label_classes, quiet, text_of
from ablation.report.limits import named_values
from ablation.report.numbers import MINUS, brief, in_brackets

Item = TypeVar("Item")
Line = Sequence[tuple[float, float]]

MOST_PANELS = 24
MOST_PAGES = 2
_WIDTH = 9.0
_HEADER, _LINE = 0.38, 0.15
LABEL_HEIGHT = 0.135
"""Of a name beside a panel, in inches."""
_MOST_POINTS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure that is built and not yet written; `name` is its file's without ending, `text` says what it shows."""

    name: str
    title: str
    text: str
    figure: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Room around the panels of a page, in inches: at its edges and between columns and rows (titles come on top)."""

    left: float = 0.62
    right: float = 0.12
    bottom: float = 0.5
    between: float = 0.22
    below: float = 0.18


def pages(name: str, items: Sequence[Item], *, size: int = MOST_PANELS) -> Iterator[tuple[str, Sequence[Item]]]:
    """Yield (file name, items) of each page, at most two of them."""
    for page in range(min(-(-len(items) // size), MOST_PAGES)):
        yield f"{name}-{page + 1}" if page else name, items[page * size : (page + 1) * size]


def left_out(count: int, what: str, *, size: int = MOST_PANELS) -> str:
    """Return a sentence on what no page shows, or nothing."""
    shown = MOST_PAGES * size
    return f" The figures show the first {shown:,} of {count:,} {what}." if count > shown else ""


def columns_of(count: int) -> int:
    if count <= 4:
        return count
    return 3 if count in (5, 6, 9) else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The ends of an axis, and the values that are named on it."""

    ends: tuple[float, float]
    ticks: tuple[float, ...]

    def text(self, value: float, _: int | None = None) -> str:
        """Return a tick's value with the decimals that tell all ticks apart."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(value) or 1.0
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        decimals += not math.isclose(round(step, decimals), step, rel_tol=1e-6)
        text = f"{value:.{decimals}f}" if decimals < 7 and abs(value) < 1e7 else brief(value)
        return text.replace("-", MINUS)

    @property
    def letters(self) -> int:
        """Return how many letters the texts of all ticks have, with one between two."""
        return sum(len(self.text(tick)) + 1 for tick in self.ticks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A figure of panels, row by row from the top left."""

    figure: Figure
    panels: tuple[Axes, ...]
    columns: int

    def is_left(self, index: int) -> bool:
        return index % self.columns == 0

    def is_lowest(self, index: int) -> bool:
        """Return whether no panel is below this one."""
        return index + self.columns >= len(self.panels)

    def is_inner(self, index: int) -> bool:
        """Return whether this panel's scales are named by others'."""
        return not self.is_left(index) and not self.is_lowest(index)


def grid(
    titles: Sequence[str],
    *,
    heading: str,
    margins: Margins,
    height: float | None = None,
    columns: int | None = None,
    widest: float = 4.0,
) -> Page:
    """Return a page of panels under their titles, in inches; a panel without a height is as high as it is wide."""
    columns = columns or columns_of(len(titles))
    rows = -(-len(titles) // columns)
    panel = min((_WIDTH - margins.left - margins.right + margins.between) / columns - margins.between, widest)
    width = margins.left + columns * (panel + margins.between) - margins.between + margins.right
    high = height or panel
    title = 0.08 + _LINE * max(text.count("\n") + 1 for text in titles)
    step = high + title + margins.below
    total = _HEADER + rows * step - margins.below + margins.bottom
    figure = Figure(figsize=(width, total))
    figure.text(0.1 / width, 1 - 0.1 / total, heading, fontsize=10.5, va="top", color=DARK)
    panels = []
    for index, text in enumerate(titles):
        left = margins.left + (index % columns) * (panel + margins.between)
        bottom = total - _HEADER - (index // columns) * step - title - high
        axes = figure.add_axes((left / width, bottom / total, panel / width, high / total))
        # Places that are given cost no measuring of every text at every drawing.
        axes.set_title(text, fontsize=7.5, loc="left", pad=4, y=1.0)
        axes.xaxis.set_label_coords(0.5, -0.28 / high)
        axes.yaxis.set_label_coords(-0.4 / panel, 0.5)
        panels.append(axes)
    return Page(figure=figure, panels=tuple(panels), columns=columns)


def label_sides(page: Page, *, x: str, y: str) -> None:
    """Name both axes once for all panels."""
    width, height = page.figure.get_size_inches()
    first, last = (page.panels[index].get_position() for index in (0, -1))
    right = page.panels[page.columns - 1].get_position().x1
    page.figure.text((first.x0 + right) / 2, 0.06 / height, x, fontsize=8.5, ha="center", va="bottom")
    page.figure.text(0.06 / width, (first.y1 + last.y0) / 2, y, fontsize=8.5, ha="left", va="center", rotation=90)


def share_scale(page: Page, *, x: Scale | None, y: Scale) -> None:
    """Give all panels one scale with faint lines to read it by, its numbers at the left and below alone."""
    for index, axes in enumerate(page.panels):
        axes.set_ylim(y.ends)
        lines = [[(0, tick), (1, tick)] for tick in y.ticks]
        _add_lines_across(axes, lines, axes.get_yaxis_transform(), "#efefef")
        if x is not None:
            axes.set_xlim(x.ends)
        if page.is_inner(index) and x is not None:
            axes.set_axis_off()
            _add_lines_across(axes, [[(0, 1), (0, 0), (1, 0)]], axes.transAxes, GREY)
            continue
        quiet(axes)
        axes.tick_params(labelsize=7.5)
        _name_ticks(axes.yaxis, y if page.is_left(index) else None)
        if x is not None:
            _name_ticks(axes.xaxis, x if page.is_lowest(index) else None)


def _add_lines_across(axes: Axes, lines: Sequence[Line], transform: Transform, colour: str) -> None:
    """Draw a panel's frame or its lines to read by; far cheaper than an axis, of which a page has dozens."""
    look: dict[str, Any] = {"colors": colour, "linewidths": 0.8, "zorder": 0.5, "clip_on": False, "gid": "frame"}
    axes.add_collection(LineCollection(lines, transform=transform, **look), autolim=False)


def _name_ticks(axis: Axis, scale: Scale | None) -> None:
    axis.set_major_locator(FixedLocator(scale.ticks) if scale else NullLocator())
    axis.set_major_formatter(FuncFormatter(scale.text) if scale else NullFormatter())


def frame(page: Page, classes: Sequence[str]) -> None:
    """Frame matrices, and name their classes at the left and below."""
    for index, axes in enumerate(page.panels):
        size = len(classes)
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
        if page.is_inner(index):
            axes.set_axis_off()
            _add_lines_across(axes, [[(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)]], axes.transAxes, DARK)
        else:
            label_classes(axes, classes, is_left=page.is_left(index), is_lowest=page.is_lowest(index))


def scale_over(values: Sequence[float], *, unit: str = "", bins: int = 5, is_integer: bool = False) -> Scale:
    """Return the scale that shows these values, with about as many ticks as `bins`; none that no value can have."""
    scale = scale_between(*limits(values), bins=bins, is_integer=is_integer)
    return replace(scale, ticks=named_values(scale.ticks, values, unit))


def scale_between(low: float, high: float, *, bins: int = 5, is_integer: bool = False) -> Scale:
    found = MaxNLocator(nbins=bins, integer=is_integer, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return Scale(ends=(low, high), ticks=tuple(float(tick) for tick in found if low <= tick <= high))


def scale_for(low: float, high: float, *, letters: int) -> Scale:
    """Return a scale with as many ticks, five at most, as their texts have room for beside each other."""
    scales = (scale_between(low, high, bins=bins) for bins in (5, 4, 3, 2))
    return next((scale for scale in scales if scale.letters <= letters), scale_between(low, high, bins=1))


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a scale for values, of which a few far away from the others don't flatten the rest."""
    known = np.asarray(values, dtype=float)
    low, high = float(known.min()), float(known.max())
    inner_low, inner_high = (float(bound) for bound in np.quantile(known, (0.02, 0.98)))
    inner = inner_high - inner_low
    if inner > 0:
        low, high = max(low, inner_low - 3 * inner), min(high, inner_high + 3 * inner)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def add_lines(axes: Axes, lines: Sequence[Line], *, order: float = 2, **look: Any) -> None:
    """Draw many lines as one artist, those of one point as dots; `look` is a LineCollection's."""
    long = [np.asarray(line, dtype=float) for line in lines if len(line) > 1]
    if long:
        # Drawn as one image where an SVG file would grow by megabytes.
        is_heavy = sum(map(len, long)) > _MOST_POINTS
        axes.add_collection(LineCollection(long, zorder=order, rasterized=is_heavy, **look), autolim=False)
    dots = [line[0] for line in lines if len(line) == 1]
    if dots:
        x, y = zip(*dots, strict=True)
        axes.plot(x, y, "o", markersize=3, color=look.get("colors"), zorder=order, alpha=look.get("alpha"))


def alpha_of(count: int) -> float:
    """Return how opaque each of many lines or dots is drawn, so that where they are dense can be seen."""
    return float(np.clip(8 / max(count, 1), 0.15, 0.85))


def within(points: Sequence[tuple[float, float]], *, scale: float = 1.0) -> list[tuple[float, float]]:
    """Return points that can be drawn: values scaled, and kept from overflowing."""
    return [(x, float(np.clip(scale * y, -1e12, 1e12))) for x, y in points]


def axis_label(metric: MeasuredMetric) -> str:
    return f"{metric.label}{in_brackets(metric.unit)}"


def sentence_case(text: str) -> str:
    """Return text that begins a sentence; a name such as macro_f1 keeps its letters."""
    if not text.partition(" ")[0].isalpha():
        return text
    return text[:1].upper() + text[1:]


def draw_colours(page: Page, colours: ScalarMappable, unit: str) -> None:
    """Draw the scale of a page's colours at the right of its heading."""
    width, height = page.figure.get_size_inches()
    place = page.figure.add_axes(((width - 1.75) / width, 1 - 0.2 / height, 1.3 / width, 0.09 / height))
    page.figure.colorbar(colours, cax=place, orientation="horizontal").outline.set_visible(False)
    place.tick_params(labelsize=6.5, length=2, pad=1)
    place.text(1.04, 0.5, unit, transform=place.transAxes, fontsize=6.5, va="center")


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], *, height: float, longest: int = 21) -> None:
    """Write each (value, name, colour) at the right of a panel of a `height` in inches, apart from each other."""
    low, high = axes.get_ylim()
    ordered = sorted(ends)
    places = _apart(
        [min(max((value - low) / (high - low), 0.0), 1.0) for value, _, _ in ordered], LABEL_HEIGHT / height
    )
    for place, (_, name, colour) in zip(places, ordered, strict=True):
        text = text_of(name, longest=longest)
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
