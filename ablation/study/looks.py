"""The `seeds` of a study file: one number, planned looks (listed, or from the first to the last), or seed indices.

A look is a number of seeds at which what is still open is judged; later seeds are trained only where they decide.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from ablation.records import Replicates
from ablation.study.search_spaces import FIRST_TUNING_SEED
from ablation.study.sections import Section

MAX_SEEDS = 10_000
MAX_LOOKS = 10
LEAST_SEEDS = 2
"""Seeds of a first look: with one there is no estimate of noise."""
SEEDS_FORM = (
    f"a whole number from 1 to {MAX_SEEDS}, planned looks: {{looks: [5, 8, 12, 20]}} or {{first: 5, last: 20}}, or "
    "seed indices: [0, 1, 42]"
)


def next_look(seeds: int) -> int:
    """Return half as many seeds again, rounded up."""
    return (3 * seeds + 1) // 2


def expanded(first: int, last: int) -> tuple[int, ...]:
    """Return looks from the first to the last, each half as many seeds again.

    Where the look after the next would pass the last, the last is next: 5, 8, 12, 20 rather than 5, 8, 12, 18, 20.
    """
    looks = [first]
    while looks[-1] < last:
        following = next_look(looks[-1])
        looks.append(following if next_look(following) <= last else last)
    return tuple(looks)


def are_looks(looks: Sequence[int]) -> bool:
    """Whether a checked study can have these looks."""
    is_rising = all(before < after for before, after in pairwise(looks))
    return is_rising and 1 < len(looks) <= MAX_LOOKS and looks[0] >= LEAST_SEEDS and looks[-1] <= MAX_SEEDS


def _rising(looks: tuple[int, ...]) -> tuple[int, ...]:
    if not looks:  # not by min_length, which would count a wrong number as missing
        raise ValueError("needs at least one number of seeds, such as [5, 8, 12, 20]")
    falling = next(((before, after) for before, after in pairwise(looks) if before >= after), None)
    if falling is not None:
        raise ValueError(f"looks must rise, and {falling[1]} stands after {falling[0]}")
    return looks


Look = Annotated[int, Field(ge=LEAST_SEEDS, le=MAX_SEEDS)]
Listed = Annotated[
    tuple[Look, ...],
    Field(max_length=MAX_LOOKS),
    AfterValidator(_rising),
    f"a list of 1 to {MAX_LOOKS} numbers of seeds that rise, such as [5, 8, 12, 20]",
]


class ReplicatesChoice(Section):
    """Folds in the place of seeds: each example is tested on once per repeat."""

    folds: int = Field(ge=2, le=1000, description="parts that the examples are divided into, each tested on once")
    repeats: int = Field(default=1, ge=1, le=1000, description="how many times they are divided anew")

    @model_validator(mode="after")
    def _is_not_too_many(self) -> "ReplicatesChoice":
        if self.record.count > MAX_SEEDS:
            raise ValueError(
                f"{self.record} are {self.record.count} runs per variant, and there are at most {MAX_SEEDS}"
            )
        return self

    @property
    def record(self) -> Replicates:
        return Replicates(folds=self.folds, repeats=self.repeats)


class PlannedLooks(Section):
    """The looks of a study, listed or from the first to the last; once checked, `looks` has them all."""

    looks: Listed | None = Field(default=None, description="runs per variant at each look")
    first: Look | None = Field(default=None, description="runs per variant at the first look")
    last: Look | None = Field(
        default=None, description="runs per variant at the last look; each look between has half as many again"
    )

    @field_validator("last")
    @classmethod
    def _follows_the_first(cls, last: int | None, info: ValidationInfo) -> int | None:
        first = info.data.get("first")
        if first is not None and last is not None and last <= first:
            raise ValueError(f"must be more than first, which is {first}, not {last}")
        return last

    @model_validator(mode="after")
    def _has_one_form(self) -> "PlannedLooks":
        given = [key for key in ("looks", "first", "last") if getattr(self, key) is not None]
        if given not in (["looks"], ["first", "last"]):
            have = f"has {' and '.join(given)}" if given else "is empty"
            raise ValueError(f"{have}; write either {{looks: [5, 8, 12, 20]}} or {{first: 5, last: 20}}")
        if (count := len(self.numbers)) > MAX_LOOKS:
            raise ValueError(
                f"from {self.first} to {self.last} there are {count} looks, and a study has at most {MAX_LOOKS}; begin "
                "with more seeds, end with fewer, or list the looks: `looks: [5, 8, 12, 20]`"
            )
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """The runs per variant at each look."""
        if self.looks is not None:
            return self.looks
        assert self.first is not None
        assert self.last is not None
        return expanded(self.first, self.last)

    @model_serializer
    def _plain(self) -> dict[str, list[int]]:
        return {"looks": list(self.numbers)}


def _no_seed_twice(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds:
        raise ValueError("needs at least one seed index, such as [0, 1, 42]")
    twice = next((seed for index, seed in enumerate(seeds) if seed in seeds[:index]), None)
    if twice is not None:
        raise ValueError(f"has seed {twice} twice; the same seed trains the same run, so name each once")
    return seeds


SeedIndices = Annotated[
    tuple[
        Annotated[
            int,
            Field(ge=0, lt=FIRST_TUNING_SEED),
            f"a seed index, a whole number from 0 to {FIRST_TUNING_SEED - 1} (those above are for tuning)",
        ],
        ...,
    ],
    Field(max_length=MAX_SEEDS),
    AfterValidator(_no_seed_twice),
    f"a list of 1 to {MAX_SEEDS} seed indices, such as [0, 1, 42]",
]


def _as_a_number(seeds: int | PlannedLooks | tuple[int, ...]) -> int | PlannedLooks | tuple[int, ...]:
    """Return looks as a list; a single one, and the first seed indices in order, as the number that means the same."""
    if isinstance(seeds, int):
        return seeds
    if isinstance(seeds, tuple):
        return len(seeds) if seeds == tuple(range(len(seeds))) else seeds
    looks = seeds.numbers
    return PlannedLooks(looks=looks) if len(looks) > 1 else looks[0]


def _tag(seeds: Any) -> str:
    if isinstance(seeds, list | tuple):
        return "seed indices"
    return "number" if seeds is None or isinstance(seeds, int | float) else "planned looks"


Seeds = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SEEDS), Tag("number")]
    | Annotated[PlannedLooks, Tag("planned looks"), SEEDS_FORM]
    | Annotated[SeedIndices, Tag("seed indices")],
    Discriminator(_tag),
    AfterValidator(_as_a_number),
    SEEDS_FORM,
]
