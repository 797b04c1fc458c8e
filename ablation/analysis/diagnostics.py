"""Collects what a reader should know before believing the numbers."""

from collections.abc import Sequence

import pandas as pd

from ablation.analysis.answers import missing_run
from ablation.analysis.equal_seeds import equal_seeds
from ablation.analysis.records import Answer, Diagnostics
from ablation.results import Outcome, Plan

SKEWED = 1.0


def diagnose(plan: Plan, table: pd.DataFrame, answers: Sequence[Answer]) -> Diagnostics:
    metric = plan.locked["metric"]["name"]
    rows = table.to_dict("records")
    missing = [missing_run(row, metric) for row in rows]
    return Diagnostics(
        equal_seeds=equal_seeds(rows),
        devices=_distinct(table["device"]),
        hosts=_distinct(table["host"]),
        collapsed=_names(table[table["is_collapsed"]]),
        diverged=_names(table[table["outcome"] == Outcome.DIVERGED]),
        missing=tuple(run for run in missing if run is not None),
        skewed=tuple(index for index, answer in enumerate(answers) if _is_skewed(answer)),
    )


def _distinct(column: "pd.Series[str]") -> tuple[str, ...]:
    return tuple(sorted(set(column.dropna())))


def _names(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(f"{variant}/seed-{seed}" for variant, seed in zip(rows["variant"], rows["seed"], strict=True))


def _is_skewed(answer: Answer) -> bool:
    skewness = answer.effect.skewness if answer.effect else None
    return skewness is not None and abs(skewness) > SKEWED
