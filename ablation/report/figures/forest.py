"""Draws each comparison's seeds, mean and interval over its ROPE, with the verdict in words, a panel per metric."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer, MeasuredMetric, Verdict
from ablation.drawing import BLUE, DARK, GREEN, GREY, VERMILLION, quiet, text_of
from ablation.records import SIGNS
from ablation.report.figures.panels import Drawing, alpha_of, left_out, pages
from ablation.report.limits import shown_interval
from ablation.report.names import comparison_lines
from ablation.report.numbers import scale_of, unit_of_differences
from ablation.report.prose.verdicts import verdict_text
from ablation.report.tables import interval_head

_COLOURS = {
    Verdict.HELPS: BLUE,
    Verdict.HURTS: VERMILLION,
    Verdict.BETTER_THAN_SUM: DARK,
    Verdict.WORSE_THAN_SUM: DARK,
    Verdict.NO_MEANINGFUL_DIFFERENCE: GREEN,
}
_ROWS = 40
_WIDTH, _LEFT, _RIGHT = 9.0, 2.35, 1.75
_ROW, _BELOW, _TOP = 0.46, 0.52, 0.12


def forest_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield the forest plot, or nothing where no comparison has a number."""
    answers = analysis.answers
    if not any(answer.differences for answer in answers):
        return
    for name, shown in pages("forest", answers, size=_ROWS):
        metrics = list(dict.fromkeys(answer.metric for answer in shown))
        text = (
            f"Every seed's difference (dots), their mean (diamond) and "
            f"{interval_head(shown, mixed='interval at the level of each')}, "
            "and what is too small to matter (grey band), by comparison; "
            f"{', '.join(metric.label for metric in metrics)}."
        ) + left_out(len(answers), "comparisons", size=_ROWS)
        groups = [[answer for answer in shown if answer.metric == metric] for metric in metrics]
        yield Drawing(name=name, title="forest plot", text=text, figure=_figure(groups))


def _figure(groups: Sequence[Sequence[Answer]]) -> Figure:
    heights = [_ROW * (len(group) + 0.2) for group in groups]
    total = sum(heights) + _BELOW * len(groups) + _TOP
    figure = Figure(figsize=(_WIDTH, total))
    top = total - _TOP
    for group, height in zip(groups, heights, strict=True):
        width = _WIDTH - _LEFT - _RIGHT
        axes = figure.add_axes((_LEFT / _WIDTH, (top - height) / total, width / _WIDTH, height / total))
        _draw_comparisons(axes, group)
        top -= height + _BELOW
    return figure


def _draw_comparisons(axes: Axes, answers: Sequence[Answer]) -> None:
    quiet(axes)
    for row, answer in enumerate(answers):
        _draw_comparison(axes, answer, row)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    if not any(answer.differences or answer.rope for answer in answers):
        axes.set_xlim(-1, 1)
    axes.set_ylim(len(answers) - 0.45, -0.65)
    axes.set_yticks(range(len(answers)), [_label(answer) for answer in answers], fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(_axis_text(answers[0].metric), fontsize=8)


def _axis_text(metric: MeasuredMetric) -> str:
    unit = unit_of_differences(metric.unit)
    side = "right" if SIGNS[metric.direction] > 0 else "left"
    return f"difference in {metric.label}{f', in {unit}' if unit else ''}; better to the {side}"


def _label(answer: Answer) -> str:
    return "\n".join(map(text_of, comparison_lines(answer)))


def _draw_comparison(axes: Axes, answer: Answer, row: int) -> None:
    scale, effect = scale_of(answer.metric.unit), answer.effect
    if answer.rope is not None:
        width = 2 * scale * answer.rope
        band = Rectangle((-width / 2, row - 0.5), width, 1, facecolor="#ebebeb", edgecolor="none", zorder=0)
        axes.add_patch(band)
        axes.update_datalim([(-width / 2, row), (width / 2, row)])
    colour = DARK if answer.is_crossover else _COLOURS.get(answer.verdict, GREY)
    if (interval := shown_interval(answer)) is not None:
        bounds = [scale * interval.low, scale * interval.high]
        axes.plot(bounds, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2, gid="interval")
    if effect is not None:
        axes.plot([scale * effect.mean], [row], marker="D", markersize=6, color=colour, zorder=3, gid="mean")
    _draw_seeds(axes, answer, row, colour)
    words = re.sub(r"(?<=:) | (?=and do not|when removed|on average|no meaningful)", "\n", verdict_text(answer))
    place: dict[str, Any] = {"xy": (1.02, row), "xycoords": ("axes fraction", "data")}
    axes.annotate(words, **place, va="center", fontsize=8, color=colour, annotation_clip=False)


def _draw_seeds(axes: Axes, answer: Answer, row: int, colour: str) -> None:
    points = [scale_of(answer.metric.unit) * found.difference for found in answer.differences]
    look: dict[str, Any] = {"markersize": 4, "alpha": min(0.55, alpha_of(len(points))), "markeredgewidth": 0}
    axes.plot(points, [row + 0.25] * len(points), "o", color=colour, **look, zorder=2, gid="seeds")
