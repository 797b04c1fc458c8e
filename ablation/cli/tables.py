"""Renders previews and statuses as text tables and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablation.commands import commands
from ablation.output import last_line, plain
from ablation.preview import Preview, shape_text
from ablation.records import Component, Failure, Outcome, RecordedRun, Spending
from ablation.storage.holder import Holder
from ablation.tracking import StudyRecord

if TYPE_CHECKING:
    from pathlib import Path

    from ablation.coordinator.deletion import Holdings
    from ablation.pipeline import SyncOutcome

FAILURES: Mapping[Failure | None, str] = {
    "out of memory": "failed, out of memory",
    "code": "failed, an error of its code",
    "metrics": "failed, without the metrics compared",
    "lost worker": "failed, its worker was lost",
    "record": "failed, MLflow refuses its record",
    None: "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStanding:
    """How a study stands: its runs as recorded, how many have ended here and are not, and who is gone that ran it.

    `runs` are those that its looks have asked for; `look` says where it stands among several.
    """

    record: StudyRecord
    runs: Sequence[RecordedRun]
    unrecorded: int
    look: str | None = None
    is_interrupted: bool = False
    gone: Holder | None = None


def preview_text(preview: Preview) -> str:
    cells = preview.table()
    table = Table(*cells.head, box=None, pad_edge=False)
    for row in cells.rows:
        table.add_row(*map(_cell, row))
    lines = [*map(plain, preview.lines_above()), "", _rendered(table), *map(plain, preview.lines_below())]
    return "\n".join(lines)


def preview_json(preview: Preview) -> str:
    return json.dumps(
        {
            "study": preview.study.name,
            "runs": preview.runs,
            "tuning_runs": preview.tuning_runs,
            "seeds": preview.study.spec.most_seeds,
            "looks": preview.study.spec.looks,
            "seconds": preview.seconds,
            "same_starts": preview.same_starts,
            "data": _data(preview),
            "power": list(_power(preview)),
            "variants": [
                {
                    "name": variant.name,
                    "levels": dict(variant.levels),
                    "parameters": variant.size.parameters if variant.size.layers else None,
                    "flops": variant.size.flops if variant.size.layers else None,
                    "seconds": variant.seconds,
                    "changes": dataclasses.asdict(variant.changes),
                }
                for variant in preview.variants
            ],
        },
        indent=1,
    )


def _power(preview: Preview) -> Iterator[dict[str, Any]]:
    """Yield what each comparison can find at each look, in SDs; where the noise is known, in the metric's unit too."""
    for each in preview.power:
        for look in each.looks:
            found: dict[str, Any] = {
                "question": each.question,
                "metric": each.metric.name,
                "seeds": look.seeds,
                "detectable_sd": look.detectable_sd,
            }
            if each.sd is not None:
                found["detectable"] = each.sd * look.detectable_sd if look.detectable_sd is not None else None
                if each.meaningful is not None:
                    found["seeds_for_meaningful"] = each.seeds_for_meaningful
            yield found


def components_text(components: Sequence[Component]) -> str:
    table = Table(
        "module", "type", "parameters", "FLOPs", "input", "output", "can be removed", box=None, pad_edge=False
    )
    for one in components:
        table.add_row(
            _cell(one.name),
            _cell(one.type),
            f"{one.parameters:,}",
            f"{one.flops:,}",
            shape_text(one.input_shape),
            shape_text(one.output_shape),
            _cell("yes" if one.is_removable else f"no: {one.reason}"),
        )
    return _rendered(table)


def components_json(components: Sequence[Component]) -> str:
    return json.dumps([dataclasses.asdict(one) for one in components], indent=1)


def status_text(standings: Sequence[StudyStanding]) -> str:
    if not standings:
        return "No study is recorded here."
    return "\n".join(plain(line) for standing in standings for line in _status_lines(standing))


def status_json(standings: Sequence[StudyStanding]) -> str:
    return json.dumps([_status(standing) for standing in standings], indent=1)


def sync_text(outcomes: Sequence[SyncOutcome]) -> str:
    if not outcomes:
        return "Nothing is left to be recorded."
    return "\n".join(
        plain(f"{outcome.record.plan.name}: {outcome.recorded} runs recorded, {outcome.to_do} to do")
        for outcome in outcomes
    )


def sync_json(outcomes: Sequence[SyncOutcome]) -> str:
    return json.dumps(
        [
            {"study": outcome.record.plan.name, "recorded": outcome.recorded, "to_do": outcome.to_do}
            for outcome in outcomes
        ],
        indent=1,
    )


