"""Shows a training function of the user's own a tuning trial: no test split, and of what it measures one metric."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ablation.worker.failures import MetricsUnfit
from ablation.worker.own_training import MEASURED_ANYWAY, Report, SplitData, checked_metrics


@dataclass(slots=True, kw_only=True)
class TrialReport(Report):
    """Takes of every epoch the metric that tuning looks at, and nothing else.

    What else is measured may have names of the test split, in the place of which a trial has the validation split.
    `value` is what was reported last, None where nothing was; `named` are all names that were reported.
    """

    objective: str
    value: float | None = None
    named: set[str] = field(default_factory=set)

    def __call__(self, metrics: Mapping[str, float] | None = None, /, **more: float) -> None:
        values, _ = checked_metrics({**(metrics or {}), **more}, what="reported")
        self.named |= values.keys()
        self.value = values.get(self.objective, self.value)
        Report.__call__(self, {name: value for name, value in values.items() if name == self.objective})

    @property
    def is_diverged(self) -> bool:
        return self.value is not None and not math.isfinite(self.value)


def without_test(data: SplitData) -> SplitData:
    """Return the data of a trial: in the place of the test split it has the validation split."""
    assert data.validation is not None  # a study that is tuned has one
    return replace(data, test=data.validation)


def judged(function: Callable[..., Any], report: TrialReport) -> Callable[..., Mapping[str, float]]:
    """Return the function with what tuning looks at as all that it measures, and its own seconds where it has any.

    That is what it returns under that name, else what it reported last.

    Raises:
        MetricsUnfit: by what is returned: it has neither.
    """

    @functools.wraps(function)
    def trial(*arguments: Any, **by_name: Any) -> Mapping[str, float]:
        returned, _ = checked_metrics(function(*arguments, **by_name), what="returned")
        kept = {name: value for name, value in returned.items() if name in (report.objective, *MEASURED_ANYWAY)}
        if report.value is not None:
            return {report.objective: report.value, **kept}
        if report.objective not in kept:
            raise MetricsUnfit(without_text(report, returned))
        return kept

    return trial


def without_text(report: TrialReport, returned: Mapping[str, float]) -> str:
    names = (", ".join(sorted(each)) or "nothing" for each in (report.named, returned))
    return "the training function reported {} and returned {}, and not {}".format(*names, report.objective)
