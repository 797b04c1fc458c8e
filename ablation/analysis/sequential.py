"""The rule of planned looks: at which look each comparison is decided, by how much of alpha, and who needs more seeds.

All of it is a function of the looks and of what the seeds showed, never of the order in which runs ended:

1. Each comparison begins with an equal part of alpha. One whose interval lies beyond zero and beyond its ROPE passes
   half of what it holds, in equal parts, to those still open, which are then judged again at their present look
   (Maurer & Bretz 2013). One that is asked no more counts as open. One that may be too small to matter passes
   nothing: what is said of its size may be wrong.
2. It is decided where its repeated interval excludes zero, or lies inside ±ROPE.
3. Before the last look it is given up where what is left of the plan cannot decide it (futility, which binds nothing).
4. A look is judged when all runs of all open comparisons are there. One that stays open whatever the others come to
   may go on to its next look before that.
5. A run without a result pauses its comparisons; one that diverged or collapsed makes them unstable and stops them.
6. Below 8 seeds the SD has a floor: half of what the family's other comparisons imply.
7. Seeds beyond the plan are judged by an e-process at an extra alpha / 5, see `grown`.
8. Folds have one look and do not grow. Their intervals are corrected for what their training parts have in common; a
   comparison that came after results could be seen is judged by such an interval at its part of alpha / 5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import special

from ablation.analysis.answer_records import Interval
from ablation.analysis.boundaries import Boundary, boundaries
from ablation.analysis.statistics import confidence_sequence, correction, mean_of, sample_sd

PASSED_ON = 0.5
"""Of the alpha of a comparison beyond its ROPE. One that is only beyond zero may be as large as the ROPE, and would be
called too small, or meaningful, by all of its alpha: if it passed half, error reached 6.5 % at one look of 12 seeds."""
FLOORED_BELOW, FLOOR, FEWEST_FOR_A_FLOOR = 8, 0.5, 3
FRAGILE_BELOW = 5
"""Seeds below which a difference is no verdict where too few comparisons tell what the noise is."""
FUTILITY = 0.9
GROWTH_SHARE = 0.2
"""Of alpha, for what was added after results could be seen."""


class Lack(StrEnum):
    """Why a seed shows no difference of a comparison."""

    NOT_ENDED = "not ended"
    MISSING = "missing"
    UNSTABLE = "unstable"


class State(StrEnum):
    """How a comparison stands."""

    OPEN = "open"
    PAUSED = "paused"
    DIFFERENT = "different"
    TOO_SMALL = "too small"
    FUTILE = "not decidable within the plan"
    ENDED = "open at the last look"
    UNSTABLE = "unstable"
    NO_VARIATION = "no variation"
    OUT_OF_BUDGET = "out of budget"
    """Open, and no more is trained for it now; what `judged` returns never is."""

    @property
    def is_decided(self) -> bool:
        return self in (State.DIFFERENT, State.TOO_SMALL)


Seeds = Sequence[float | Lack]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A comparison as the rule sees it.

    `seeds` is what each seed shows, in the order of the plan: the difference, or why there is none. `spread` is
    √Σw² of its weights: how many times the SD of one run its SD would be if runs were independent. `is_added`: it came
    after results could be seen. `is_dropped`: it was planned and is asked no more. It is judged no more, and keeps its
    part of alpha and its place in the floor: the others are judged no more loosely without it. `repeated_from` is the
    number of first seeds among which one repeats another: from there on nothing tells what the noise is.
    """

    metric: str
    rope: float | None
    spread: float
    seeds: Seeds
    is_added: bool = False
    is_dropped: bool = False
    repeated_from: int | None = None

    def repeats_in(self, seeds: int) -> bool:
        """Whether one of the first seeds repeats another."""
        return self.repeated_from is not None and self.repeated_from <= seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a comparison stands after the last look that was judged.

    `seeds` is how many it was judged on, 0 before its first look. `alpha` is what it holds, or was decided by;
    `interval` is at 1 - alpha. `wanted` is how many of the first seeds its variants need now. `is_floored`: the SD was
    raised. `is_fragile`: a difference that so few seeds cannot tell from luck. `is_grown`: judged by the e-process.
    `p` is what the t test of its last look must fall below, None where t decides nothing; `least_sd` the
    floor of the SD there.
    """

    state: State
    seeds: int
    alpha: float
    interval: Interval | None
    wanted: int
    is_floored: bool = False
    is_fragile: bool = False
    is_grown: bool = False
    p: float | None = None
    least_sd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a family is judged by: its looks in numbers of seeds, those beyond the plan in `growth`, and its alpha.

    `planned` is how many comparisons alpha was shared among when the plan was locked; `comparisons` how many there are.
    `test_to_train` corrects intervals over folds, see `statistics.correction`.
    `gives_up`: what the rest of the plan cannot decide is stopped before the last look. That binds nothing: who has the
    seeds of later looks anyway may judge on.
    """

    looks: tuple[int, ...]
    growth: tuple[int, ...]
    alpha: float
    planned: int
    comparisons: int
    test_to_train: float = 0.0
    gives_up: bool = True

    @property
    def alpha_planned(self) -> float:
        """What each planned comparison begins with."""
        return self.alpha / self.planned

    @property
    def alpha_added(self) -> float:
        """What each comparison has for seeds beyond the plan."""
        return self.alpha * GROWTH_SHARE / self.comparisons

    @property
    def decisive_e_value(self) -> float:
        return 1 / self.alpha_added