def deletion_text(found: Holdings, folder: Path) -> str:
    """Say what a deletion will delete."""
    kept = f"{found.folders} folders in {folder}"
    said = f"{found.name}: {found.runs} runs in MLflow, which go to its trash, and {kept}, which are removed"
    lost = f"; {found.unrecorded} ended, not yet recorded in MLflow" if found.unrecorded else ""
    return f"{said}{lost}."


def _status_lines(standing: StudyStanding) -> list[str]:
    record, runs = standing.record, standing.runs
    ended = Counter(run.outcome for run in runs)
    counts = ", ".join(f"{ended[kind]} {kind.value}" for kind in Outcome)
    is_tuning = record.plan.study.get("tune") and not record.plan.tuning
    tuning = "; its variants are not tuned yet" if is_tuning else ""
    out = record.spending.out
    ended_how = "out of budget" if out is not None else record.status.lower()
    status = "interrupted" if standing.is_interrupted else ended_how
    lines = [f"{record.plan.name}: {status}; {counts}, {ended[None]} to do of {len(runs)} runs{tuning}"]
    if standing.look is not None:
        lines.append(f"  {standing.look}")
    lines += [f"  {said}" for said in [_budget_text(record.spending)] if said]
    if standing.is_interrupted:
        who = _gone_text(standing.gone) if standing.gone is not None else "Nobody runs it now"
        lines.append(f"  {who}. The same command resumes it.")
    if standing.unrecorded:
        name = record.plan.name
        is_under_way = record.status == "RUNNING" and not standing.is_interrupted
        next_step = "they are being recorded" if is_under_way else commands.shown("sync", name)
        lines.append(f"  {standing.unrecorded} ended, not yet recorded in MLflow: {next_step}")
    lines += [f"  {run.planned.name}: diverged in epoch {run.diverged_epoch}" for run in runs if _has_diverged(run)]
    failed = [run for run in runs if run.outcome is Outcome.FAILED]
    lines += [f"  {run.planned.name}: {FAILURES[run.failure]}: {last_line(run.error) or 'failed'}" for run in failed]
    if failed:
        again = commands.shown("study", "FILE", "--retry-failed")
        lines.append(f"  Failed runs are trained again by `{again}`.")
    return lines


def _budget_text(spending: Spending) -> str | None:
    """Return what is spent of a study's budget, or how it ended for it; None where it has none."""
    from ablation.report.numbers import share_of_time_text
    from ablation.report.prose import out_of_budget_text

    if spending.out is not None:
        return out_of_budget_text(spending.out)
    return f"budget: {share_of_time_text(spending.spent_s, spending.limit_s)}" if spending.limit_s else None


def _gone_text(holder: Holder) -> str:
    seen = datetime.fromtimestamp(holder.seen_ms / 1000, UTC).isoformat(timespec="seconds")
    return f"Process {holder.pid} on {holder.host} ran it, has not said that it ended, and was last seen at {seen}"


def _has_diverged(run: RecordedRun) -> bool:
    return run.outcome is Outcome.DIVERGED


def _status(standing: StudyStanding) -> dict[str, Any]:
    record, runs = standing.record, standing.runs
    ended = Counter(run.outcome for run in runs)
    return {
        "study": record.plan.name,
        "status": record.status,
        "is_interrupted": standing.is_interrupted,
        "runs": len(runs),
        **{kind.value: ended[kind] for kind in Outcome},
        "to_do": ended[None],
        "look": standing.look,
        "unrecorded": standing.unrecorded,
        "spending": dataclasses.asdict(record.spending),
        "failures": [
            {"run": run.planned.name, "failure": run.failure, "error": last_line(run.error) or "failed"}
            for run in runs
            if run.outcome is Outcome.FAILED
        ],
        "study_run_id": record.study_run_id,
        "experiment_id": record.experiment_id,
    }


def _data(preview: Preview) -> dict[str, Any] | None:
    section = preview.study.spec.data
    if preview.data is None or preview.splits is None or section is None:
        return None
    return {
        "name": section.name,
        "splits": dataclasses.asdict(preview.splits),
        "classes": list(preview.data.shape.classes),
        "input_shape": list(preview.data.shape.input_shape),
        "notes": list(preview.notes),
    }


def _cell(text: str) -> Text:
    """Return a text as it is: nothing in it is markup, nor moves a terminal's cursor."""
    return Text(plain(text))


def _rendered(table: Table) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
