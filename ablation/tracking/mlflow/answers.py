"""A report's answers as metrics, tags and a table of a run, where MLflow's UI shows, sorts and searches them."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow.entities import Run

from ablation.records import AnswerSummary, is_number
from ablation.tracking.mlflow.run_records import RunRecords
from ablation.tracking.mlflow.store import Store

EFFECT, VERDICT = "effect.", "verdict."
"""What the keys of an answer's metrics and of its tag begin with, followed by its name."""
TABLE = "answers.json"
TABLE_DIGITS = 6  # a table is read; the metrics have all of them
TABLES = "mlflow.loggedArtifacts"
"""MLflow's own tag: which files of a run its UI shows as tables."""
MAX_VERDICT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecords:
    """The answers of runs in a store."""

    store: Store
    records: RunRecords

    def log(self, run_id: str, answers: Sequence[AnswerSummary]) -> None:
        """Keep answers with a run in the place of those it has; the same again changes nothing."""
        run = self.store.client.get_run(run_id)
        seeds = {answer.name: answer.seeds for answer in answers}
        effects = {(answer.name, end): value for answer in answers for end, value in _numbers(answer).items()}
        self.records.log_latest(
            run_id,
            {f"{EFFECT}{name}{end}": value for (name, end), value in effects.items()},
            time_ms=time.time_ns() // 1_000_000,
            steps={f"{EFFECT}{name}{end}": seeds[name] for name, end in effects},
        )
        self._tag_verdicts(run, answers)
        self._log_table(run, answers)

    def _tag_verdicts(self, run: Run, answers: Sequence[AnswerSummary]) -> None:
        now = {f"{VERDICT}{answer.name}": answer.verdict[:MAX_VERDICT] for answer in answers}
        for key in [key for key in run.data.tags if key.startswith(VERDICT) and key not in now]:
            self.store.client.delete_tag(run.info.run_id, key)
        self.store.tag(run.info.run_id, _changed(run, now))

    def _log_table(self, run: Run, answers: Sequence[AnswerSummary]) -> None:
        """Write the table as MLflow's `log_table` does, which adds rows to those of the report before."""
        rows = [_row(answer) for answer in answers]
        table = {"columns": list(rows[0]) if rows else [], "data": [list(row.values()) for row in rows]}
        self.store.log_file(run, TABLE, json.dumps(table, ensure_ascii=False))
        entry = {"path": TABLE, "type": "table"}
        known = json.loads(run.data.tags.get(TABLES) or "[]")
        if entry not in known:
            self.store.tag(run.info.run_id, {TABLES: json.dumps([*known, entry])})


def _numbers(answer: AnswerSummary) -> dict[str, float]:
    """Return the numbers of an answer by what their keys end with."""
    found = {"": answer.mean, ".low": answer.low, ".high": answer.high}
    return {end: value for end, value in found.items() if value is not None and is_number(value)}


def _row(answer: AnswerSummary) -> dict[str, str | float | None]:
    numbers = {end: float(f"{value:.{TABLE_DIGITS}g}") for end, value in _numbers(answer).items()}
    return {
        "change": answer.change,
        "verdict": answer.verdict,
        "effect": numbers.get(""),
        "low": numbers.get(".low"),
        "high": numbers.get(".high"),
        "unit": answer.unit,
        "metric": answer.metric,
        "seeds": answer.seeds,
        "cost": answer.cost,
    }


def _changed(run: Run, tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
