"""Draws the distribution of a regression's errors on test, a line of quantiles per variant."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.drawing import BLUE, DARK, GREY, wrapped
from ablation.report.figures.panels import (
    Drawing,
    Margins,
    Scale,
    grid,
    label_sides,
    left_out,
    pages,
    scale_over,
    share_scale,
)

_ROW = 0.34
_MARGINS = Margins(left=2.3)
_LINE, _BOX, _MEDIAN = ("5 %", "95 %"), ("25 %", "75 %"), "median"
Quantiles = Mapping[str, float]


def errors_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield the quantiles of each variant's errors, the baseline first; nothing where a task has none."""
    found: dict[str, dict[str, float]] = {}
    for detail in analysis.details:
        if detail.name == "error_quantiles":
            found.setdefault(detail.variant, {})[detail.item] = detail.spread.mean
    if not found:
        return
    text = (
        "Errors on the test split, prediction minus target: the median (dot), the middle half (thick) and the middle "
        "90 % (thin) of each variant, each quantile the mean over its seeds; the baseline's is dark."
    ) + left_out(len(found), "variants")
    shown = [found[name][quantile] for name in found for quantile in (*_LINE, *_BOX)]
    scale = scale_over([*shown, 0.0], unit="target")
    for name, variants in pages("errors", list(found)):
        height = _ROW * len(variants) + 0.2
        page = grid([""], heading="Errors on test", height=height, widest=5.0, margins=_MARGINS)
        (axes,) = page.panels
        share_scale(page, x=scale, y=Scale(ends=(len(variants) - 0.5, -0.5), ticks=()))
        _draw(axes, variants, found, analysis.baseline)
        label_sides(page, x="prediction minus target", y="")
        yield Drawing(name=name, title="errors on test", text=text, figure=page.figure)


def _draw(axes: Axes, variants: Sequence[str], found: Mapping[str, Quantiles], baseline: str) -> None:
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    for place, variant in enumerate(variants):
        colour, quantiles = DARK if variant == baseline else BLUE, found[variant]
        for ends, width in ((_LINE, 1.2), (_BOX, 4.0)):
            axes.plot([quantiles[end] for end in ends], [place, place], color=colour, lw=width, zorder=2, gid="errors")
        axes.plot([quantiles[_MEDIAN]], [place], "o", color="white", markeredgecolor=colour, markersize=5, zorder=3)
    axes.set_yticks(range(len(variants)), [wrapped(name, longest=34) for name in variants], fontsize=7.5)
