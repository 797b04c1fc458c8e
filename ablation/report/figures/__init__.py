"""Draws the report's figures, each as SVG, PNG and PDF: nothing is computed here, and equal inputs give equal bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ablation.analysis.analysis_record import Analysis
from ablation.drawing import save, style
from ablation.errors import FigureUnknown
from ablation.report.figures.confusion import confusion_drawings
from ablation.report.figures.confusion_difference import confusion_difference_drawings
from ablation.report.figures.curves import curves_drawings
from ablation.report.figures.errors import errors_drawings
from ablation.report.figures.forest import column_drawings, forest_drawings
from ablation.report.figures.heat_map import heat_map_drawings
from ablation.report.figures.interaction import interaction_drawings
from ablation.report.figures.light_svg import light_svg
from ablation.report.figures.panels import Drawing
from ablation.report.figures.pareto import pareto_drawings
from ablation.report.figures.seed_curves import seed_curves_drawings
from ablation.report.figures.slope import slope_drawings
from ablation.report.figures.trajectories import trajectories_drawings
from ablation.report.figures.tuning import tuning_drawings
from ablation.report.labels import labelled

__all__ = ["KINDS", "Drawing", "Picture", "draw_figures", "figure_of", "pictures_of"]

KINDS: dict[str, Callable[[Analysis], Iterator[Drawing]]] = {
    "forest": forest_drawings,
    "forest-column": column_drawings,
    "slope": slope_drawings,
    "interaction": interaction_drawings,
    "heat-map": heat_map_drawings,
    "curves": curves_drawings,
    "seed-curves": seed_curves_drawings,
    "trajectories": trajectories_drawings,
    "errors": errors_drawings,
    "confusion": confusion_drawings,
    "confusion-difference": confusion_difference_drawings,
    "pareto": pareto_drawings,
    "tuning": tuning_drawings,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure that was written: its paths relative to the report, and what it shows in words."""

    svg: str
    png: str
    pdf: str
    title: str
    text: str


def draw_figures(
    analysis: Analysis, folder: Path, *, endings: Sequence[str] = (".svg", ".png", ".pdf")
) -> dict[str, tuple[Picture, ...]]:
    """Write every figure into `folder`/figures, a file for each ending, and return them by kind.

    A kind without data has none. A PDF takes longer than both others: its fonts are cut to the letters it has.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    with style():
        return {
            kind: tuple(_write(drawing, folder, endings) for drawing in drawings(analysis))
            for kind, drawings in KINDS.items()
        }


def pictures_of(analysis: Analysis) -> dict[str, tuple[Picture, ...]]:
    """Return what `draw_figures` returns, without writing anything."""
    with style():
        return {kind: tuple(map(_picture, drawings(analysis))) for kind, drawings in KINDS.items()}


def figure_of(analysis: Analysis, name: str) -> Figure:
    """Return the first figure of a kind, or any by its file's name: `forest`, `forest-2`.

    Raises:
        FigureUnknown: there is no such kind, or the study has nothing for it.
    """
    analysis = labelled(analysis)
    with style():
        if (first := next(KINDS[name](analysis), None) if name in KINDS else None) is not None:
            return first.figure
        drawn = {kind: list(drawings(analysis)) for kind, drawings in KINDS.items()}
    figures = {drawing.name: drawing.figure for drawings in drawn.values() for drawing in drawings}
    if name not in figures:
        known = [kind for kind, drawings in drawn.items() if drawings]
        raise FigureUnknown(name, analysis.name, known)
    return figures[name]


def _write(drawing: Drawing, folder: Path, endings: Sequence[str]) -> Picture:
    for ending in endings:
        path = folder / "figures" / f"{drawing.name}{ending}"
        save(drawing.figure, path)
        if ending == ".svg":
            path.write_text(light_svg(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    return _picture(drawing)


def _picture(drawing: Drawing) -> Picture:
    svg, png, pdf = (f"figures/{drawing.name}{ending}" for ending in (".svg", ".png", ".pdf"))
    return Picture(svg=svg, png=png, pdf=pdf, title=drawing.title, text=drawing.text)
