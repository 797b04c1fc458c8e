"""Keeps a study within its budget of wall-clock time: what was spent, what runs cost, which of them may be begun.

What is asked for at once, most of a look or all of it, is weighed before its first run is begun: by the median of what
runs of each variant took, and by how many jobs go at a time. What would not fit is withheld, and what was begun is
finished. Only where a variant has never been trained is it begun unweighed; as soon as each has one ended run it is
weighed, and where it would not fit no more of it is begun. Which runs are asked for, and in which order, is no concern
of this: a study that goes on with more of a budget comes to the same results.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ablation.coordinator.looks import LooksUnderWay
from ablation.records import OutOfBudget, PlannedRun, RecordedRun, Spending
from ablation.report.numbers import duration_text, share_of_time_text
from ablation.report.prose import more_budget_text

Clock = Callable[[], float]
"""Gives seconds that never run backwards."""
MARGIN, MARGIN_S = 1.05, 20.0
"""What is added to the budget that is forecast to be enough: another report, and runs that take a little longer."""


class Budget:
    """The time of a study's executions: what earlier ones took and what this one has since `begun`, by its clock.

    `limit_s` is None where there is no limit; the time is counted all the same, as a later execution may have one.
    """

    def __init__(self, *, limit_s: float | None, spent_before_s: float, begun: float, clock: Clock) -> None:
        self.limit_s = limit_s
        self.now = clock
        self._spent_before_s = spent_before_s
        self._begun = begun
        self._prepared_s = 0.0
        self._out: OutOfBudget | None = None

    @property
    def spent_s(self) -> float:
        return self._spent_before_s + self.now() - self._begun

    @property
    def left_s(self) -> float:
        return math.inf if self.limit_s is None else self.limit_s - self.spent_s

    @property
    def is_gone(self) -> bool:
        return self.left_s <= 0

    @property
    def spending(self) -> Spending:
        return Spending(spent_s=self.spent_s, limit_s=self.limit_s, out=self._out)

    def note_prepared(self) -> None:
        """Note that all is ready for the first run: another execution will take as long until then."""
        self._prepared_s = self.now() - self._begun

    def end(self, forecast_s: float | None) -> OutOfBudget:
        """Note that this execution ends for its budget, with so much left to do until the next look."""
        assert self.limit_s is not None
        spent = self.spent_s
        needed = None if forecast_s is None else MARGIN * (spent + self._prepared_s + forecast_s) + MARGIN_S
        self._out = OutOfBudget(limit_s=self.limit_s, spent_s=spent, needed_s=needed)
        return self._out

    def text(self) -> str | None:
        """Return `budget: 41 of 60 min`; None where there is no limit."""
        return None if self.limit_s is None else f"budget: {share_of_time_text(self.spent_s, self.limit_s)}"


class RunTimes:
    """What the runs of each variant took of a slot's time, in seconds, as far as they were measured."""

    def __init__(self, recorded: Iterable[RecordedRun] = ()) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._medians: dict[str, float] = {}
        self._of_all: float | None = None
        self._tried: set[str] = set()
        for run in recorded:
            self.add(run.planned.variant, measured_s(run.metrics))

    def add(self, variant: str, seconds: float) -> None:
        """Take a run that has ended; 0 where its time is not known."""
        self._tried.add(variant)
        if seconds:
            known = self._seconds.setdefault(variant, [])
            known.append(seconds)
            self._medians[variant], self._of_all = median(known), None

    def were_tried(self, runs: Iterable[PlannedRun]) -> bool:
        """Whether a run of each of their variants has ended."""
        return all(run.variant in self._tried for run in runs)

    def usual(self, run: PlannedRun) -> float:
        """Return what a run will take: its variant's median, else the median of the others', else 0."""
        if self._of_all is None:
            self._of_all = median(self._medians.values()) if self._medians else 0.0
        return self._medians.get(run.variant, self._of_all)

    def least(self, run: PlannedRun) -> float:
        """Return the same, and 0 where no run of its variant has ended."""
        return self.usual(run) if run.variant in self._tried else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _JobUnderWay:
    runs: tuple[PlannedRun, ...]
    begun: float


