"""The `tune` section of a study file: which settings each variant is tuned over, and with what budget."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ablation.lookup import is_same
from ablation.study.sections import Section

MAX_TRIALS = 1000
MAX_CHOICES = 100
SETTINGS = "settings"
"""The factor that a study has where it compares tuned variants with the file's settings too."""
FROM_FILE, TUNED = "file", "tuned"
FIRST_TUNING_SEED = 1_000_000
"""Seed index of tuning's first replicate; a comparison's end at 10,000."""

Value = bool | int | float | str
Condition = Annotated[
    dict[str, Value | tuple[Value, ...]],
    Field(max_length=MAX_CHOICES),
    "a mapping of a factor, or of a tuned choice, to a value or a list of values, such as {training.optimizer: sgd}",
]
Bounds = Annotated[tuple[int | float, int | float], "a list of two numbers, the lower first"]


class SearchSpace(Section):
    """Where a setting is looked for: on a log or linear scale, among whole numbers, or among choices.

    Whole numbers are looked for on a log scale where `log` is true beside them.
    """

    log: Annotated[Bounds | Literal[True], "a list of two numbers, the lower first; true beside integers"] | None = None
    linear: Bounds | None = None
    integers: Annotated[tuple[int, int], "a list of two whole numbers, the lower first"] | None = None
    choices: (
        Annotated[
            tuple[Value, ...],
            Field(min_length=2, max_length=MAX_CHOICES),
            f"a list of 2 to {MAX_CHOICES} values",
        ]
        | None
    ) = None
    when: Condition = Field(default={}, description="where the setting is tuned at all; elsewhere it is the file's")

    @model_serializer(mode="wrap")
    def _without_idle(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write it as earlier versions did, where it has no condition."""
        return {key: value for key, value in handler(self).items() if key != "when" or value}

    @model_validator(mode="after")
    def _is_one_space(self) -> "SearchSpace":
        given = [kind for kind in ("log", "linear", "integers", "choices") if getattr(self, kind) is not None]
        if given == ["log"] and self.log is True:
            raise ValueError("log: true stands beside integers: [LOW, HIGH]; alone it is log: [LOW, HIGH]")
        if len(given) != 1 and not (given == ["log", "integers"] and self.log is True):
            raise ValueError("has one of log: [LOW, HIGH], linear: [LOW, HIGH], integers: [LOW, HIGH], choices: [...]")
        if self.choices is None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"the lower bound {self.bounds[0]} is not below the upper {self.bounds[1]}")
        if self.is_log and self.bounds[0] <= 0:
            raise ValueError(f"a log scale begins above 0, not at {self.bounds[0]}")
        return self

    @property
    def is_log(self) -> bool:
        return self.log is not None

    @property
    def bounds(self) -> tuple[int | float, int | float]:
        """The lowest and the highest value; of choices there are none."""
        found = self.integers or self.linear or self.log
        assert isinstance(found, tuple)
        return found

    @property
    def conditions(self) -> dict[str, tuple[Value, ...]]:
        """The values that each factor or tuned choice of the condition may have."""
        return {name: wanted if isinstance(wanted, tuple) else (wanted,) for name, wanted in self.when.items()}

    def is_drawn(self, given: Mapping[str, Any]) -> bool:
        """Say whether its condition holds, where `given` has what factors and other settings are, by their names."""
        return all(
            name in given and any(is_same(given[name], value) for value in wanted)
            for name, wanted in self.conditions.items()
        )

    def holds(self, value: Any) -> bool:
        """Say whether a value is one that could be found here."""
        if self.choices is not None:
            return any(is_same(value, choice) for choice in self.choices)
        low, high = self.bounds
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must all be allowed for the setting: the bounds, or every choice."""
        return self.choices or self.integers or tuple(map(float, self.bounds))


class Tuning(Section):
    """Equal tuning of every variant: each other key is the path of a setting, with the space it is looked for in."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SearchSpace]

    trials: int = Field(default=10, ge=1, le=MAX_TRIALS, description="trials of each variant")
    seeds: int = Field(default=1, ge=1, le=100, description="seed indices that each trial is averaged over")
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "none"] = "median"
    also_untuned: bool = Field(default=False, description="compare the variants with the file's settings too")

    @property
    def spaces(self) -> dict[str, SearchSpace]:
        return dict(self.__pydantic_extra__ or {})


def drawing_order(spaces: Mapping[str, SearchSpace]) -> list[str]:
    """Return the paths of settings by name, each behind those that its condition looks at; none of a circle."""
    order: list[str] = []
    left = sorted(spaces)
    while (path := next((path for path in left if not spaces[path].when.keys() & set(left)), None)) is not None:
        order.append(path)
        left.remove(path)
    return order
