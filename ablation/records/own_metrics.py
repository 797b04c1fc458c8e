"""A metric of the user's own that the engine measures, as a study file declares it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

from ablation.records.metrics import SIGNS, Direction, Metric

Given = Literal["outputs", "probabilities", "answers"]
"""What a metric is called with beside the targets; answers are classes, labels, or a regression's predictions."""
MetricEpochs = Literal["last", "every"]
TORCHMETRICS = "torchmetrics:"
_KEYS = ("function", "direction", "unit", "given", "epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredMetric:
    """A metric: a function of the user's by its name, or `torchmetrics:CLASS`, and the `arguments` that it gets.

    It is measured on test at the measured epoch, and on the held-out split after every epoch where `epochs` says so.
    `unit` is empty where it has none.
    """

    name: str
    function: str
    direction: Direction
    unit: str = ""
    given: Given = "outputs"
    epochs: MetricEpochs = "last"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_of_torchmetrics(self) -> bool:
        return self.function.startswith(TORCHMETRICS)

    @property
    def is_of_epochs(self) -> bool:
        """Whether it is measured after every epoch, too."""
        return self.epochs == "every"

    @classmethod
    def from_plain(cls, name: str, values: Mapping[str, Any]) -> Self:
        """Read what `plain` gave; another key is an argument of the function."""
        known = {key: values[key] for key in _KEYS if values.get(key) is not None}
        return cls(name=name, **known, arguments={key: value for key, value in values.items() if key not in _KEYS})

    def plain(self) -> dict[str, Any]:
        return {**{key: getattr(self, key) for key in _KEYS}, **self.arguments}

    def metric(self) -> Metric:
        """Return it as what runs are compared on. Seconds that it is in are not those of a training: `s`."""
        unit = {"": "score", "seconds": "s"}.get(self.unit, self.unit)
        tuned_by = self.name if self.is_of_epochs else None
        return Metric(label=self.name, direction=self.direction, unit=unit, tuned_by=tuned_by)


def declared_metrics(study: Mapping[str, Any]) -> tuple[DeclaredMetric, ...]:
    """Return the metrics that a study, as plain values, has the engine measure by functions."""
    declared = study.get("metrics") or {}
    return tuple(
        DeclaredMetric.from_plain(name, values) for name, values in declared.items() if isinstance(values, Mapping)
    )


def directions_of(study: Mapping[str, Any]) -> dict[str, Direction]:
    """Return which way is better of the metrics that a study, as plain values, declares, in either form."""
    found = {
        name: values.get("direction") if isinstance(values, Mapping) else values
        for name, values in (study.get("metrics") or {}).items()
    }
    return {name: cast("Direction", way) for name, way in found.items() if isinstance(way, str) and way in SIGNS}