def judged(family: Sequence[Asked], rule: Rule) -> tuple[Standing, ...]:
    """Return how each comparison of a family stands, in its order."""
    found = _Family(family, rule).through_the_looks()
    if rule.test_to_train:
        return tuple(
            _added_to_folds(family, asked, standing, rule) if asked.is_added else standing
            for asked, standing in zip(family, found, strict=True)
        )
    return tuple(_grown(asked, standing, rule) for asked, standing in zip(family, found, strict=True))


class _Family:
    """A family on its way through the looks."""

    def __init__(self, family: Sequence[Asked], rule: Rule) -> None:
        self._family = family
        self._rule = rule
        self._floors: dict[str, float | None] = {}
        self._looks: dict[tuple[int, int, float], _Look] = {}
        self._dropped = sum(asked.is_dropped for asked in family)
        self._standings = [
            Standing(state=State.OPEN, seeds=0, alpha=rule.alpha_planned, interval=None, wanted=rule.looks[0])
            for _ in family
        ]

    def through_the_looks(self) -> list[Standing]:
        for index, seeds in enumerate(self._rule.looks):
            now = self._open()
            if not now:
                break
            lacks = {at: _lack(self._family[at].seeds[:seeds], seeds) for at in now}
            waiting = [at for at in now if lacks[at] is Lack.NOT_ENDED]
            for at in now:
                self._update(at, wanted=seeds)
            if waiting:
                self._begin_early(index, [at for at in now if lacks[at] is None], waiting)
                break
            for at, lack in lacks.items():
                if lack is Lack.MISSING:
                    self._update(at, state=State.PAUSED)
                elif lack is Lack.UNSTABLE:
                    self._update(at, state=State.UNSTABLE, seeds=seeds)
            self._judge(index, [at for at in now if lacks[at] is None])
        return self._standings

    def _open(self) -> list[int]:
        """Return the planned comparisons that are still open; the others are judged by the rule of growth."""
        return [
            at
            for at, standing in enumerate(self._standings)
            if standing.state is State.OPEN and not self._family[at].is_added and not self._family[at].is_dropped
        ]

    def _update(self, at: int, **changes: object) -> None:
        self._standings[at] = replace(self._standings[at], **changes)  # type: ignore[arg-type]

    def _judge(self, index: int, ready: Sequence[int]) -> None:
        """Judge those that are ready at a look; those that are paused stay open, and are passed alpha too."""
        paused = [at for at, standing in enumerate(self._standings) if standing.state is State.PAUSED]
        alphas = {at: standing.alpha for at, standing in enumerate(self._standings)}
        found = self._decided(index, ready, paused, alphas)
        for at in paused:
            self._update(at, alpha=alphas[at])
        for at in ready:
            self._standings[at] = self._after_look(index, at, found.get(at), alphas[at])

    def _decided(
        self, index: int, ready: Sequence[int], paused: Sequence[int], alphas: dict[int, float]
    ) -> dict[int, State]:
        """Return which of those that are ready are decided at a look, passing alpha on until nothing changes.

        `alphas` is what each holds, and will hold; those that are paused are passed some too.
        """
        found: dict[int, State] = {}
        while True:
            new = {
                at: state
                for at in ready
                if at not in found and (state := self._look(index, at, alphas[at]).verdict) is not None
            }
            passing = [alphas[at] for at in new if self._look(index, at, alphas[at]).is_beyond]
            found |= new
            still = [at for at in (*ready, *paused) if at not in found]
            if not passing or not still:
                return found
            for at in still:
                alphas[at] += PASSED_ON * sum(passing) / (len(still) + self._dropped)

    def _begin_early(self, index: int, ready: Sequence[int], waiting: Sequence[int]) -> None:
        """Let those begin their next look that stay open whatever those that wait come to.

        However alpha is passed on, and in whichever order, one receives at most half of what the others began with. A
        comparison that is undecided with as much is undecided with any less.
        """
        if index + 1 == len(self._rule.looks) or self._floor_is_open(index):
            return
        alphas = {at: standing.alpha for at, standing in enumerate(self._standings)}

        def is_open(at: int, passing: Sequence[int]) -> bool:
            received = PASSED_ON * sum(alphas[other] for other in passing if other != at)
            return self._look(index, at, alphas[at] + received).verdict is None

        may_pass = [*waiting, *(at for at in ready if not is_open(at, (*ready, *waiting)))]
        for at in ready:
            look = self._look(index, at, alphas[at])
            is_stopped = look.is_futile or look.is_repeated or (look.sd == 0 and not self._varies_elsewhere(at))
            if is_open(at, may_pass) and not is_stopped:
                self._update(at, wanted=self._rule.looks[index + 1])

    def _floor_is_open(self, index: int) -> bool:
        """Whether the floor of a look's SDs is not known yet."""
        return index == 0 and self._rule.looks[0] < FLOORED_BELOW

    def _after_look(self, index: int, at: int, decided: State | None, alpha: float) -> Standing:
        look = self._look(index, at, alpha)
        is_last = index + 1 == len(self._rule.looks)
        state = decided or (
            State.FUTILE if look.is_futile and self._rule.gives_up else State.ENDED if is_last else State.OPEN
        )
        if look.is_repeated or (look.sd == 0 and decided is None and not self._varies_elsewhere(at)):
            state = State.NO_VARIATION
        return Standing(
            state=state,
            seeds=self._rule.looks[index],
            alpha=alpha,
            interval=look.interval,
            wanted=self._rule.looks[index],
            is_floored=look.is_floored,
            is_fragile=look.is_fragile,
            p=look.p,
            least_sd=look.least_sd,
        )

    def _varies_elsewhere(self, at: int) -> bool:
        """Whether any other planned comparison's differences vary, on the seeds of the last look that it needed."""
        others = (
            asked.seeds[: standing.wanted]
            for other, (asked, standing) in enumerate(zip(self._family, self._standings, strict=True))
            if other != at and not asked.is_added
        )
        return any(sample_sd(numbers(seeds)) for seeds in others)

    def _look(self, index: int, at: int, alpha: float) -> "_Look":
        """Return a comparison at a look, made once: it is asked for until nothing changes any more."""
        if (index, at, alpha) not in self._looks:
            asked, seeds = self._family[at], self._rule.looks[index]
            self._looks[index, at, alpha] = _Look.of(
                numbers(asked.seeds[:seeds]),
                looks=self._rule.looks,
                index=index,
                alpha=alpha,
                rope=asked.rope,
                least_sd=self._least_sd(asked, seeds),
                is_repeated=asked.repeats_in(seeds),
                test_to_train=self._rule.test_to_train,
            )
        return self._looks[index, at, alpha]

    def _least_sd(self, asked: Asked, seeds: int) -> float | None:
        if asked.metric not in self._floors:
            self._floors[asked.metric] = usual_spread(self._family, asked.metric, self._rule.looks[0])
        return floor_at(seeds, asked, self._floors[asked.metric])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """A comparison at a look: its interval and what that says; `is_beyond`: all of it lies beyond 0 and the ROPE."""

    sd: float | None
    interval: Interval | None
    verdict: State | None
    is_beyond: bool = False
    is_futile: bool = False
    is_floored: bool = False
    is_fragile: bool = False
    p: float | None = None
    least_sd: float = 0.0
    is_repeated: bool = False

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        *,
        looks: tuple[int, ...],
        index: int,
        alpha: float,
        rope: float | None,
        least_sd: float | None,
        is_repeated: bool,
        test_to_train: float = 0.0,
    ) -> "_Look":
        sd, n = sample_sd(values), len(values)
        if not sd or is_repeated:
            return cls(sd=sd, interval=None, verdict=None, is_repeated=is_repeated)
        mean, limits = mean_of(values), boundaries(looks, alpha)
        raised = max(sd, least_sd or 0.0)
        half_width = limits[index].t * raised / math.sqrt(n) * correction(n, test_to_train)
        interval = Interval(low=mean - half_width, high=mean + half_width, level=1 - alpha)
        verdict = state_of(interval, rope)
        is_mute = least_sd is None and n < FRAGILE_BELOW
        return cls(
            sd=sd,
            interval=interval,
            verdict=None if is_mute else verdict,
            is_beyond=verdict is State.DIFFERENT and min(abs(interval.low), abs(interval.high)) > (rope or 0.0),
            is_futile=index + 1 < len(looks) and _is_futile(mean, sd, n, last=limits[-1], rope=rope),
            is_floored=raised > sd,
            is_fragile=is_mute and verdict is not None,
            p=None if is_mute else limits[index].p,
            least_sd=least_sd or 0.0,
        )


