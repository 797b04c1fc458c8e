"""Draws each variant's tuning: every trial's value by its number, the best so far as a step line, the chosen one."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.drawing import BLUE, DARK, GREY, ORANGE, VERMILLION, wrapped
from ablation.records import SIGNS, Direction, TunedVariant
from ablation.report.figures.panels import (
    Drawing,
    Margins,
    axis_label,
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
from ablation.report.numbers import scale_of
from ablation.report.tuning_tables import objective

_MARGINS = Margins()
_AT_THE_EDGE = 0.04
Points = list[tuple[float, float]]


def tuning_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield a panel per tuned variant, all on one scale; nothing where no variant was tuned."""
    judged, tuned = objective(analysis), analysis.tuning
    scale = scale_of(judged.unit)
    known = [y for each in tuned for _, y in _done(each, scale)]
    if not known:
        return
    last = max(trial.number for each in tuned for trial in each.trials) + 1
    width = scale_between(0.5, last + 0.5, is_integer=True)
    ends = scale_over(known, unit=judged.unit)
    text = (
        f"{sentence_case(axis_label(judged))} of every trial by its number (dots), the best so far (line) and the "
        "chosen trial (orange diamond). Hollow: stopped early, at the value it had by then or at the scale's edge; "
        "crosses at the lower edge: diverged or failed."
    ) + left_out(len(tuned), "variants")
    for name, shown in pages("tuning", tuned):
        titles = [wrapped(each.variant, longest=30) for each in shown]
        page = grid(titles, heading=f"Tuning: {axis_label(judged)} by trial", height=1.5, margins=_MARGINS)
        share_scale(page, x=width, y=ends)
        for axes, each in zip(page.panels, shown, strict=True):
            _draw_trials(axes, each, scale, judged.direction)
        label_sides(page, x="trial", y=axis_label(judged))
        yield Drawing(name=name, title="tuning by trial", text=text, figure=page.figure)


def _done(tuned: TunedVariant, scale: float) -> Points:
    ended = [(trial.number + 1, trial.value) for trial in tuned.trials if trial.value is not None]
    return within([(number, value) for number, value in ended if math.isfinite(value)], scale=scale)


def _stopped(tuned: TunedVariant, scale: float) -> Points:
    """Return the stopped trials at the last values of their curves."""
    ended = [(trial.number + 1, trial.curve[-1]) for trial in tuned.trials if trial.outcome == "pruned" and trial.curve]
    return within([(number, value) for number, value in ended if math.isfinite(value)], scale=scale)


def _draw_trials(axes: Axes, tuned: TunedVariant, scale: float, direction: Direction) -> None:
    done = _done(tuned, scale)
    last = max(trial.number for trial in tuned.trials) + 1
    look: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, "clip_on": True}
    if done:
        best = list(accumulate((value for _, value in done), max if SIGNS[direction] > 0 else min))
        numbers = [number for number, _ in done]
        axes.plot([*numbers, last], [*best, best[-1]], drawstyle="steps-post", color=GREY, lw=1.2, zorder=2, gid="best")
    _plot(axes, done, marker="o", color=BLUE, markeredgewidth=0, alpha=0.8, gid="done", **look)
    low, high = axes.get_ylim()
    room = _AT_THE_EDGE * (high - low)
    stopped = [(number, min(max(value, low + room), high - room)) for number, value in _stopped(tuned, scale)]
    _plot(axes, stopped, marker="o", color=GREY, markerfacecolor="none", gid="stopped", **look)
    chosen = [point for point in done if point[0] == tuned.chosen + 1]
    diamond: dict[str, Any] = {"marker": "D", "color": ORANGE, "markeredgecolor": DARK, "markeredgewidth": 0.8}
    _plot(axes, chosen, **diamond, gid="chosen", **(look | {"markersize": 6.5, "zorder": 4}))
    ended = [trial.number + 1 for trial in tuned.trials if trial.outcome in ("diverged", "failed")]
    edge = axes.get_xaxis_transform()
    cross: dict[str, Any] = {"marker": "x", "color": VERMILLION, "transform": edge, "gid": "failed"}
    _plot(axes, [(number, _AT_THE_EDGE) for number in ended], **cross, **look)


def _plot(axes: Axes, points: Sequence[tuple[float, float]], **look: Any) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, **{"zorder": 3, **look})
