"""Draws what each variant reaches against what it costs, the front of those that none dominates as a step line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Affine2D, Transform
from numpy.typing import ArrayLike, NDArray

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import VariantRow
from ablation.drawing import BLUE, DARK, GREY, line_width, quiet, text_of
from ablation.report.figures.panels import Drawing, axis_label, sentence_case
from ablation.report.limits import named_values
from ablation.report.names import baseline_mark
from ablation.report.numbers import scale_of
from ablation.report.task_words import one_input

_SIZE, _LEFT, _RIGHT, _TOP, _BOTTOM = (7.6, 4.3), 0.7, 0.25, 0.42, 0.52
_SIZE_OF_LABELS = 7.5
_TIMES = ((7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))
_COUNTS = ((1e9, 1e9, "billion"), (1e6, 1e6, "million"), (0.0, 1.0, ""))
_LOGARITHMIC_FROM = 30
# Where a label may stand beside its point, best first: offset in points (1/72 inch), horizontal alignment.
_PLACES = (
    (6, 8, "left"),
    (6, -8, "left"),
    (-6, 8, "right"),
    (-6, -8, "right"),
    (7, 0, "left"),
    (-7, 0, "right"),
    (0, 11, "center"),
    (0, -11, "center"),
    (14, 18, "left"),
    (14, -18, "left"),
    (-14, 18, "right"),
    (-14, -18, "right"),
)
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a variant lies on an axis, and the range over its seeds."""

    middle: float
    minimum: float
    maximum: float

    def scaled(self, scale: float) -> "_Place":
        return _Place(middle=scale * self.middle, minimum=scale * self.minimum, maximum=scale * self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """A variant as it is drawn: its cost and metric on the axes' scales."""

    row: VariantRow
    cost: _Place
    metric: _Place

    @property
    def is_dominated(self) -> bool:
        return self.row.dominated_by is not None


def pareto_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield the plot against training time, or FLOPs where times aren't comparable, of two variants or more."""
    is_timed = _is_timed(analysis)
    points = [point for row in analysis.variants if (point := _point(row, analysis, is_timed=is_timed))]
    if len(points) < 2 or not (is_timed or any(row.flops for row in analysis.variants)):
        return
    cost = "training time" if is_timed else f"FLOPs per {one_input(analysis)}"
    text = (
        f"Each variant's mean {analysis.metric.label} against its {'median ' if is_timed else ''}{cost}, with the "
        "range over its seeds (thin lines). "
        + (
            "The step line joins the variants that no other dominates; dominated ones are grey."
            if is_timed
            else "Times are not comparable or missing, so which variants are dominated is not judged."
        )
        + " A label is left out where it would lie on another."
    )
    figure = _figure(points, analysis, cost, is_timed=is_timed)
    yield Drawing(name="pareto", title=f"{analysis.metric.label} against {cost}", text=text, figure=figure)


def _is_timed(analysis: Analysis) -> bool:
    found, rows = analysis.diagnostics, [row for row in analysis.variants if analysis.metric.name in row.spreads]
    is_comparable = max(len(found.hosts), len(found.devices)) <= 1 and analysis.metric.unit != "seconds"
    return is_comparable and all(row.training is not None for row in rows)


def _point(row: VariantRow, analysis: Analysis, *, is_timed: bool) -> _Point | None:
    metric, time = row.spreads.get(analysis.metric.name), row.training
    if metric is None:
        return None
    if is_timed and time is not None:
        cost = _Place(middle=time.median, minimum=time.minimum, maximum=time.maximum)
    else:
        cost = _Place(middle=row.flops, minimum=row.flops, maximum=row.flops)
    place = _Place(middle=metric.mean, minimum=metric.minimum, maximum=metric.maximum)
    return _Point(row=row, cost=cost, metric=place.scaled(scale_of(analysis.metric.unit)))


def _figure(points: Sequence[_Point], analysis: Analysis, cost: str, *, is_timed: bool) -> Figure:
    width, height = _SIZE
    figure = Figure(figsize=_SIZE)
    box = (_LEFT / width, _BOTTOM / height, (width - _LEFT - _RIGHT) / width, (height - _TOP - _BOTTOM) / height)
    axes = figure.add_axes(box)
    heading = f"{sentence_case(analysis.metric.label)} against {cost}"
    figure.text(0.1 / width, 1 - 0.1 / height, heading, fontsize=10.5, va="top", color=DARK)
    largest = max(point.cost.middle for point in points)
    divisor, unit = next((size, name) for least, size, name in (_TIMES if is_timed else _COUNTS) if largest >= least)
    drawn = [_Point(row=point.row, cost=point.cost.scaled(1 / divisor), metric=point.metric) for point in points]
    quiet(axes)
    for point in drawn:
        _draw_point(axes, point)
    _set_scales(axes, drawn)
    _name_values(axes, drawn, analysis.metric.unit)
    if is_timed:
        _draw_front(axes, drawn)
    axes.set_xlabel(f"{cost} ({unit})" if unit else cost, fontsize=8.5)
    axes.set_ylabel(axis_label(analysis.metric), fontsize=8.5)
    _label_points(axes, drawn, room=(72 * box[2] * width, 72 * box[3] * height))
    return figure


def _draw_point(axes: Axes, point: _Point) -> None:
    colour, order = ("#a6a6a6", 2) if point.is_dominated else (BLUE, 3)
    cost, metric = point.cost, point.metric
    axes.plot([cost.minimum, cost.maximum], [metric.middle] * 2, color=colour, lw=0.8, zorder=order)
    axes.plot([cost.middle] * 2, [metric.minimum, metric.maximum], color=colour, lw=0.8, zorder=order)
    marker = "s" if point.row.is_baseline else "o"
    axes.plot([cost.middle], [metric.middle], marker, color=colour, markersize=6, zorder=order + 0.5, gid="variant")


def _name_values(axes: Axes, points: Sequence[_Point], unit: str) -> None:
    """Keep to ticks that the metric can have."""
    low, high = axes.get_ylim()
    values = [value for point in points for value in (point.metric.minimum, point.metric.maximum)]
    ticks = [float(tick) for tick in axes.get_yticks() if low <= tick <= high]
    axes.set_yticks(named_values(ticks, values, unit))


def _set_scales(axes: Axes, points: Sequence[_Point]) -> None:
    low, high = min(point.cost.minimum for point in points), max(point.cost.maximum for point in points)
    if low > 0 and high / low > _LOGARITHMIC_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(low / 1.3, high * (high / low) ** 0.2)
    else:
        room = (high - low) or abs(high) or 1.0
        axes.set_xlim(low - 0.08 * room, high + 0.2 * room)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(y=0.1)
    axes.autoscale_view(scalex=False)
    axes.grid(visible=True, color="#f2f2f2", linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_front(axes: Axes, points: Sequence[_Point]) -> None:
    front = sorted((point.cost.middle, point.metric.middle) for point in points if not point.is_dominated)
    x, y = zip(*front, strict=True)
    axes.plot(x, y, drawstyle="steps-post", color=BLUE, lw=1.1, alpha=0.6, zorder=1.5, gid="front")


def _label_points(axes: Axes, points: Sequence[_Point], *, room: tuple[float, float]) -> None:
    """Name each point at the first place beside it that is free; `room` is the axes' size in points (1/72 inch)."""
    to_room = axes.transData + axes.transAxes.inverted() + Affine2D().scale(*room)
    labels: list[Box] = []
    markers = [_box_of(line.get_xydata(), to_room) for line in axes.get_lines() if line.get_gid() == "variant"]
    taken = [_box_of(line.get_xydata(), to_room) for line in axes.get_lines() if line.get_gid() != "front"]
    for line in axes.get_lines():
        if line.get_gid() == "front":
            taken += _boxes_of_steps(np.asarray(line.get_xydata()), to_room)
    for point in sorted(points, key=lambda point: (point.is_dominated, not point.row.is_baseline)):
        x, y = to_room.transform((point.cost.middle, point.metric.middle))
        name = text_of(point.row.name, longest=44) + (baseline_mark(point.row.name) if point.row.is_baseline else "")
        # A label may lie on a line of the front or of a range before it is left out, but not if its point is grey.
        obstacles = (taken,) if point.is_dominated else (taken, labels + markers)
        places = ((blocked, place) for blocked in obstacles for place in _PLACES)
        for blocked, (right, up, alignment) in places:
            box = _label_box(name, x + right, y + up, alignment)
            is_inside = box[0] >= 0 and box[1] >= 0 and box[2] <= room[0] + 15 and box[3] <= room[1]
            if is_inside and not any(_overlap(box, other) for other in blocked):
                taken.append(box)
                labels.append(box)
                _write_label(axes, point, name, (right, up), alignment)
                break


def _label_box(name: str, x: float, y: float, alignment: str) -> Box:
    width, height = 0.6 * _SIZE_OF_LABELS * line_width(name), 1.2 * _SIZE_OF_LABELS
    left = x - {"left": 0.0, "center": width / 2, "right": width}[alignment]
    return left, y - height / 2, left + width, y + height / 2


def _box_of(data: ArrayLike, to_room: Transform) -> Box:
    """Return what a line takes of the room, with a little air; a single point has the size of its marker."""
    places = to_room.transform(np.asarray(data))
    air = 3.5 if len(places) == 1 else 1.0
    (left, bottom), (right, top) = places.min(0) - air, places.max(0) + air
    return float(left), float(bottom), float(right), float(top)


def _boxes_of_steps(data: NDArray[np.float64], to_room: Transform) -> list[Box]:
    corners = [corner for (x, y), (next_x, _) in pairwise(data) for corner in ((x, y), (next_x, y))]
    return [_box_of([start, end], to_room) for start, end in pairwise([*corners, data[-1]])]


def _write_label(axes: Axes, point: _Point, name: str, offset: tuple[float, float], alignment: str) -> None:
    axes.annotate(
        name,
        xy=(point.cost.middle, point.metric.middle),
        xytext=offset,
        textcoords="offset points",
        ha=alignment,
        va="center",
        fontsize=_SIZE_OF_LABELS,
        color=GREY if point.is_dominated else DARK,
    )


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
