"""Draws the confusion matrices, a panel per variant, a figure per split."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import ConfusionDifference, ConfusionMatrix
from ablation.drawing import draw_matrix, number_matrix, percent_of_rows, wrapped
from ablation.report.figures.panels import Drawing, Margins, draw_colours, frame, grid, label_sides, left_out, pages

Of = TypeVar("Of", ConfusionMatrix, ConfusionDifference)
_MARGINS = Margins(left=1.0, bottom=0.95, between=0.12, below=0.1)
_MOST_NUMBERED = 12


def confusion_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield the confusion matrices, each row in percent of its true class; numbers where matrices are few."""
    for split in dict.fromkeys(matrix.split for matrix in analysis.confusion):
        matrices = [matrix for matrix in analysis.confusion if matrix.split == split]
        text = f"Confusion on the {split} split in percent of each true class, summed over each variant's seeds."
        for number, (classes, alike) in enumerate(by_classes(matrices, analysis).items(), start=1):
            said = text + left_out(len(alike), "variants")
            for name, shown in pages(f"confusion-{split}" + (f"-data-{number}" if number > 1 else ""), alike):
                heading = f"Confusion on the {split} split, % of each true class"
                figure = _figure(shown, classes, heading)
                yield Drawing(name=name, title=f"confusion on the {split} split", text=said, figure=figure)


def by_classes(items: Sequence[Of], analysis: Analysis) -> dict[tuple[str, ...], list[Of]]:
    """Return what has matrices by the classes of its data: several data sets may have others."""
    found: dict[tuple[str, ...], list[Of]] = {}
    for item in items:
        found.setdefault(analysis.data.classes_of(item.variant), []).append(item)
    return found


def _figure(shown: Sequence[ConfusionMatrix], classes: Sequence[str], heading: str) -> Figure:
    is_numbered = len(shown) <= _MOST_NUMBERED
    columns = min(len(shown), 2 if len(shown) == 4 else 3 if is_numbered else 4)
    titles = [_title(matrix) for matrix in shown]
    page = grid(titles, heading=heading, columns=columns, widest=3.1, margins=_MARGINS)
    for axes, matrix in zip(page.panels, shown, strict=True):
        shares = percent_of_rows(matrix.counts)
        draw_matrix(axes, shares)
        if is_numbered:
            number_matrix(axes, shares)
    frame(page, classes)
    label_sides(page, x="answer", y="true class")
    draw_colours(page, ScalarMappable(Normalize(0, 100), "Blues"), "%")
    return page.figure


def _title(matrix: ConfusionMatrix) -> str:
    number = len(matrix.run_ids)
    return f"{wrapped(matrix.variant, longest=32)}\n{number:,} run{'s' if number != 1 else ''}"
