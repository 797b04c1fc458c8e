"""Turns answers into the rows that every first screen draws: one per comparison, by metric, decided first, by size.

What is drawn of them (characters, SVG, a figure) lies elsewhere; the numbers here are scaled to what is shown (points).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer, Interval, MeasuredMetric
from ablation.output import last_line
from ablation.records import SIGNS
from ablation.report.labels import labelled
from ablation.report.limits import shown_interval
from ablation.report.marks import Mark, mark_of
from ablation.report.names import comparison_lines
from ablation.report.numbers import NONE, brief, level_percent, ratio_text, scale_of, signed, unit_of_differences
from ablation.report.prose import overview, sentence
from ablation.report.prose.amounts import difference_decimals, metric_noun
from ablation.report.prose.failures import unstable_runs
from ablation.report.prose.verdicts import verdict_text

_ROOM = 0.06
"""The share of an axis that is left free at each end."""
_BEYOND = 0.5
"""How far bars may widen an axis, as a share of what dots, means and bands take; beyond it they are cut."""
_COSTS: Mapping[str, str] = {"parameters": "params", "flops": "FLOPs", "seconds": "time"}
"""What a change costs, by the name in its record."""
_UNCLEAR = "≈"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """The difference that one seed shows, and the runs that it is made of."""

    seed: int
    value: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The ends of the scale that all rows of a metric share."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one; what is beyond lies at the end."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison: `number` is its place in the plan's order, from 1, `lines` what is compared, on lines.

    `mean`, `low` and `high` are None where there is none, and then there are no `dots`: what is not told before its
    look, or not compared, is not to be seen either. `effect` and `bounds` say them in words, empty without. `low` and
    `high` are cut at what the metric can reach. `costs` has a text for each of the rows' `costs`. `problem` says
    which runs diverged, collapsed or failed, where that is why there is no difference.
    """

    number: int
    answer: Answer
    lines: tuple[str, ...]
    mark: Mark
    verdict: str
    mean: float | None
    low: float | None
    high: float | None
    dots: tuple[Dot, ...]
    effect: str
    bounds: str
    costs: tuple[str, ...]
    problem: str

    @property
    def change(self) -> str:
        return " ".join(self.lines)

    @property
    def sentence(self) -> str:
        return sentence(self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRows:
    """The rows of one metric; `band` is the half-width of what is too small to matter, None where that is not said.

    `level` is the interval's, empty where they differ. `decimals` are those of all its numbers.
    """

    metric: MeasuredMetric
    unit: str
    band: float | None
    level: str
    decimals: int
    axis: Axis
    rows: tuple[Row, ...]

    @property
    def heading(self) -> str:
        return metric_noun(self.metric)

    @property
    def legend(self) -> str:
        """Return what the drawing means: `points; band: too small to matter (±0.5); bar: 98.75 % interval`."""
        band = f"band: too small to matter (±{brief(self.band)})" if self.band is not None else ""
        bar = f"bar: {self.level} interval" if self.level else "bar: interval"
        side = "right" if SIGNS[self.metric.direction] > 0 else "left"
        return "; ".join(filter(None, (self.unit, band, bar, "dots: seeds", f"better to the {side}")))


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstScreen:
    """What a study says at a glance: a headline, what it rests on in two lines, and its rows by metric.

    `costs` names what the rows say of cost: nothing where nothing was measured.
    """

    headline: str
    lines: tuple[str, ...]
    groups: tuple[MetricRows, ...]
    costs: tuple[str, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def cost_heading(self) -> str:
        return f"cost: {' · '.join(self.costs)}" if self.costs else ""

    @property
    def cost_note(self) -> str:
        """Return what the sign of an unclear time means, empty where no row has one."""
        is_unclear = any(_UNCLEAR in row.costs for row in self.rows)
        return f"{_UNCLEAR}: training time differs less than it varies." if is_unclear else ""


def first_screen(analysis: Analysis) -> FirstScreen:
    """Return the rows of all answers, the study's own metric first, in the study's own labels."""
    analysis = labelled(analysis)
    headline, *lines = overview(analysis)
    numbered = list(enumerate(analysis.answers, start=1))
    costs = tuple(cost for cost in _COSTS if any(_has_cost(answer, cost) for answer in analysis.answers))
    metrics = dict.fromkeys(sorted((answer.metric for answer in analysis.answers), key=lambda m: m != analysis.metric))
    by_metric = [[(number, answer) for number, answer in numbered if answer.metric == metric] for metric in metrics]
    groups = tuple(_group([_row(number, answer, costs) for number, answer in group]) for group in by_metric)
    return FirstScreen(
        headline=headline, lines=tuple(lines), groups=groups, costs=tuple(_COSTS[cost] for cost in costs)
    )


def _group(rows: Sequence[Row]) -> MetricRows:
    answers = [row.answer for row in rows]
    metric, rope = answers[0].metric, answers[0].rope
    band = scale_of(metric.unit) * rope if rope is not None else None
    levels = {level_percent(answer.level) for answer in answers if answer.effect and answer.effect.interval}
    return MetricRows(
        metric=metric,
        unit=unit_of_differences(metric.unit),
        band=band,
        level=levels.pop() if len(levels) == 1 else "",
        decimals=max(map(difference_decimals, answers)),
        axis=_axis(rows, band),
        rows=tuple(sorted(rows, key=_order)),
    )


def _order(row: Row) -> tuple[bool, bool, float, int]:
    """Sort decided rows first, then those with a difference, then by size, the largest first."""
    size = abs(row.mean) if row.mean is not None else 0.0
    return not row.answer.verdict.is_decided, row.mean is None, -size, row.number


def _axis(rows: Sequence[Row], band: float | None) -> Axis:
    """Return a scale that holds zero, the band, all means and dots, and of the bars what leaves these readable."""
    points = [0.0, *((band, -band) if band is not None else ())]
    points += [value for row in rows for value in (row.mean, *(dot.value for dot in row.dots)) if value is not None]
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    bars = [bound for row in rows for bound in (row.low, row.high) if bound is not None]
    low = max(min([low, *bars]), low - _BEYOND * span)
    high = min(max([high, *bars]), high + _BEYOND * span)
    room = _ROOM * (high - low) or _ROOM
    return Axis(low=low - room, high=high + room)


def _row(number: int, answer: Answer, costs: Sequence[str]) -> Row:
    scale, effect = scale_of(answer.metric.unit), answer.effect
    mean = scale * effect.mean if effect is not None else None
    interval = shown_interval(answer)
    return Row(
        number=number,
        answer=answer,
        lines=tuple(comparison_lines(answer)),
        mark=mark_of(answer),
        verdict=verdict_text(answer),
        mean=mean,
        low=scale * interval.low if interval else None,
        high=scale * interval.high if interval else None,
        dots=_dots(answer) if effect is not None else (),
        effect=signed(mean, difference_decimals(answer)) if mean is not None else "",
        bounds=_bounds(answer, interval),
        costs=tuple(_cost(answer, cost) for cost in costs),
        problem=_problem(answer),
    )


def _dots(answer: Answer) -> tuple[Dot, ...]:
    scale = scale_of(answer.metric.unit)
    return tuple(
        Dot(seed=each.seed, value=scale * each.difference, run_ids=each.run_ids) for each in answer.differences
    )


def _bounds(answer: Answer, interval: Interval | None) -> str:
    if interval is None:
        return ""
    scale, decimals = scale_of(answer.metric.unit), difference_decimals(answer)
    return " to ".join(signed(scale * bound, decimals) for bound in (interval.low, interval.high))


def _has_cost(answer: Answer, cost: str) -> bool:
    return answer.cost is not None and (getattr(answer.cost, cost) is not None or _is_unclear(answer, cost))


def _is_unclear(answer: Answer, cost: str) -> bool:
    return answer.cost is not None and cost == "seconds" and answer.cost.is_time_unclear


def _cost(answer: Answer, cost: str) -> str:
    """Return `+8 %`, `±0`, `≈` for a time that differs less than it varies, and a dash where there is no number."""
    if _is_unclear(answer, cost):
        return _UNCLEAR
    ratio = getattr(answer.cost, cost) if answer.cost is not None else None
    if ratio is None:
        return NONE
    return "±0" if ratio == 1 else ratio_text(ratio)


def _problem(answer: Answer) -> str:
    if answer.missing:
        first, *others = answer.missing
        error = last_line(first.error)
        more = f"; {len(others)} more" if others else ""
        return f"{first.variant}/seed-{first.seed} {first.reason}" + (f": {error}" if error else "") + more
    return unstable_runs(answer) if answer.instability is not None else ""
