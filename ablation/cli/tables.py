"""Renders previews and statuses as text tables and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ablation.cli.layout import table_text
from ablation.commands import commands
from ablation.output import clipped, last_line, plain, width, wrapped
from ablation.preview import OtherPreview, Preview, shape_text
from ablation.records import Component, Failure, Outcome, RecordedRun, Spending
from ablation.storage.holder import Holder
from ablation.tracking import StudyRecord

if TYPE_CHECKING:
    from pathlib import Path

    from ablation.coordinator.deletion import Holdings
    from ablation.pipeline import SyncOutcome

FAILURES: Mapping[Failure | None, str] = {
    "out of memory": "failed, out of memory",
    "code": "failed",
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
    table = table_text(preview.table(), width())
    return "\n".join([*map(_line, preview.lines_above()), "", table, "", *map(_line, preview.lines_below())])


def preview_json(preview: Preview) -> str:
    return json.dumps(
        {
            "study": preview.study.name,
            "runs": preview.runs,
            "tuning_runs": preview.tuning_runs,
            "seeds": preview.study.spec.most_seeds,
            "looks": preview.study.spec.looks,
            **({"replicates": preview.replicates.plain()} if preview.replicates is not None else {}),
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
                    **({"trainable": variant.size.trainable} if variant.size.trainable is not None else {}),
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
    from ablation.report.table import Table

    head = ("module", "type", "can be removed", "parameters", "FLOPs", "input", "output")
    rows = tuple(map(_component_row, components))
    return table_text(Table(head=head, rows=rows, text_columns=3), width())


def _component_row(one: Component) -> tuple[str, ...]:
    is_removable = "yes" if one.is_removable else f"no: {one.reason}"
    sizes = (f"{one.parameters:,}", f"{one.flops:,}", shape_text(one.input_shape), shape_text(one.output_shape))
    return (one.name, one.type, is_removable, *sizes)


def components_json(components: Sequence[Component]) -> str:
    return json.dumps([dataclasses.asdict(one) for one in components], indent=1)


def status_text(standings: Sequence[StudyStanding]) -> str:
    if not standings:
        return "No study is recorded here."
    return "\n".join(line for standing in standings for line in [*_standing_lines(standing), *_run_lines(standing)])


def status_json(standings: Sequence[StudyStanding]) -> str:
    return json.dumps([_status(standing) for standing in standings], indent=1)


def sync_text(outcomes: Sequence[SyncOutcome]) -> str:
    if not outcomes:
        return "Nothing is left to be recorded."
    return "\n".join(
        _line(f"{outcome.record.plan.name}: {outcome.recorded} runs recorded, {outcome.to_do} to do")
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


def _standing_lines(standing: StudyStanding) -> Iterator[str]:
    record, runs = standing.record, standing.runs
    ended = Counter(run.outcome for run in runs)
    counts = ", ".join(f"{ended[kind]} {kind.value}" for kind in Outcome)
    is_tuning = record.plan.study.get("tune") and not record.plan.tuning
    tuning = "; its variants are not tuned yet" if is_tuning else ""
    out = record.spending.out
    ended_how = "out of budget" if out is not None else record.status.lower()
    status = "interrupted" if standing.is_interrupted else ended_how
    yield _line(f"{record.plan.name}: {status}; {counts}, {ended[None]} to do of {len(runs)} runs{tuning}")
    for said in (standing.look, _budget_text(record.spending)):
        if said:
            yield _line(f"  {said}")
    if standing.is_interrupted:
        who = _gone_text(standing.gone) if standing.gone is not None else "Nobody runs it now"
        yield _line(f"  {who}. The same command resumes it.")
    if standing.unrecorded:
        is_under_way = record.status == "RUNNING" and not standing.is_interrupted
        next_step = "they are being recorded" if is_under_way else f"`{commands.shown('sync', record.plan.name)}`"
        yield _line(f"  {standing.unrecorded} ended, not yet recorded in MLflow: {next_step}")


def _run_lines(standing: StudyStanding) -> Iterator[str]:
    """Yield a line for each run that diverged or failed, and how failed ones are trained again."""
    for run in standing.runs:
        if run.outcome is Outcome.DIVERGED:
            yield _line(f"  {run.planned.name}: diverged in epoch {run.diverged_epoch}")
    failed = [run for run in standing.runs if run.outcome is Outcome.FAILED]
    for run in failed:
        error = last_line(run.error) or "failed"
        yield clipped(plain(f"  {run.planned.name}: {FAILURES[run.failure]}: {error}"), width())
    if failed:
        again = commands.shown("study", "FILE", "--retry-failed")
        yield _line(f"  Failed runs are trained again by `{again}`.")


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
        "task": preview.data.shape.task,
        "splits": dataclasses.asdict(preview.splits),
        "classes": list(preview.data.shape.classes),
        "input_shape": list(preview.data.shape.input_shape),
        "notes": list(preview.notes),
        **({"others": list(map(_other_data, preview.other_data))} if preview.other_data else {}),
    }


def _other_data(other: OtherPreview) -> dict[str, Any]:
    return {
        "name": other.name,
        "splits": dataclasses.asdict(other.splits),
        "classes": list(other.data.shape.classes),
        "input_shape": list(other.data.shape.input_shape),
    }


def _line(text: str) -> str:
    """Return a line that moves no terminal's cursor, in as many as its width takes."""
    return wrapped(plain(text), width())
