"""Keeps a study's looks while it runs: which runs are asked for by now, and which more when a look is complete."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ablation.analysis import StudyLooks
from ablation.analysis.contrasts import Contrast
from ablation.analysis.sequential import Standing, State
from ablation.records import Plan, PlannedRun, RecordedRun, RunResult, is_at_chance
from ablation.storage.run_folder import RunFolder
from ablation.tracking.checking import checked_evaluation


class LooksUnderWay:
    """The looks of a study under way; `runs` are those that were asked for so far, each identity once."""

    def __init__(self, plan: Plan, ended: Iterable[RecordedRun]) -> None:
        self._plan = plan
        self._ended = {run.planned.identity: run for run in ended if run.outcome is not None}
        self._looks = StudyLooks(plan=plan, recorded=dict(self._ended))
        self._asked = {run.identity: run for run in reversed(self._looks.runs)}
        self._next_look: tuple[PlannedRun, ...] | None = None
        self._by_variant: Counter[str] | None = None
        self._lacking = self._left_of_each()

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        return tuple(run for run in self._plan.runs_to_train() if run.identity in self._asked)

    @property
    def count(self) -> int:
        """How many runs have been asked for so far."""
        return len(self._asked)

    @property
    def count_by_variant(self) -> Mapping[str, int]:
        """How many runs of each variant have been asked for so far, in the plan's order."""
        if self._by_variant is None:
            self._by_variant = Counter(run.variant for run in self.runs)
        return self._by_variant

    @property
    def look(self) -> int:
        """How many looks are complete."""
        return self._looks.look

    @property
    def text(self) -> str | None:
        """Where the study stands among its looks, None where it has only one."""
        return self._looks.text

    def add(self, run: RecordedRun) -> tuple[PlannedRun, ...]:
        """Take a run that has ended; return the runs that are asked for because of it, in the plan's order."""
        self._ended[run.planned.identity] = run
        is_judged = False
        for lacking in self._lacking:
            lacking.discard(run.planned.identity)
            is_judged = is_judged or not lacking
        if not is_judged:
            return ()
        self._looks = StudyLooks(plan=self._plan, recorded=dict(self._ended))
        self._next_look = None
        self._lacking = self._left_of_each()
        new: dict[str, PlannedRun] = {}
        for each in self._looks.runs:
            if each.identity not in self._asked:
                new.setdefault(each.identity, each)
        self._asked |= new
        self._by_variant = None
        return tuple(new.values())

    @property
    def is_between(self) -> bool:
        """Whether some comparisons may begin their next look, while others wait for the one before."""
        return len({standing.wanted for _, standing in self._open()}) > 1

    def whole_look(self) -> tuple[PlannedRun, ...]:
        """Return the runs without a result that the furthest look under way needs, if nothing is decided before."""
        return self._lacked(max((standing.wanted for _, standing in self._open()), default=0))

    def next_look(self) -> tuple[PlannedRun, ...]:
        """Return the runs that the look after those under way needs at most; none where the last is under way."""
        if self._next_look is None:
            reached = max((standing.wanted for _, standing in self._open()), default=0)
            later = [seeds for seeds in (*self._looks.rule.looks, *self._looks.rule.growth) if seeds > reached]
            found = self._lacked(later[0]) if reached and later else ()
            self._next_look = tuple(run for run in found if run.identity not in self._asked)
        return self._next_look

    def end_for_budget(self) -> None:
        """Note that nothing more is begun now of what is still open."""
        self._looks = replace(self._looks, is_out_of_budget=True)

    def _open(self) -> list[tuple[Contrast, Standing]]:
        pairs = zip(self._looks.contrasts, self._looks.standings, strict=True)
        return [(contrast, standing) for contrast, standing in pairs if standing.state is State.OPEN]

    def _lacked(self, seeds: int) -> tuple[PlannedRun, ...]:
        """Return the runs without a result among the first seeds of all comparisons that are open."""
        first = set(self._looks.seeds[:seeds])
        variants = {variant for contrast, _ in self._open() for variant in contrast.weights}
        runs = self._plan.runs_to_train()
        return tuple(
            run for run in runs if run.variant in variants and run.seed in first and run.identity not in self._ended
        )

    def _left_of_each(self) -> list[set[str]]:
        """Return what each comparison that may be judged again lacks until then."""
        if len(self._looks.rule.looks) + len(self._looks.rule.growth) == 1:
            return []  # nothing is asked for after the only look
        left = [set(self._looks.lacking(contrast, standing.wanted)) for contrast, standing in self._open()]
        return [lacking for lacking in left if lacking]


def confusion_at_chance(
    plan: Plan, variant: str, result: RunResult, folder: RunFolder
) -> Mapping[str, tuple[tuple[int, ...], ...]]:
    """Return what a run answered where that tells whether it collapsed, from its folder, as its record will have it."""
    if not is_at_chance(plan, variant, result.outcome, result.metrics):
        return {}
    seed = next((run.seed for run in plan.runs if run.identity == result.identity), None)
    evaluation, _ = checked_evaluation(folder.evaluation(), plan.data_of(variant, seed))
    return evaluation.confusion
