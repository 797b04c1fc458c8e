"""Collects what a reader should know before believing the numbers."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ablation.analysis.analysis_record import DamagedRecord, Diagnostics
from ablation.analysis.answer_records import Answer
from ablation.analysis.answers import missing_run
from ablation.analysis.equal_seeds import equal_seeds
from ablation.analysis.statistics import skewness_limit
from ablation.records import LeftOut, Outcome, Plan, RecordedRun


def diagnose(
    plan: Plan,
    table: pd.DataFrame,
    answers: Sequence[Answer],
    *,
    recorded: Mapping[str, RecordedRun],
    left_out: Sequence[LeftOut],
) -> Diagnostics:
    metric = plan.locked.metric.name
    rows = table.to_dict("records")
    missing = [missing_run(row, metric) for row in rows]
    return Diagnostics(
        equal_seeds=equal_seeds(rows, recorded),
        devices=_distinct(table["device"]),
        hosts=_distinct(table["host"]),
        collapsed=_names(table[table["is_collapsed"]]),
        diverged=_names(table[table["outcome"] == Outcome.DIVERGED]),
        missing=tuple(run for run in missing if run is not None),
        skewed=tuple(index for index, answer in enumerate(answers) if _is_skewed(answer)),
        left_out=tuple(left_out),
        same_starts=plan.same_starts,
        damaged=tuple(
            DamagedRecord(variant=run.variant, seed=run.seed, run_id=record.run_id, problems=record.problems)
            for run in plan.runs
            if (record := recorded.get(run.identity)) is not None and record.problems
        ),
    )


def _distinct(column: "pd.Series[str]") -> tuple[str, ...]:
    return tuple(sorted(set(column.dropna())))


def _names(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(f"{variant}/seed-{seed}" for variant, seed in zip(rows["variant"], rows["seed"], strict=True))


def _is_skewed(answer: Answer) -> bool:
    effect = answer.effect
    limit = skewness_limit(effect.n) if effect else None
    return effect is not None and effect.skewness is not None and limit is not None and abs(effect.skewness) > limit
