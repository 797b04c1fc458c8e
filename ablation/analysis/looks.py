"""Where a study stands among its planned looks: how each comparison stands, and which runs it needs by now.

A function of the plan and of the runs' results alone: the coordinator asks it which runs to train next, and the report
how each comparison was judged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ablation.analysis import statistics
from ablation.analysis.contrasts import Contrast, as_measured, contrast_name, contrasts_of, dropped_contrasts
from ablation.analysis.equal_seeds import first_repetition
from ablation.analysis.sequential import Asked, Lack, Rule, Standing, State, judged
from ablation.analysis.table import has_collapsed, records_by_identity
from ablation.records import Outcome, Plan, PlannedRun, RecordedRun

_TOLD = (State.OPEN, State.DIFFERENT, State.TOO_SMALL)


@dataclass(frozen=True, kw_only=True)
class StudyLooks:
    """A plan's comparisons and how they stand; `recorded` by identity.

    With `is_out_of_budget` the last execution ended for its budget: what is still open needs no runs by now.
    """

    plan: Plan
    recorded: Mapping[str, RecordedRun]
    is_out_of_budget: bool = False

    @classmethod
    def of(cls, plan: Plan, runs: Sequence[RecordedRun], *, is_out_of_budget: bool = False) -> "StudyLooks":
        """Return where a study stands with the records of its runs."""
        return cls(plan=plan, recorded=records_by_identity(runs), is_out_of_budget=is_out_of_budget)

    @property
    def plan_so_far(self) -> Plan:
        """The plan with the runs alone that it needs by now: those of later looks lack nothing."""
        return replace(self.plan, runs=self.runs)

    @property
    def recorded_runs(self) -> tuple[RecordedRun, ...]:
        """The records of the runs that the study needs by now, those without a result too."""
        return tuple(
            replace(record, planned=run)
            if (record := self.recorded.get(run.identity)) is not None
            else RecordedRun(planned=run, run_id=None, outcome=None, metrics={}, curves={}, confusion={})
            for run in self.runs
        )

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the plan, in its order."""
        return self.plan.seeds

    @cached_property
    def contrasts(self) -> tuple[Contrast, ...]:
        return tuple(
            replace(contrast, metric=as_measured(contrast.metric, self.plan, self.recorded.values()))
            for contrast in contrasts_of(self.plan)
        )

    @cached_property
    def rule(self) -> Rule:
        planned = self.plan.locked.schedule
        later = (*self.plan.looks, len(self.seeds))
        return Rule(
            looks=planned,
            growth=tuple(sorted({seeds for seeds in later if planned[-1] < seeds <= len(self.seeds)})),
            alpha=self.plan.locked.alpha,
            planned=len(self.plan.family) or len(self.contrasts),
            comparisons=len(self.plan.family) + len({*map(contrast_name, self.contrasts)} - {*self.plan.family}),
            test_to_train=self.plan.test_to_train,
        )

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """How each comparison stands, in the order of the contrasts."""
        asked = self._judged[: len(self.contrasts)]
        if not self.is_out_of_budget:
            return asked
        return tuple(
            replace(standing, state=State.OUT_OF_BUDGET)
            if standing.state is State.OPEN and self.is_planned(contrast, standing.wanted)
            else standing
            for contrast, standing in zip(self.contrasts, asked, strict=True)
        )

    @cached_property
    def _judged(self) -> tuple[Standing, ...]:
        """How each comparison of the family stands without a budget, those that are asked first."""
        return judged(self.family, self.rule)

    @cached_property
    def family(self) -> tuple[Asked, ...]:
        """The comparisons as the rule sees them; those of the locked family that are asked no more come last."""
        return (
            *(self._asked(contrast, is_added=self.is_added(contrast)) for contrast in self.contrasts),
            *(self._asked(contrast, is_dropped=True) for contrast in dropped_contrasts(self.plan)),
        )

    def _asked(self, contrast: Contrast, *, is_added: bool = False, is_dropped: bool = False) -> Asked:
        return Asked(
            metric=contrast.metric.name,
            rope=contrast.rope,
            spread=math.sqrt(math.fsum(weight**2 for weight in contrast.weights.values())),
            seeds=[self._shown(contrast, seed) for seed in self.seeds],
            is_added=is_added,
            is_dropped=is_dropped,
            repeated_from=min(
                (self.repetitions[name] for name in contrast.weights if name in self.repetitions), default=None
            ),
        )

    @cached_property
    def repetitions(self) -> Mapping[str, int]:
        """The variants with a seed that surely repeats another by its final metrics, and among how many first seeds."""
        found = {}
        for variant in self.plan.variants:
            runs = [self.recorded.get(self._identities.get((variant.name, seed), "")) for seed in self.seeds]
            seeds = first_repetition(
                [run.metrics if run is not None else {} for run in runs], metric=self.plan.locked.metric.name
            )
            if seeds is not None:
                found[variant.name] = seeds
        return found

    @cached_property
    def wanted(self) -> Mapping[str, int]:
        """How many of the first seeds each variant needs by now, at most what is planned."""
        first = self.plan.locked.schedule[0]
        found = dict.fromkeys((variant.name for variant in self.plan.variants), min(first, len(self.seeds)))
        for contrast, standing in zip(self.contrasts, self.standings, strict=True):
            is_asked = standing.wanted <= len(self.seeds) and standing.state is not State.OUT_OF_BUDGET
            reached = standing.wanted if is_asked else standing.seeds
            for variant in contrast.weights:
                found[variant] = max(found[variant], reached)
        return found

    @cached_property
    def runs(self) -> tuple[PlannedRun, ...]:
        """The runs that the study needs by now, or has a result of, in the plan's order."""
        place = {seed: index for index, seed in enumerate(self.seeds)}
        return tuple(
            run
            for run in self.plan.runs
            if place[run.seed] < self.wanted[run.variant] or self._outcome(run.identity) is not None
        )

    @cached_property
    def look(self) -> int:
        """How many of the plan's looks are complete: all comparisons that were open have been judged there."""
        as_planned = judged(self.family, replace(self.rule, growth=())) if self.rule.growth else self._judged
        pairs = zip(self.family, as_planned, strict=True)
        planned = [each for asked, each in pairs if not asked.is_added and not asked.is_dropped]
        still = [each.seeds for each in planned if each.state is State.OPEN]
        reached = min(still) if still else max((each.seeds for each in planned), default=0)
        return sum(seeds <= reached for seeds in self.rule.looks)

    @cached_property
    def text(self) -> str | None:
        """Return `look 2 of 4: 3 open, 2 decided`, with what else there is; None where one look is planned."""
        if len(self.rule.looks) == 1:
            return None
        states = [each.state for each in self.standings]
        open_, decided = states.count(State.OPEN), sum(state.is_decided for state in states)
        others = [(states.count(state), state.value) for state in State if state not in _TOLD]
        named = "".join(f", {count} {what}" for count, what in others if count)
        return f"look {self.look} of {len(self.rule.looks)}: {open_} open, {decided} decided{named}"

    def is_added(self, contrast: Contrast) -> bool:
        """Whether a comparison came after results could be seen; of earlier versions' studies that is not known."""
        return bool(self.plan.family) and contrast_name(contrast) not in self.plan.family

    def is_planned(self, contrast: Contrast, seeds: int) -> bool:
        """Whether all runs of a comparison's first seeds are planned."""
        return seeds <= len(self.seeds) and all(
            (variant, seed) in self._identities for variant in contrast.weights for seed in self.seeds[:seeds]
        )

    def lacking(self, contrast: Contrast, seeds: int) -> list[str]:
        """Return the identities of a comparison's runs among its first seeds that have no result yet."""
        first = set(self.seeds[:seeds])
        return [
            run.identity
            for run in self.plan.runs
            if run.variant in contrast.weights and run.seed in first and self._outcome(run.identity) is None
        ]

    def _shown(self, contrast: Contrast, seed: int) -> float | Lack:
        """Return the difference that a seed shows, or why there is none: what has not ended comes first."""
        found = {variant: self.value(variant, seed, contrast.metric.name) for variant in contrast.weights}
        lacks = {value for value in found.values() if isinstance(value, Lack)}
        if lacks:
            return next(lack for lack in Lack if lack in lacks)
        return statistics.without_rounding_error(
            [weight * float(found[variant]) for variant, weight in contrast.weights.items()]
        )

    def value(self, variant: str, seed: int, metric: str) -> float | Lack:
        """Return what a variant's run measured, or why it counts for nothing."""
        identity = self._identities.get((variant, seed))
        record = self.recorded.get(identity) if identity is not None else None
        if record is None or record.outcome is None:
            return Lack.NOT_ENDED
        if record.outcome is Outcome.FAILED:
            return Lack.MISSING
        if record.outcome is Outcome.DIVERGED or has_collapsed(self.plan, record):
            return Lack.UNSTABLE
        value = record.metrics.get(metric, math.nan)
        return value if math.isfinite(value) else Lack.MISSING

    def _outcome(self, identity: str) -> Outcome | None:
        record = self.recorded.get(identity)
        return record.outcome if record is not None else None

    @cached_property
    def _identities(self) -> Mapping[tuple[str, int], str]:
        return {(run.variant, run.seed): run.identity for run in self.plan.runs}
