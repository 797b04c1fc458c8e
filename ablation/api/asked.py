"""Metrics that a call asks for after the runs: their definitions, where their code is, and where data may be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.api.places import state_at
from ablation.errors import AblationError

if TYPE_CHECKING:
    from ablation.pipeline import AskedMetrics
    from ablation.records import DeclaredMetric


def asked_metrics(texts: Sequence[str]) -> tuple[str | None, AskedMetrics | None]:
    """Return the metric that is named to judge by, if one is, and those to compute, of what the command line gives.

    Raises:
        StudyFileError: a text has another form.
        AblationError: several are named to judge by.
    """
    from ablation.study.asked_metrics import parse_metric

    named = [text for text in texts if "=" not in text]
    if len(named) > 1:
        raise AblationError(f"a study is judged by one metric, not by {' and '.join(named)} @ --metric")
    computed = tuple(parse_metric(text) for text in texts if "=" in text)
    return next(iter(named), None), _asked(computed)


def asked_of(metrics: Mapping[str, Any] | None) -> AskedMetrics | None:
    """Return metrics as Python gives them: what a study file would say of each, by name.

    Raises:
        StudyFileError: with every problem of one.
    """
    from ablation.study.asked_metrics import metric_of

    found = (metrics or {}).items()
    return _asked(tuple(metric_of(name, values, source="metrics") for name, values in found))


def _asked(metrics: tuple[DeclaredMetric, ...]) -> AskedMetrics | None:
    from ablation.code import CodeFolders
    from ablation.pipeline import AskedMetrics

    if not metrics:
        return None
    code = CodeFolders(folders=(Path.cwd(),))
    return AskedMetrics(metrics=metrics, code=code, data_cache=state_at(None).data)
