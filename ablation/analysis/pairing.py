"""Says whether the seeds of two variants mean the same, so that their runs are pairs; those of one study always do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from ablation.analysis.answer_records import MeasuredMetric
from ablation.analysis.contrasts import as_measured, measured_metric
from ablation.analysis.finished import FinishedRuns
from ablation.analysis.looks import StudyLooks
from ablation.lookup import flatten
from ablation.records import FunctionTraining, Variant


class Method(StrEnum):
    """How two variants are compared: seed by seed, or as two samples by Welch's interval."""

    PAIRED = "paired by seed"
    WELCH = "Welch's interval, not paired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """How two variants are compared; `differs` says what keeps their seeds from being pairs, where they are none.

    `seeds` are those that both have, where they are paired; `left_out` says in words which seeds one alone has.
    """

    method: Method
    seeds: tuple[int, ...]
    differs: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def is_paired(self) -> bool:
        return self.method is Method.PAIRED


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of two variants that are compared, with its study as far as it has come."""

    looks: StudyLooks
    finished: FinishedRuns
    variant: Variant

    @property
    def study(self) -> str:
        return self.finished.plan.name

    @cached_property
    def planned(self) -> tuple[int, ...]:
        """The seeds that are planned for the variant by now, in the study's order."""
        own = self.finished.seeds(self.variant.name)
        return tuple(seed for seed in self.looks.seeds if seed in own)

    def metric(self, name: str) -> MeasuredMetric:
        plan = self.finished.plan
        return as_measured(measured_metric(plan, name), plan, self.finished.recorded.values())


def pairing_of(first: Side, second: Side) -> Pairing:
    """Return whether two variants' seeds are pairs: of one study, or of two whose seeds draw the same."""
    if first.looks is second.looks:
        return Pairing(method=Method.PAIRED, seeds=_common(first, second))
    common, differs = _common(first, second), tuple(_differs(first, second))
    if not common and not differs:
        differs = ("no seed is in both",)
    if differs:
        return Pairing(method=Method.WELCH, seeds=(), differs=differs)
    return Pairing(method=Method.PAIRED, seeds=common, left_out=tuple(_alone(first, second)))


def _common(first: Side, second: Side) -> tuple[int, ...]:
    """Return the seeds that both have, in the order in which both have come to have them."""
    places = [{seed: place for place, seed in enumerate(side.planned)} for side in (first, second)]
    both = places[0].keys() & places[1].keys()
    return tuple(sorted(both, key=lambda seed: (max(place[seed] for place in places), seed)))


def _alone(first: Side, second: Side) -> Iterator[str]:
    for side, other in ((first, second), (second, first)):
        seeds = sorted(set(side.planned) - set(other.planned))
        if seeds:
            yield f"seed{'s' if len(seeds) > 1 else ''} {_listed(seeds)} of study {side.study}"


def _listed(seeds: list[int]) -> str:
    is_range = len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1
    return f"{seeds[0]} to {seeds[-1]}" if is_range else ", ".join(map(str, seeds))


def _differs(first: Side, second: Side) -> Iterator[str]:
    """Yield what makes a seed of one study draw something else than in the other."""
    seeds = [side.variant.settings.study_seed for side in (first, second)]
    if seeds[0] != seeds[1]:
        yield f"study_seed ({seeds[0]} and {seeds[1]})"
    if len({side.finished.plan.data_of(side.variant.name).digest for side in (first, second)}) > 1:
        yield f"the data ({' and '.join(_digest(side) for side in (first, second))})"
    fixed = [_fixed(side) for side in (first, second)]
    varied = _varied(first) | _varied(second)
    for path in sorted({*fixed[0], *fixed[1]} - varied):
        values = [each.get(path, _NONE) for each in fixed]
        if values[0] != values[1]:
            yield f"{path} ({' and '.join(map(str, values))})"
    folds = [str(side.finished.plan.replicates or _NONE) for side in (first, second)]
    if folds[0] != folds[1]:
        yield f"replicates ({folds[0]} and {folds[1]})"
    codes = [side.finished.plan.code.get(side.variant.name) for side in (first, second)]
    training = first.variant.settings.training
    if isinstance(training, FunctionTraining) and codes[0] != codes[1]:
        yield f"the code of {training.name}"


_NONE = "none"


def _digest(side: Side) -> str:
    data = side.finished.plan.data_of(side.variant.name)
    return f"{data.name} {data.digest[:8]}"


def _fixed(side: Side) -> Mapping[str, Any]:
    """Return the settings of data and training by their paths; the data's name is told by its digest."""
    configuration = side.variant.configuration
    sections = {name: configuration.get(name) or {} for name in ("data", "training")}
    return {path: value for path, value in flatten(sections) if path not in ("data.name", "data.root")}


def _varied(side: Side) -> set[str]:
    """Return the paths that a study varies or tunes: what is compared, and not what a seed draws."""
    plan = side.finished.plan
    every = [dict(flatten(variant.configuration)) for variant in plan.variants]
    paths = {path for each in every for path in each}
    tuned = {path for path in plan.study.get("tune") or {} if "." in path}
    return tuned | {path for path in paths if len({repr(each.get(path, _NONE)) for each in every}) > 1}