class Allowance:
    """Which of the runs that a study's looks ask for may be begun within its budget; used by one thread.

    What was asked for before this execution may be begun, until `is_halted`; what is asked for later, once `decide`
    returns it.
    """

    def __init__(
        self, budget: Budget, looks: LooksUnderWay, recorded: Sequence[RecordedRun], *, slots: Callable[[], int]
    ) -> None:
        self.is_halted = False
        """Whether nothing more is begun at all."""
        self._budget = budget
        self._looks = looks
        self._slots = slots
        has_ended = [run for run in recorded if run.outcome is not None]
        self._times = RunTimes(has_ended)
        ended = {run.planned.identity for run in has_ended}
        self._left = {run.identity: run for run in looks.runs if run.identity not in ended}
        self._withheld: dict[str, PlannedRun] = {}
        self._jobs: dict[str, _JobUnderWay] = {}
        """By the identities of its runs."""
        self._is_weighed = budget.limit_s is None
        self._next_look: str | None = None

    @property
    def withheld(self) -> int:
        """How many runs are asked for, and not to be begun as it stands."""
        return len(self._withheld)

    def begin(self, runs: tuple[PlannedRun, ...]) -> None:
        """Take a job that begins now."""
        job = _JobUnderWay(runs=runs, begun=self._budget.now())
        self._jobs |= dict.fromkeys((run.identity for run in runs), job)

    def give_back(self, run: PlannedRun) -> None:
        """Take a run whose job ended without a result of it."""
        self._jobs.pop(run.identity, None)

    def end(self, run: PlannedRun, metrics: Mapping[str, float]) -> None:
        """Take a run that has ended, and what it measured: one that was resumed began before its job."""
        job = self._jobs.pop(run.identity)
        share = (self._budget.now() - job.begun) / len(job.runs)
        self._times.add(run.variant, max(share, measured_s(metrics)))
        self._left.pop(run.identity, None)

    def ask(self, runs: Iterable[PlannedRun]) -> None:
        """Take runs that a look asks for; none of them is begun until `decide` returns it."""
        self._withheld |= {run.identity: run for run in runs if run.identity not in self._left}

    def decide(self) -> tuple[PlannedRun, ...]:
        """Weigh what is to be weighed now; return the runs that may be begun from now on."""
        if not self._is_weighed:
            self._weigh()
        released: dict[str, PlannedRun] = {}
        if self._withheld and not self.is_halted and self._fits():
            released, self._withheld = self._withheld, {}
            self._left |= released
        self._next_look = self._next_text()
        return tuple(released.values())

    def halt(self) -> None:
        """Begin nothing more."""
        self.is_halted = self._is_weighed = True
        waiting = self._waiting()
        self._withheld |= waiting
        self._left = {identity: run for identity, run in self._left.items() if identity not in waiting}

    def conclude(self) -> str | None:
        """Note that the execution ends for its budget where runs are withheld, and return that in words."""
        if not self._withheld:
            return None
        forecast = self._forecast(runs := self._to_fit())
        out = self._budget.end(forecast)
        look = "the next look" if self._looks.look else "the first look"
        left = max(0.0, out.limit_s - out.spent_s)
        time = f"about {duration_text(forecast)}" if forecast else "an unknown time"
        of = f"{duration_text(left)} of {duration_text(out.limit_s)} are left" if left else "the budget is spent"
        self._looks.end_for_budget()
        return f"out of budget: {look} needs {runs_text(len(runs), 'more ')}, {time}, and {of}; {more_budget_text(out)}"

    def begun_text(self, runs: Sequence[PlannedRun]) -> str | None:
        """Return `budget: 41 of 60 min; next look: 12 runs, about 9 min`, where these runs may be begun by now."""
        if not runs or (budget := self._budget.text()) is None:
            return None
        seconds = time_of([self._times.usual(run) for run in runs], slots=self._slots())
        return f"{budget}; next look: {runs_text(len(runs))}, about {duration_text(seconds)}"

    def text(self) -> str | None:
        """Return `budget: 41 of 60 min; next look: up to 12 runs, about 9 min`; None without a limit."""
        return "; ".join(filter(None, [self._budget.text(), self._next_look])) or None

    def _weigh(self) -> None:
        """Weigh what was asked for at first: as soon as each of its variants was tried, or if the rest is too much."""
        waiting = self._waiting()
        is_known = self._times.were_tried(waiting.values())
        forecast = self._forecast(self._left, cost=self._times.usual if is_known else self._times.least)
        if waiting and (self._budget.is_gone or forecast > self._budget.left_s):
            self.halt()
        self._is_weighed = self._is_weighed or is_known

    def _waiting(self) -> dict[str, PlannedRun]:
        """Return what may be begun and has not."""
        return {identity: run for identity, run in self._left.items() if identity not in self._jobs}

    def _fits(self) -> bool:
        return self._budget.limit_s is None or self._forecast(self._to_fit()) <= self._budget.left_s

    def _to_fit(self) -> dict[str, PlannedRun]:
        """Return what must fit into what is left of the budget before anything that is withheld is begun.

        Where some comparisons may begin their next look early, all of it must: it is judged with the others alone.
        """
        asked = {run.identity: run for run in self._looks.whole_look()} if self._looks.is_between else {}
        return {**self._left, **self._withheld, **asked}

    def _forecast(self, runs: Mapping[str, PlannedRun], *, cost: Callable[[PlannedRun], float] | None = None) -> float:
        """Return the seconds until runs have ended, some of them under way, as many jobs at a time as there are slots.

        Fused runs cost a share of their job each, so that they count as jobs of their own.
        """
        cost, now = cost or self._times.usual, self._budget.now()
        jobs = {id(job): job for job in self._jobs.values()}.values()
        under_way = [max(0.0, sum(map(cost, job.runs)) - (now - job.begun)) for job in jobs]
        costs = [*under_way, *(cost(run) for identity, run in runs.items() if identity not in self._jobs)]
        return time_of(costs, slots=self._slots())

    def _next_text(self) -> str | None:
        runs = {run.identity: run for run in self._looks.next_look()} if self._budget.limit_s is not None else {}
        if not runs:
            return None
        seconds = time_of([self._times.usual(run) for run in runs.values()], slots=self._slots())
        return f"next look: up to {runs_text(len(runs))}, about {duration_text(seconds)}" if seconds else None


def measured_s(metrics: Mapping[str, float]) -> float:
    """Return what a run took by its own clock, 0 where that is not known; after a resumption it may have trained more.

    It is less than its job took, which begins with a process and its imports; earlier executions left no more.
    """
    return max(metrics.get("total_seconds", 0.0), metrics.get("training_seconds", 0.0))


def time_of(costs: Sequence[float], *, slots: int) -> float:
    """Return how long jobs take that are begun one after the other, each in the slot that is free first."""
    free = [0.0] * max(1, slots)
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def runs_text(count: int, more: str = "") -> str:
    return f"{count} {more}run{'s' if count != 1 else ''}"
