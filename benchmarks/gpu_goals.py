"""Judges what was measured of a GPU by the goals: each met, missed, or not measured and why."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from benchmarks.apart import Answer
from benchmarks.gpu_device import Rates
from benchmarks.gpu_training import Accuracies, FusedTimes, Gradients, LoaderTimes, SoloTimes, StepTraffic

T = TypeVar("T")
Measured = Mapping[str, Answer]
"""What came of the parts that were run, by name."""
Figures = Mapping[str, Callable[[Measured], float]]
"""How each figure of a goal is had, by what it is of."""
Path = Literal["eager", "graph", "conventional"]
COARSE = ("tf32", "bf16")


class NotMeasured(Exception):
    """A goal's figure cannot be had, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is to be reached: by one of the named figures, where `one_is_enough`, else by each."""

    what: str
    limit: float
    is_floor: bool
    figures: Figures
    one_is_enough: bool = False

    def is_reached(self, figure: float) -> bool:
        return figure >= self.limit if self.is_floor else figure <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a goal: its figures by name, and why others are missing."""

    goal: str
    limit: str
    verdict: Literal["met", "missed", "not measured"]
    figures: Mapping[str, float]
    missing: Mapping[str, str]

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {figure:.3g}" for name, figure in self.figures.items())
        missing = "; ".join(dict.fromkeys(self.missing.values()))
        said = "; ".join(filter(None, [figures, missing]))
        return f"{self.verdict:12}  {self.goal} ({self.limit}): {said}"


def judge(measured: Measured) -> tuple[Verdict, ...]:
    return tuple(_judged(goal, measured) for goal in GOALS)


def _judged(goal: Goal, measured: Measured) -> Verdict:
    figures, missing = {}, {}
    for name, figure in goal.figures.items():
        try:
            figures[name] = figure(measured)
        except NotMeasured as why:
            missing[name] = str(why)
    sign, which = ("≥" if goal.is_floor else "≤"), ("in one" if goal.one_is_enough else "in each")
    few = f", {which}" if len(goal.figures) > 1 else ""
    return Verdict(
        goal=goal.what,
        limit=f"{sign} {goal.limit:g}{few}",
        verdict=_verdict(goal, list(figures.values()), is_whole=not missing),
        figures=figures,
        missing=missing,
    )


def _verdict(goal: Goal, figures: Sequence[float], *, is_whole: bool) -> Literal["met", "missed", "not measured"]:
    """Judge by what there is, where what is missing could not change it."""
    reached = [goal.is_reached(figure) for figure in figures]
    if goal.one_is_enough:
        return "met" if any(reached) else "missed" if is_whole else "not measured"
    return "missed" if not all(reached) else "met" if is_whole else "not measured"


def _part(measured: Measured, name: str, kind: type[T]) -> T:
    answer = measured.get(name)
    if answer is None:
        raise NotMeasured(f"part {name} was not run")
    if not isinstance(answer.value, kind):
        raise NotMeasured(f"part {name} failed: {answer.error}")
    return answer.value


def _alone(measured: Measured, precision: str, path: Path) -> float:
    """Return the seconds per step of a run on its own."""
    if path == "conventional":
        return statistics.median(_part(measured, f"conventional-{precision}", LoaderTimes).seconds_per_step)
    times = _part(measured, f"solo-{precision}", SoloTimes)
    return statistics.median(times.eager if path == "eager" else times.graph)


def _most_fused(measured: Measured, precision: str) -> FusedTimes:
    """Return the most runs that were trained together by any backend."""
    found = [one for one in _part(measured, f"fused-{precision}", tuple) if one.fastest is not None]
    if not found:
        raise NotMeasured(f"part fused-{precision} has no backend that trains")
    return max(found, key=lambda one: one.runs)


def _graph_gain(measured: Measured, precision: str) -> float:
    return _alone(measured, precision, "eager") / _alone(measured, precision, "graph")


def _fused_gain(measured: Measured, precision: str, path: Path) -> float:
    """Return how many times as many model-steps per second fused runs take, over whole epochs, as one on a path."""
    fused = _most_fused(measured, precision)
    return _alone(measured, precision, path) * fused.runs / statistics.median(fused.epoch_seconds_per_step)


def _above_the_bytes(measured: Measured, precision: str) -> float:
    """Return a step's time by the fastest backend, in units of what moving its bytes takes at the copy's rate."""
    fused, rates = _most_fused(measured, precision), _part(measured, "rates", Rates)
    counted = [
        one
        for one in _part(measured, "traffic", tuple)
        if isinstance(one, StepTraffic)
        and (one.precision, one.backend, one.runs) == (precision, fused.fastest, fused.runs)
    ]
    if not counted:
        raise NotMeasured(f"part traffic has not counted {fused.runs} runs by {fused.fastest}")
    seconds = fused.step_seconds[counted[0].backend]
    return seconds * rates.copy_bytes_per_second / counted[0].bytes


def _gradient(measured: Measured, backend: str) -> float:
    return _part(measured, "gradients", Gradients).fused[backend]


def _accuracy_apart(measured: Measured, backend: str) -> float:
    """Return how far the mean accuracy of fused runs is from that of runs alone, in standard errors of the latter."""
    found = _part(measured, "accuracies", Accuracies)
    noise = max(statistics.stdev(found.alone), 1e-4) / len(found.alone) ** 0.5
    return abs(statistics.mean(found.fused[backend]) - statistics.mean(found.alone)) / noise


def _in(
    precisions: Sequence[str], figure: Callable[..., float], **options: str
) -> dict[str, Callable[[Measured], float]]:
    return {precision: partial(figure, precision=precision, **options) for precision in precisions}


def _by(backends: Sequence[str], figure: Callable[..., float]) -> Figures:
    return {backend: partial(figure, backend=backend) for backend in backends}


FUSED_GAINS: Mapping[Path, float] = {"graph": 6, "eager": 20, "conventional": 100}
"""How many times as many model-steps per second fused runs are to take as a run on a path."""
GOALS: tuple[Goal, ...] = (
    Goal(
        what="relative error of a fused run's first gradient, fp32",
        limit=1e-4,
        is_floor=False,
        figures=_by(("grouped", "matmul"), _gradient),
    ),
    Goal(
        what="relative error of the graph's first loss",
        limit=1e-3,
        is_floor=False,
        figures={"fp32": lambda measured: _part(measured, "gradients", Gradients).graph_loss},
    ),
    Goal(
        what="accuracy of fused runs from that of runs alone, in standard errors",
        limit=3,
        is_floor=False,
        figures=_by(("grouped", "matmul", "streams"), _accuracy_apart),
    ),
    Goal(what="graph / eager", limit=2.5, is_floor=True, figures=_in(("fp32", *COARSE), _graph_gain)),
    *(
        Goal(
            what=f"fused / {path}",
            limit=limit,
            is_floor=True,
            figures=_in(COARSE, _fused_gain, path=path),
            one_is_enough=True,
        )
        for path, limit in FUSED_GAINS.items()
    ),
    Goal(
        what="a fused step / time to move its bytes", limit=3, is_floor=False, figures=_in(("bf16",), _above_the_bytes)
    ),
)
"""Ratios are of model-steps per second. In fp32 nothing is asked of fused runs: on an H200 (67 TFLOP/s
without tensor cores) the products alone take 59 µs per model-step, about all that the goals would leave."""