def _added_to_folds(family: Sequence[Asked], asked: Asked, standing: Standing, rule: Rule) -> Standing:
    """Judge a comparison of folds that came later: once, as there are no more folds to see it at."""
    seeds = rule.looks[-1]
    standing, lack = replace(standing, alpha=rule.alpha_added, wanted=seeds), _lack(asked.seeds[:seeds], seeds)
    if lack is Lack.UNSTABLE:
        return replace(standing, state=State.UNSTABLE, seeds=seeds)
    if lack is not None:
        return replace(standing, state=_LACKING[lack])
    look = _Look.of(
        numbers(asked.seeds[:seeds]),
        looks=rule.looks,
        index=len(rule.looks) - 1,
        alpha=rule.alpha_added,
        rope=asked.rope,
        least_sd=floor_at(seeds, asked, usual_spread(family, asked.metric, rule.looks[0])),
        is_repeated=asked.repeats_in(seeds),
        test_to_train=rule.test_to_train,
    )
    return replace(
        standing,
        state=look.verdict or (State.ENDED if look.sd and not look.is_repeated else State.NO_VARIATION),
        seeds=seeds,
        interval=look.interval,
        is_floored=look.is_floored,
        is_fragile=look.is_fragile,
        p=look.p,
        least_sd=look.least_sd,
    )


