"""Renders previews and statuses as text tables and as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ablation.pipeline import Preview
from ablation.results import Outcome, RecordedRun
from ablation.tracking import StudyRecord

Statuses = Sequence[tuple[StudyRecord, Sequence[RecordedRun]]]


def preview_text(preview: Preview) -> str:
    from ablation.report.numbers import duration_text

    table = Table("variant", "parameters", "FLOPs per image", "time per run", box=None, pad_edge=False)
    for index, variant in enumerate(preview.variants):
        table.add_row(
            f"{variant.name}{' (baseline)' if index == 0 else ''}",
            f"{variant.size.parameters:,}",
            f"{variant.size.flops:,}",
            "about " + duration_text(variant.seconds) if variant.seconds is not None else "",
        )
    seeds = preview.study.spec.seeds
    lines = [
        f"{preview.study.name}: {len(preview.variants)} variants × {seeds} seeds = {preview.runs} runs",
        "",
        _rendered(table),
    ]
    total = _total_seconds(preview)
    if total is not None:
        lines += [f"About {duration_text(total)} of training, one run after the other; workers share it."]
    return "\n".join(lines)


def preview_json(preview: Preview) -> str:
    return json.dumps(
        {
            "study": preview.study.name,
            "runs": preview.runs,
            "seeds": preview.study.spec.seeds,
            "seconds": _total_seconds(preview),
            "variants": [
                {
                    "name": variant.name,
                    "levels": dict(variant.levels),
                    "parameters": variant.size.parameters,
                    "flops": variant.size.flops,
                    "seconds": variant.seconds,
                }
                for variant in preview.variants
            ],
        },
        indent=1,
    )


def status_text(statuses: Statuses) -> str:
    if not statuses:
        return "No study is recorded here."
    lines = []
    for record, runs in statuses:
        ended = Counter(run.outcome for run in runs)
        counts = ", ".join(f"{ended[kind]} {kind.value}" for kind in Outcome)
        lines.append(f"{record.plan.name}: {record.status.lower()}; {counts}, {ended[None]} to do of {len(runs)} runs")
        lines += [f"  {run.planned.name}: {_last_line(run.error)}" for run in runs if run.outcome is Outcome.FAILED]
    return "\n".join(lines)


def status_json(statuses: Statuses) -> str:
    return json.dumps([_status(record, runs) for record, runs in statuses], indent=1)


def _status(record: StudyRecord, runs: Sequence[RecordedRun]) -> dict[str, Any]:
    ended = Counter(run.outcome for run in runs)
    return {
        "study": record.plan.name,
        "status": record.status,
        "runs": len(runs),
        **{kind.value: ended[kind] for kind in Outcome},
        "to_do": ended[None],
        "study_run_id": record.study_run_id,
        "experiment_id": record.experiment_id,
    }


def _last_line(error: str | None) -> str:
    return (error or "failed").strip().splitlines()[-1]


def _total_seconds(preview: Preview) -> float | None:
    seconds = [variant.seconds for variant in preview.variants]
    known = [value for value in seconds if value is not None]
    return sum(known) * preview.study.spec.seeds if len(known) == len(seconds) else None


def _rendered(table: Table) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
