"""Draws how a regression's test errors lie in each variant: the middle half, 90 % of them, and their median."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.drawing import BLUE, DARK, GREY, SKY, text_of
from ablation.report.figures.panels import Drawing, Margins, add_lines, grid, left_out, scale_over, share_scale

_MARGINS = Margins(left=2.3, bottom=0.5)
_ROW = 0.24
"""Inches that a variant has."""
_MOST = 24
_SHOWN = ("0.05", "0.25", "0.5", "0.75", "0.95")
Quantiles = tuple[float, float, float, float, float]


def errors_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield the quantiles of the errors, a row per variant, the baseline first; nothing where no run has any."""
    found = list(_quantiles(analysis).items())
    if not found:
        return
    shown = found[:_MOST]
    height = _ROW * len(shown) + 0.1
    page = grid(
        [""], heading="Errors on test by variant, in the targets' unit", height=height, margins=_MARGINS, widest=6.0
    )
    axes = page.panels[0]
    scale = scale_over([value for _, row in shown for value in row])
    _draw(axes, shown)
    share_scale(page, x=scale, y=scale_over([-0.5, len(shown) - 0.5]))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    names = [text_of(name, longest=36) for name, _ in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=7.5)
    axes.set_xlabel("prediction minus target", fontsize=8.5)
    text = (
        "Errors on the test split (prediction minus target): the middle half of them (thick), 90 % of them (thin) and "
        "their median (dot), means over each variant's runs; the baseline is grey, the vertical line is no error."
    ) + (left_out(len(found), "variants", size=_MOST // 2))
    yield Drawing(name="errors", title="errors on test by variant", text=text, figure=page.figure)


def _quantiles(analysis: Analysis) -> Mapping[str, Quantiles]:
    """Return the shown quantiles of each variant that has them, the baseline first."""
    means = {(each.variant, each.of): each.spread.mean for each in analysis.details if each.name == "error_quantiles"}
    rows = {
        name: [means[name, of] for of in _SHOWN if (name, of) in means]
        for name in dict.fromkeys(name for name, _ in means)
    }
    return {name: (row[0], row[1], row[2], row[3], row[4]) for name, row in rows.items() if len(row) == len(_SHOWN)}


def _draw(axes: Axes, rows: Sequence[tuple[str, Quantiles]]) -> None:
    colours = [GREY if index == 0 else SKY for index in range(len(rows))]
    for ends, width in (((0, 4), 1.2), ((1, 3), 6.0)):
        lines = [[(row[ends[0]], index), (row[ends[1]], index)] for index, (_, row) in enumerate(rows)]
        add_lines(axes, lines, colors=colours, linewidths=width)
    for index, (_, row) in enumerate(rows):
        axes.plot(row[2], index, "o", markersize=4, color=DARK if index == 0 else BLUE, zorder=3)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