def _grown(asked: Asked, standing: Standing, rule: Rule) -> Standing:
    """Judge what the plan has left open, or what came later, by the e-process, on all seeds from the first.

    Shown is what both the last look's interval and the confidence sequence hold, so that more seeds never widen it.
    """
    totals = rule.growth if not asked.is_added else (*rule.looks, *rule.growth)
    if totals and standing.state is State.UNSTABLE:
        return _counted(asked, standing, totals)
    if not totals or standing.state not in _GOES_ON[asked.is_added]:
        return standing
    alpha = rule.alpha_added + (0.0 if asked.is_added else standing.alpha)
    planned = standing
    if asked.is_added:
        standing = replace(standing, alpha=alpha)
    for seeds in totals:
        lack = _lack(asked.seeds[:seeds], seeds)
        if asked.repeats_in(seeds) and lack is not Lack.UNSTABLE:  # more of them decide nothing
            judged_on = seeds if lack is None else max(standing.seeds, asked.repeated_from or 0)
            return replace(standing, state=State.NO_VARIATION, seeds=judged_on, interval=None)
        standing = replace(standing, wanted=seeds, state=State.OPEN)
        if lack is Lack.UNSTABLE:
            return _counted(asked, replace(standing, state=State.UNSTABLE), totals)
        if lack is not None:
            return replace(standing, state=_LACKING[lack])
        standing = _at_total(asked, seeds, planned, alpha=alpha, alpha_added=rule.alpha_added)
        if standing.state.is_decided:
            return standing
    return replace(standing, state=State.ENDED)


