"""Shows a user's training function a tuning trial: no test split, and of what it measures one metric."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from ablation.worker.failures import MetricsUnfit
from ablation.worker.own_training import MEASURED_ANYWAY, Report, SplitData, TrainingFunction, checked_metrics


@dataclass(slots=True, kw_only=True)
class TrialReport(Report):
    """Takes of every epoch the metric that tuning looks at, and nothing else.

    What else is measured may have names of the test split, in the place of which a trial has the validation split.
    `value` is what was reported last, None where nothing was; `named` are all names that were reported.
    """

    objective: str
    value: float | None = None
    named: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, report: Report, **changes: Any) -> Self:
        """Return one in the place of another report, with the epochs that this has already."""
        given = {each.name: getattr(report, each.name) for each in fields(Report)}
        made = cls(**{**given, **changes})
        values = [epoch.metrics[made.objective] for epoch in made.epochs if made.objective in epoch.metrics]
        made.value = values[-1] if values else None
        return made

    def __call__(self, metrics: Mapping[str, float] | None = None, /, **more: float) -> None:
        values, _ = checked_metrics({**(metrics or {}), **more}, what="reported")
        self.named |= values.keys()
        self.value = values.get(self.objective, self.value)
        Report.__call__(self, {name: value for name, value in values.items() if name == self.objective})

    @property
    def is_diverged(self) -> bool:
        return self.value is not None and not math.isfinite(self.value)


def judged(training: TrainingFunction, report: TrialReport) -> TrainingFunction:
    """Return a training function that sees no test split, and measures what tuning looks at and its own seconds alone.

    In the place of the test split it is given the validation split. What tuning looks at is what it returns under that
    name, else what it reported last.

    Raises:
        MetricsUnfit: when it is called, and has neither.
    """

    def trial(*arguments: Any, **by_name: Any) -> Mapping[str, float]:
        shown = {name: _without_test(value) if name == "data" else value for name, value in by_name.items()}
        returned, _ = checked_metrics(training.function(*arguments, **shown), what="returned")
        kept = {name: value for name, value in returned.items() if name in (report.objective, *MEASURED_ANYWAY)}
        if report.value is not None:
            return {report.objective: report.value, **kept}
        if report.objective not in kept:
            raise MetricsUnfit(_missing_text(report, returned))
        return kept

    return replace(training, function=trial)


def _without_test(data: Any) -> Any:
    is_split = isinstance(data, SplitData) and data.validation is not None
    return replace(data, test=data.validation) if is_split else data


def _missing_text(report: TrialReport, returned: Mapping[str, float]) -> str:
    reported, given = (", ".join(sorted(names)) or "nothing" for names in (report.named, returned))
    return f"the training function reported {reported} and returned {given}, and not {report.objective}"
