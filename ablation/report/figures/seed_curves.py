"""Draws the first curve of every seed with the variant's median, a panel per variant."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import VariantCurves
from ablation.drawing import BLUE, PALE, SKY, VERMILLION, text_of, wrapped
from ablation.report.figures.panels import (
    Drawing,
    Margins,
    add_lines,
    alpha_of,
    grid,
    label_sides,
    left_out,
    pages,
    scale_between,
    scale_over,
    sentence_case,
    share_scale,
    within,
)
from ablation.report.learning_tables import DrawnCurve, drawn_curves
from ablation.report.numbers import in_brackets, scale_of

_MARGINS = Margins()


def seed_curves_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield every seed's held-out score; of a user's own training function, the first curve that it reports."""
    for curve in drawn_curves(analysis)[:1]:
        shown = [curves for curves in analysis.curves if any(seed.curves.get(curve.name) for seed in curves.seeds)]
        if any(curves.median.get(curve.name) for curves in shown):
            yield from _quantity_drawings(shown, curve)


def _quantity_drawings(variants: Sequence[VariantCurves], curve: DrawnCurve) -> Iterator[Drawing]:
    name, title, scale, unit = curve.name, text_of(curve.title), scale_of(curve.unit), in_brackets(curve.unit)
    known = [point for curves in variants for point in _known_points(curves, name)]
    epochs = [epoch for epoch, _ in known]
    room = 0.02 * (max(epochs) - min(epochs)) or 0.3
    width = scale_between(min(epochs) - room, max(epochs) + room, is_integer=True)
    ends = scale_over([scale * value for _, value in known], unit=curve.unit)
    text = (
        f"{sentence_case(title)} by epoch: every seed (thin; diverged ones vermillion), the median (thick), and the "
        "other variants' medians (grey)."
        + (" Values are running means over each epoch's batches." if curve.title == "training loss" else "")
        + left_out(len(variants), "variants")
    )
    for file, shown in pages(f"seeds-{curve.file}", variants):
        titles = [_title(curves) for curves in shown]
        heading = f"{sentence_case(title)}{unit} by epoch"
        page = grid(titles, heading=heading, height=1.5, margins=_MARGINS)
        share_scale(page, x=width, y=ends)
        for axes, curves in zip(page.panels, shown, strict=True):
            _draw_curves(axes, curves, name, shown, scale)
        label_sides(page, x="epoch", y=f"{title}{unit}")
        yield Drawing(name=file, title=f"{title} of every seed by epoch", text=text, figure=page.figure)


def _known_points(curves: VariantCurves, name: str) -> Iterator[tuple[int, float]]:
    """Yield the points that set the scale: diverged runs may lie anywhere."""
    for seed in curves.seeds:
        if not seed.is_diverged:
            yield from seed.curves.get(name, ())
    yield from curves.median.get(name, ())


def _title(curves: VariantCurves) -> str:
    diverged = sum(seed.is_diverged for seed in curves.seeds)
    return wrapped(curves.variant, longest=30) + (f"\n{diverged} diverged" if diverged else "")


def _draw_curves(axes: Axes, curves: VariantCurves, name: str, page: Sequence[VariantCurves], scale: float) -> None:
    others = [within(other.median.get(name, ()), scale=scale) for other in page if other is not curves]
    add_lines(axes, others, colors=PALE, linewidths=0.8, order=1)
    for is_diverged, colour in ((False, SKY), (True, VERMILLION)):
        seeds = [seed.curves.get(name, ()) for seed in curves.seeds if seed.is_diverged is is_diverged]
        lines = [within(points, scale=scale) for points in seeds]
        add_lines(axes, lines, colors=colour, linewidths=0.9, alpha=alpha_of(len(lines)))
    add_lines(axes, [within(curves.median.get(name, ()), scale=scale)], colors=BLUE, linewidths=1.8, order=3)