def _at_total(asked: Asked, seeds: int, planned: Standing, *, alpha: float, alpha_added: float) -> Standing:
    """Judge a comparison on so many seeds by what both the plan's interval and the confidence sequence hold."""
    sequence = confidence_sequence(numbers(asked.seeds[:seeds]), alpha=alpha_added)
    is_luck = planned.is_fragile and sequence is None
    # What the plan's few seeds showed may be luck, and counts no more once there is a confidence sequence.
    before = planned.interval if is_luck or not planned.is_fragile else None
    interval = _both(before, sequence, level=1 - alpha)
    verdict = None if is_luck or interval is None else state_of(interval, asked.rope)
    return Standing(
        state=verdict or State.OPEN,
        seeds=seeds,
        alpha=alpha,
        interval=interval,
        wanted=seeds,
        is_grown=True,
        is_fragile=is_luck,
    )


def _counted(asked: Asked, standing: Standing, totals: Sequence[int]) -> Standing:
    """Count an unstable comparison's runs beyond the plan too: there is no verdict that they could change."""
    whole = [seeds for seeds in totals if _lack(asked.seeds[:seeds], seeds) in (None, Lack.UNSTABLE)]
    return replace(standing, seeds=max((standing.seeds, *whole)), wanted=totals[-1])


_GOES_ON = {False: (State.FUTILE, State.ENDED, State.NO_VARIATION), True: (State.OPEN,)}
"""The states from which a comparison is judged by the e-process: planned ones, and those that were added."""
_LACKING = {Lack.NOT_ENDED: State.OPEN, Lack.MISSING: State.PAUSED}


def _both(planned: Interval | None, sequence: tuple[float, float] | None, *, level: float) -> Interval | None:
    """Return what lies in both intervals; what was seen later counts where nothing does."""
    if sequence is None:
        return planned and replace(planned, level=level)
    low, high = sequence
    if planned is not None and max(low, planned.low) <= min(high, planned.high):
        low, high = max(low, planned.low), min(high, planned.high)
    return Interval(low=low, high=high, level=level)


def state_of(interval: Interval, rope: float | None) -> State | None:
    if rope is not None and -rope <= interval.low and interval.high <= rope:
        return State.TOO_SMALL
    return State.DIFFERENT if interval.sign else None


def _is_futile(mean: float, sd: float, n: int, *, last: Boundary, rope: float | None) -> bool:
    """Whether even an SD as small as it may well be decides nothing at the last look, if the mean stays as it is."""
    half_width = last.t * (sd * low_sd_share(n)) / math.sqrt(last.seeds)
    return abs(mean) < half_width and (rope is None or abs(mean) + half_width > rope)


def low_sd_share(n: int) -> float:
    """Return how large an SD is that an SD of n values may well be an overestimate of: the end of its 90 % interval."""
    return math.sqrt((n - 1) / float(special.chdtri(n - 1, 1 - FUTILITY)))


def floor_at(seeds: int, asked: Asked, usual: float | None) -> float | None:
    """Return the floor of a look's SD: 0 where there is none, None where too few comparisons tell the usual spread."""
    if seeds >= FLOORED_BELOW:
        return 0.0
    return FLOOR * asked.spread * usual if usual is not None else None


def usual_spread(family: Sequence[Asked], metric: str, first: int) -> float | None:
    """Return the median SD of one run that planned comparisons on a metric imply at the first look; None of under 3."""
    known = [
        (sample_sd(values) or 0.0) / asked.spread
        for asked in family
        if asked.metric == metric
        and not asked.is_added
        and not asked.repeats_in(first)
        and len(values := numbers(asked.seeds[:first])) == first >= 2
    ]
    return float(np.median(known)) if len(known) >= FEWEST_FOR_A_FLOOR else None


def _lack(seeds: Seeds, wanted: int) -> Lack | None:
    """Return what of a look's seeds keeps it from being judged; what has not ended comes first."""
    found = set(seeds) if len(seeds) == wanted else {*seeds, Lack.NOT_ENDED}
    return next((lack for lack in Lack if lack in found), None)


def numbers(seeds: Seeds) -> list[float]:
    """Return the differences of the seeds that show one."""
    return [seed for seed in seeds if not isinstance(seed, Lack)]
