"""Draws how the variants learn, all in one panel: medians over the seeds, a band for the middle half of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer
from ablation.analysis.descriptive_records import VariantCurves
from ablation.drawing import BLUE, DARK, GREEN, ORANGE, PALE, PURPLE, SKY, VERMILLION, text_of
from ablation.records import SIGNS
from ablation.report.figures.panels import (
    Drawing,
    Line,
    Margins,
    add_lines,
    grid,
    label_ends,
    label_sides,
    scale_between,
    scale_over,
    sentence_case,
    share_scale,
    within,
)
from ablation.report.learning_tables import DrawnCurve, drawn_curves
from ablation.report.numbers import in_brackets, scale_of
from ablation.study.comparisons import LISTED
from ablation.study.level_names import NOT_VARIED

_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_HEIGHT = 2.9
_MARGINS = Margins(right=2.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """A variant's curve on the panel's scale: the median over its seeds, between their quartiles."""

    variant: str
    colour: str
    median: Line
    low: Line
    high: Line


def curves_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield the curves of the held-out score, held-out loss and training loss, each where a run has ended with some.

    Of a user's own training function, those that it reports.
    """
    colours = _colours(analysis)
    for curve in drawn_curves(analysis):
        courses = [
            _course(curves, curve, colours.get(curves.variant, PALE))
            for curves in analysis.curves
            if curves.median.get(curve.name)
        ]
        if courses:
            yield _drawing(courses, curve)


def _colours(analysis: Analysis) -> Mapping[str, str]:
    """Return the colours of the variants that have one: of many, the best and those of decided answers."""
    others = [curves.variant for curves in analysis.curves if curves.variant != analysis.baseline]
    if len(others) > len(_COLOURS):
        decided = [answer for answer in analysis.answers if answer.verdict.is_decided and answer.effect is not None]
        largest = sorted(decided, key=lambda answer: -abs(answer.effect.mean) if answer.effect else 0.0)
        named = [*_best(analysis), *(name for answer in largest for name in _changed(answer, analysis))]
        others = [name for name in dict.fromkeys(named) if name != analysis.baseline]
    return {analysis.baseline: DARK, **dict(zip(others, _COLOURS, strict=False))}


def _best(analysis: Analysis) -> Iterator[str]:
    """Yield the variant with the best mean of the study's metric, if any has one."""
    metric = analysis.metric
    means = {
        row.name: SIGNS[metric.direction] * row.spreads[metric.name].mean
        for row in analysis.variants
        if metric.name in row.spreads
    }
    yield from sorted(means, key=lambda name: -means[name])[:1]


def _changed(answer: Answer, analysis: Analysis) -> Iterator[str]:
    """Yield the variant that differs from the baseline in what an answer is about, if the study has it."""
    baseline = next(row for row in analysis.variants if row.is_baseline)
    after = {change.factor: change.after for change in answer.changes}
    levels = {**baseline.levels, **answer.at, **after}
    for row in analysis.variants:
        alike = {factor for factor, level in row.levels.items() if NOT_VARIED in (level, levels[factor])}
        is_meant = all(level == levels[factor] for factor, level in row.levels.items() if factor not in alike)
        if is_meant or after.get(LISTED) == row.name:
            yield row.name


def _course(curves: VariantCurves, curve: DrawnCurve, colour: str) -> _Course:
    scale, median = scale_of(curve.unit), curves.median[curve.name]
    seeds = [dict(seed.curves.get(curve.name, ())) for seed in curves.seeds if not seed.is_diverged]
    known = [(epoch, [values[epoch] for values in seeds if epoch in values] or [value]) for epoch, value in median]
    return _Course(
        variant=curves.variant,
        colour=colour,
        median=within(median, scale=scale),
        low=within([(epoch, float(np.quantile(values, 0.25))) for epoch, values in known], scale=scale),
        high=within([(epoch, float(np.quantile(values, 0.75))) for epoch, values in known], scale=scale),
    )


def _drawing(courses: Sequence[_Course], curve: DrawnCurve) -> Drawing:
    title, unit = text_of(curve.title), in_brackets(curve.unit)
    named = [course for course in courses if course.colour != PALE]
    drawn = [line for course in courses for line in (course.median, *((course.low, course.high) * (course in named)))]
    epochs = [epoch for line in drawn for epoch, _ in line]
    room = 0.02 * (max(epochs) - min(epochs)) or 0.3
    page = grid([""], heading=f"{sentence_case(title)}{unit} by epoch", height=_HEIGHT, widest=9.0, margins=_MARGINS)
    (axes,) = page.panels
    width = scale_between(min(epochs) - room, max(epochs) + room, bins=8, is_integer=True)
    share_scale(page, x=width, y=scale_over([value for line in drawn for _, value in line], unit=curve.unit))
    add_lines(axes, [course.median for course in courses if course not in named], colors=PALE, linewidths=0.8, order=1)
    for course in named:
        _draw_course(axes, course)
    ends = [(course.median[-1][1], course.variant, course.colour) for course in named]
    label_ends(axes, ends, height=_HEIGHT, longest=36)
    label_sides(page, x="epoch", y=f"{title}{unit}")
    return Drawing(
        name=curve.file, title=f"{title} by epoch", text=_text(curve, len(courses) - len(named)), figure=page.figure
    )


def _draw_course(axes: Axes, course: _Course) -> None:
    epochs = [epoch for epoch, _ in course.median]
    low, high = ([value for _, value in line] for line in (course.low, course.high))
    axes.fill_between(epochs, low, high, color=course.colour, alpha=0.12, linewidth=0, zorder=1.5, gid="band")
    order = 4 if course.colour == DARK else 3
    values = [value for _, value in course.median]
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, values, marker=marker, color=course.colour, lw=1.7, ms=4, zorder=order, gid="median")


def _text(curve: DrawnCurve, unnamed: int) -> str:
    title = sentence_case(text_of(curve.title))
    text = f"{title} by epoch: each variant's median over its seeds (line) and the middle half of them (band)."
    if unnamed:
        text += " In colour: the baseline, the best mean and variants that decided answers are about; "
        text += f"{unnamed:,} others grey."
    if curve.title == "training loss":
        text += " Values are running means over each epoch's batches."
    return text
