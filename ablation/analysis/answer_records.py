"""The records that an answer consists of: a comparison, its numbers and its verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ablation.records import Direction


class Verdict(StrEnum):
    """What one comparison showed; the first five are decided or judged, the others say why nothing was judged."""

    HELPS = "helps"
    HURTS = "hurts"
    BETTER_THAN_SUM = "better together than the sum"
    WORSE_THAN_SUM = "worse together than the sum"
    NO_MEANINGFUL_DIFFERENCE = "no meaningful difference"
    UNDECIDED = "undecided"
    INCOMPLETE = "incomplete"
    UNSTABLE = "unstable"
    ONE_SEED = "one seed: no verdict"
    NO_VARIATION = "no variation: no verdict"
    OUT_OF_BUDGET = "out of budget"

    @property
    def is_decided(self) -> bool:
        return self in _DECIDED

    @property
    def is_judged(self) -> bool:
        """Whether there was an estimate of noise to judge by."""
        return self in _DECIDED or self.is_left_open

    @property
    def is_left_open(self) -> bool:
        """Whether it was judged, and more seeds may decide it."""
        return self in (Verdict.UNDECIDED, Verdict.OUT_OF_BUDGET)


class Interplay(StrEnum):
    """How two effects go together whose interaction is decided; docs/statistics.md has the cases."""

    REINFORCE = "reinforce each other"
    OVERLAP = "overlap each other"
    WORK_AGAINST = "work against each other"
    OPPOSE = "oppose each other and do not add up"
    NO_SUM = "do not add up"


_DECIDED = (
    Verdict.HELPS,
    Verdict.HURTS,
    Verdict.BETTER_THAN_SUM,
    Verdict.WORSE_THAN_SUM,
    Verdict.NO_MEANINGFUL_DIFFERENCE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredMetric:
    """A metric as the report names it, the split in its label."""

    name: str
    label: str
    direction: Direction
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An interval and its confidence level, a fraction."""

    low: float
    high: float
    level: float

    @property
    def sign(self) -> int:
        """1 or -1 where all of it is on that side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean per-seed difference with its unadjusted 95 % interval: descriptive."""

    n: int
    mean: float
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """A factor's change from the baseline's level to another; `label` is the factor's short name."""

    factor: str
    label: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDifference:
    """The difference that one seed shows, in the metric's unit, and the MLflow runs it was made from."""

    seed: int
    difference: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wins:
    """In how many of n seeds the change was for the better; ties are no wins. `share` is Clopper-Pearson, at 95 %."""

    wins: int
    ties: int
    n: int
    share: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The paired differences of n seeds in numbers.

    `sd` is that of the differences; `interval` the paired t interval of their mean, `e_value` that of the t e-process
    against a difference of zero; `detectable` the difference that n seeds find in 80 % of repetitions, by the t test of
    their look alone. All are None with one seed, and but for the SD where the differences don't vary.
    """

    n: int
    mean: float
    sd: float | None
    interval: Interval | None
    e_value: float | None
    detectable: float | None
    skewness: float | None
    wins: Wins


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleEffect:
    """A change at one setting of the other factors: descriptive, with an unadjusted 95 % interval and no verdict."""

    change: LevelChange
    at: Mapping[str, Any]
    n: int
    mean: float
    interval: Interval | None
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JointEffect:
    """Two changes of an interaction against neither: each alone, and both combined.

    `in_logits` is their interaction on the logit scale, None where the metric is no fraction or is 0 or 1 in a run.
    Where the interaction is decided, `interplay` names it, and `depends_on_scale` says that it is not there in logits
    (95 %), or the other way.
    """

    first: Difference
    second: Difference
    combined: Difference
    in_logits: Difference | None
    interplay: Interplay | None
    depends_on_scale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorseMetric:
    """Another metric of the study that the same change surely makes worse: descriptive."""

    metric: MeasuredMetric
    difference: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The chance, 0 to 1, that a comparison left open is decided with `seeds` in all, either way.

    By the rule that will judge it: the boundary of a planned look, beyond the plan the e-process. Mean and SD are drawn
    from what its seeds leave open of them; alpha that may yet be passed on to it does not count. `more` is how many
    seeds more than it was judged on last. `is_planned`: they are what it is judged at next, and the same command trains
    them. Else the plan has given it up or ended, and `more_for_power` is how many more decide it with a chance of 80 %:
    None above 10,000 in all, and where `is_unclear`, as that differs more than tenfold between the ends of the SD's
    95 % range.
    """

    seeds: int
    more: int
    chance: float
    is_planned: bool
    more_for_power: int | None
    is_unclear: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstableRate:
    """How many of n runs with these levels diverged or collapsed; `share` is Clopper-Pearson, at 95 %."""

    levels: Mapping[str, Any]
    unstable: int
    n: int
    share: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstableVariant:
    """How many of a variant's n runs diverged, and how many collapsed."""

    variant: str
    n: int
    diverged: int
    collapsed: int

    @property
    def unstable(self) -> int:
        return self.diverged + self.collapsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Instability:
    """Diverged and collapsed runs on the sides of a comparison, and the exact sign test over the seeds' pairs.

    `variants` are all of the comparison's, those without such a run too.
    """

    rates: tuple[UnstableRate, ...]
    p_value: float
    runs: tuple[str, ...]
    variants: tuple[UnstableVariant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """At which of the planned looks a comparison was judged last, and how it stands since.

    `number` counts from 1, 0 before the first look is complete. `seeds` are the seeds of that look (or, beyond the
    plan, of all that was judged), `looks` those of each planned one, `next` those that it is judged at next: None where
    no more are trained. `state` is one of "open", "different", "too small", "not decidable within the plan", "open at
    the last look", "paused", "unstable", "no variation", "out of budget" (then `next` are those that did not fit).
    `alpha` is what the comparison holds, or was decided by. `is_floored`: with fewer than 8 seeds the SD was raised to
    half of what the study's other comparisons imply; `is_fragile`: it would exclude zero, and fewer than 5 seeds are
    too few to tell luck from effect. `later_unstable` are runs beyond that look that diverged or collapsed.
    """

    number: int
    seeds: int
    looks: tuple[int, ...]
    next: int | None
    state: str
    alpha: float
    is_floored: bool
    is_fragile: bool
    is_added: bool
    later_unstable: tuple[str, ...]


FAILED, NOT_ENDED = "failed", "no result yet"
"""Why a run has no result; else it ended and recorded no value of the metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingRun:
    """A planned run without the result that is needed: why, and the error where it failed."""

    variant: str
    seed: int
    run_id: str | None
    reason: str
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostChange:
    """What the change costs, each as a ratio after / before; None where it has no number.

    `seconds` of training are sums of the variants' medians. None where they were timed on several hosts or devices, in
    one run of a variant, or where `is_time_unclear`: runs of a variant differ by more than the sides.
    """

    parameters: float | None
    flops: float | None
    seconds: float | None
    is_time_unclear: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossedEffect:
    """A mean difference over seeds and test images, both drawn anew: descriptive, its interval at 95 %.

    From a two-way layout without replication, seeds × images, with Satterthwaite's degrees of freedom; where the
    paired t interval over the seeds is wider, it is that one, with its degrees of freedom.
    """

    mean: float
    interval: Interval
    seeds: int
    images: int
    degrees_of_freedom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One comparison of one question, and its verdict.

    `changes` has one member for an effect and two for an interaction; `at` gives the levels at which alone it was
    asked, `averaged_over` the other factors' levels, `combinations` those of them that the study has: one where all
    rests on it.
    `rope` is the half-width of the region of practical equivalence in the metric's unit. `is_meaningful` is None
    where size was not judged. `effect` is None where the verdict is incomplete or unstable: nothing is averaged around
    a hole. `look` says at which planned look it was judged: all numbers are those of its seeds. `is_grown`: seeds were
    added after the plan was locked and the plan had left it open, so a verdict needs an e-value above
    `decisive_e_value`. `earlier_verdict` is that of the versions before planned looks, in a study recorded by one of
    them and where it differs. `simple_effects` are at each setting of the other factors; for an interaction, the second
    change's at either level of the first. `crossed` is
    given on test accuracy where every run kept its answers. `seconds_per_seed` is what one more seed of all its
    variants trains for. `is_identical`: both sides are equal to the bit in every number and seed, but for times.
    `forecast` is given where more seeds may decide what is undecided.
    `is_crossover`: of the simple effects, one is surely above zero and another below, by their 95 % intervals and with
    means beyond the ROPE. `joint` is given for interactions that have an interval, `worse` where the verdict is helps.
    `resolution`, in the metric's unit, is what numbers on this metric are shown to two digits of, in all answers.
    """

    changes: tuple[LevelChange, ...]
    at: Mapping[str, Any]
    averaged_over: Mapping[str, tuple[Any, ...]]
    metric: MeasuredMetric
    is_primary: bool
    estimand: str
    rope: float | None
    alpha: float
    comparisons: int
    is_grown: bool
    decisive_e_value: float
    verdict: Verdict
    is_meaningful: bool | None
    differences: tuple[SeedDifference, ...]
    effect: Effect | None
    forecast: Forecast | None
    missing: tuple[MissingRun, ...]
    instability: Instability | None
    repeated_seeds: tuple[int, ...]
    is_timed_apart: bool
    cost: CostChange | None
    simple_effects: tuple[SimpleEffect, ...]
    crossed: CrossedEffect | None
    seconds_per_seed: float | None
    look: Look
    is_identical: bool = False
    is_crossover: bool = False
    joint: JointEffect | None = None
    worse: tuple[WorseMetric, ...] = ()
    earlier_verdict: Verdict | None = None
    combinations: tuple[Mapping[str, Any], ...] = ()
    resolution: float | None = None

    @property
    def is_interaction(self) -> bool:
        return len(self.changes) == 2

    @property
    def level(self) -> float:
        """The confidence level of the interval that decides."""
        return 1 - self.look.alpha
