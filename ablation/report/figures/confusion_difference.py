"""Draws each variant's confusion minus the baseline's, beside what other seeds alone would change."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import ConfusionDifference
from ablation.drawing import DARK, GREY, wrapped
from ablation.report.figures.confusion import by_classes
from ablation.report.figures.panels import (
    MOST_PANELS,
    Drawing,
    Margins,
    draw_colours,
    frame,
    grid,
    label_sides,
    left_out,
    pages,
)
from ablation.report.numbers import MINUS

_MARGINS = Margins(left=1.0, bottom=0.95, between=0.12, below=0.1)
_NUMBERED_CLASSES = 12
_COLOURS = "PuOr_r"
_SIZE = MOST_PANELS // 2


def confusion_difference_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield each variant's difference to the baseline on the test split and its noise floor, on one scale."""
    found = [difference for difference in analysis.confusion_differences if difference.split == "test"]
    largest = max((_largest(difference) for difference in found), default=0.0) or 1.0
    said = (
        "Left: each variant's confusion minus the baseline's on the test split, in points of each true class (orange: "
        "answered more often, purple: less often). Right, on the same scale: the noise floor, the difference that "
        "other seeds alone would give. Cells beyond twice their floor are in full colour, with their number where "
        "classes are few; the others are pale."
    )
    for number, (classes, alike) in enumerate(by_classes(found, analysis).items(), start=1):
        text = said + left_out(len(alike), "variants", size=_SIZE)
        for name, shown in pages("confusion-difference" + (f"-data-{number}" if number > 1 else ""), alike, size=_SIZE):
            figure = _figure(shown, classes, largest)
            yield Drawing(name=name, title="confusion minus the baseline's", text=text, figure=figure)


def _largest(difference: ConfusionDifference) -> float:
    matrices = [np.asarray(matrix) for matrix in (difference.difference, difference.reseeding) if matrix is not None]
    return 100 * max(float(np.abs(matrix).max(initial=0)) for matrix in matrices)


def _figure(shown: Sequence[ConfusionDifference], classes: Sequence[str], largest: float) -> Figure:
    titles = [title for difference in shown for title in (_title(difference), _floor_title(difference))]
    page = grid(
        titles,
        heading="Confusion on the test split minus the baseline's, points of each true class",
        columns=min(len(titles), 4),
        widest=2.6,
        margins=_MARGINS,
    )
    for difference, left, right in zip(shown, page.panels[::2], page.panels[1::2], strict=True):
        _draw_difference(left, difference, largest)
        _draw_floor(right, difference, largest)
    frame(page, classes)
    label_sides(page, x="answer", y="true class")
    draw_colours(page, ScalarMappable(Normalize(-largest, largest), _COLOURS), "points")
    return page.figure


def _title(difference: ConfusionDifference) -> str:
    seeds = f"{difference.n} seed{'s' if difference.n != 1 else ''}"
    return f"{wrapped(difference.variant, longest=32)}\n{seeds}, typical size {100 * difference.size:.2g}"


def _floor_title(difference: ConfusionDifference) -> str:
    if difference.reseeding_size is None:
        return "noise floor\nunknown"
    return f"noise floor\ntypical size {100 * difference.reseeding_size:.2g}"


def _draw_difference(axes: Axes, difference: ConfusionDifference, largest: float) -> None:
    points = 100 * np.asarray(difference.difference, dtype=float)
    beyond = _beyond_floor(difference)
    shades = np.where(beyond, 1.0, 0.3)
    axes.imshow(points, cmap=_COLOURS, vmin=-largest, vmax=largest, alpha=shades, interpolation="nearest")
    if len(points) > _NUMBERED_CLASSES:
        return
    for row, column in np.argwhere(beyond):
        value = points[row, column]
        colour = "white" if abs(value) > 0.65 * largest else DARK
        text = (f"{value:+.0f}" if abs(value) >= 9.5 else f"{value:+.1f}").replace("-", MINUS)
        axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color=colour)


def _beyond_floor(difference: ConfusionDifference) -> NDArray[np.bool_]:
    """Return which cells differ by more than twice what other seeds would change; none where that isn't known."""
    points = np.asarray(difference.difference, dtype=float)
    if difference.reseeding is None:
        return np.zeros(points.shape, dtype=bool)
    beyond: NDArray[np.bool_] = np.abs(points) > 2 * np.asarray(difference.reseeding, dtype=float)
    return beyond


def _draw_floor(axes: Axes, difference: ConfusionDifference, largest: float) -> None:
    if difference.reseeding is not None:
        points = 100 * np.asarray(difference.reseeding, dtype=float)
        axes.imshow(points, cmap=_COLOURS, vmin=-largest, vmax=largest, interpolation="nearest")
        return
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, "one seed:\nno noise floor", fontsize=8, color=GREY, **place)
