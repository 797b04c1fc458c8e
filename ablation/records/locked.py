"""What a study fixes before its first run: the metric, the questions and the rule that its answers are judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablation.records.metrics import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicates:
    """Folds in the place of seeds: replicate `repeat · folds + fold` is tested on that fold of that repeat's division.

    Each repeat divides the examples anew.
    """

    folds: int
    repeats: int = 1

    @property
    def count(self) -> int:
        return self.folds * self.repeats

    def plain(self) -> dict[str, int]:
        return {"folds": self.folds, "repeats": self.repeats}

    def __str__(self) -> str:
        return f"{self.folds} folds × {self.repeats} repeat{'s' * (self.repeats != 1)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedMetric:
    """The primary metric; `meaningful` is the half-width of its ROPE, in the metric's unit."""

    name: str
    direction: Direction
    meaningful: float | None = None

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "direction": self.direction, "meaningful": self.meaningful}


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedQuestion:
    """What a study asks: one of `effect` (a factor), `interaction` (two) and `variant` (a listed one).

    `levels` has the two levels of a factor that are compared, the second minus the first; without them, the baseline's
    is compared with each other one. It is asked where the factors of `at` have these levels, and `on` the study's
    metric where that is None.
    """

    effect: str | None = None
    interaction: tuple[str, str] | None = None
    variant: str | None = None
    levels: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    at: Mapping[str, Any] = field(default_factory=dict)
    on: str | None = None
    meaningful: float | None = None

    @property
    def factors(self) -> tuple[str, ...]:
        return (self.effect,) if self.effect is not None else self.interaction or ()

    def plain(self) -> dict[str, Any]:
        """Return it as plans keep it; what is rarely asked stands only where it is."""
        return {
            "effect": self.effect,
            "interaction": list(self.interaction) if self.interaction is not None else None,
            **({"variant": self.variant} if self.variant else {}),
            **({"levels": {name: list(pair) for name, pair in self.levels.items()}} if self.levels else {}),
            **({"at": dict(self.at)} if self.at else {}),
            "on": self.on,
            "meaningful": self.meaningful,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What the answers depend on beside the runs; a later change is a deviation.

    `seeds` are the runs per variant at the last look; `looks` has every look where there are several, `seed_indices`
    the seeds in their order where they are not the first ones from 0, `replicates` the folds where these take their
    place. `alpha` is the family-wise error rate. A run that
    is within `collapse_margin` of a constant answer (of a classification: its test accuracy of the largest class's
    share) has collapsed where nearly all its answers are the same.
    """

    seeds: int
    metric: LockedMetric
    alpha: float
    collapse_margin: float
    questions: tuple[LockedQuestion, ...]
    looks: tuple[int, ...] = ()
    seed_indices: tuple[int, ...] = ()
    replicates: Replicates | None = None

    @property
    def order(self) -> Sequence[int]:
        """The seeds of the planned looks, in their order."""
        return self.seed_indices or range(self.seeds)

    @property
    def schedule(self) -> tuple[int, ...]:
        """The runs per variant at each look, the only one or several."""
        return self.looks or (self.seeds,)

    def look_of(self, seed: int) -> int:
        """Return the look, from 1, that asks for the run of a seed; one after the last for seeds beyond the plan."""
        return 1 + sum(seeds <= seed for seeds in self.schedule)

    def plain(self) -> dict[str, Any]:
        """Return it as plans keep it, and as its hash is made from."""
        return {
            "seeds": self.seeds,
            **({"looks": list(self.looks)} if self.looks else {}),
            **({"seed_indices": list(self.seed_indices)} if self.seed_indices else {}),
            **({"replicates": self.replicates.plain()} if self.replicates is not None else {}),
            "metric": self.metric.plain(),
            "alpha": self.alpha,
            "collapse_margin": self.collapse_margin,
            "questions": [question.plain() for question in self.questions],
        }


def looks_text(looks: Sequence[int]) -> str:
    """Return `5`, or `looks at 5, 8, 12`."""
    return f"looks at {', '.join(map(str, looks))}" if len(looks) > 1 else str(looks[0])


def seeds_text(looks: Sequence[int]) -> str:
    """Return `1 seed`, `5 seeds`, or `5 to 12 seeds (looks at 5, 8, 12)`."""
    if len(looks) > 1:
        return f"{looks[0]} to {looks[-1]} seeds ({looks_text(looks)})"
    return f"{looks[0]} seed{'s' if looks[0] != 1 else ''}"
