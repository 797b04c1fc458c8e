"""What earlier executions have left: run folders that the tracker lacks, and records that were changed since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ablation.coordinator.looks import confusion_at_chance
from ablation.coordinator.uploads import Uploads, upload_run
from ablation.lookup import few
from ablation.records import Outcome, Plan, RecordedRun
from ablation.storage.state import State


def recover_ended(
    uploads: Uploads, recorded: Sequence[RecordedRun], *, plan: Plan, state: State, retry_failed: bool = False
) -> tuple[RecordedRun, ...]:
    """Have the runs recorded that have ended in their folders and not in the tracker; return all as they will be.

    The folder of a run that was recorded by an execution that got no further is put where it belongs. A failed run that
    is to be trained again is not recorded as failed before. A record whose metrics are not those that the same training
    left in its folder is put right: versions before this one could record another value.
    """
    if retry_failed:
        for run in recorded:
            ended = state.begun(plan.name, run.planned.identity).ended()
            if ended is not None and not ended.outcome.is_result:
                state.keep(plan.name, run.planned.identity)
    found: dict[str, tuple[RecordedRun, RecordedRun]] = {}
    for run in recorded:  # variants whose settings came out the same share runs
        if run.planned.identity not in found:
            found[run.planned.identity] = (run, _recovered(uploads, run, plan=plan, state=state))
    state.forget_begun(plan.name)  # a process may have been killed when all but this was done
    pairs = [(run, *found[run.planned.identity]) for run in recorded]
    return tuple(run if now is before else replace(now, planned=run.planned) for run, before, now in pairs)


def _recovered(uploads: Uploads, recorded: RecordedRun, *, plan: Plan, state: State) -> RecordedRun:
    planned = recorded.planned
    begun = state.begun(plan.name, planned.identity)
    kept = state.finished(plan.name, planned.identity) if recorded.failure == "record" else None
    is_tried_again = not recorded.has_result and (begun.result() is not None or kept is not None)
    if recorded.outcome is not None and not is_tried_again and not _is_recorded_wrongly(recorded, plan, state):
        if begun.ended() is not None:
            state.keep(plan.name, planned.identity)
        return recorded
    folder = state.finished(plan.name, planned.identity) or begun
    ended = folder.ended()
    if ended is None:
        return recorded
    confusion = confusion_at_chance(plan, planned.variant, ended, folder)
    upload_run(uploads, planned, folder, plan=plan, state=state)
    uploads.end(planned)
    return replace(recorded, outcome=ended.outcome, metrics=ended.metrics, error=ended.error, confusion=confusion)


def altered_since(recorded: Sequence[RecordedRun], *, plan: Plan, state: State) -> tuple[str, ...]:
    """Return the names of runs whose record and folder agreed once and do not now: somebody has changed one."""
    return tuple(run.planned.name for run in recorded if run.is_read_back and _differs_from_folder(run, plan, state))


def _is_recorded_wrongly(recorded: RecordedRun, plan: Plan, state: State) -> bool:
    """Whether a version that did not read back what it recorded has recorded other metrics than were measured."""
    return not recorded.is_read_back and _differs_from_folder(recorded, plan, state)


def _differs_from_folder(recorded: RecordedRun, plan: Plan, state: State) -> bool:
    """Whether the folder of the very training that a record is of has other final metrics."""
    folder = state.finished(plan.name, recorded.planned.identity)
    ended = folder.ended() if folder is not None else None
    if folder is None or ended is None or not recorded.attempt or recorded.attempt != folder.attempt():
        return False
    is_done = recorded.outcome is Outcome.DONE is ended.outcome
    return is_done and any(recorded.metrics.get(name) != value for name, value in ended.metrics.items())


def found_text(
    recorded: Sequence[RecordedRun], ended: Sequence[RecordedRun], altered: Sequence[str], *, again: bool
) -> str | None:
    """Say what of a study has ended before and is not trained again, and whose numbers are not what they were."""
    corrected = [
        now.planned.name
        for now, before in zip(ended, recorded, strict=True)
        if before.outcome is Outcome.DONE and now is not before
    ]
    kept = sum(run.outcome is not None for run in ended) - sum(run.outcome is not None for run in recorded)
    failed = sum(run.outcome is Outcome.FAILED for run in ended)
    said = []
    if kept:
        said.append(f"{kept} runs have ended before in this state folder and are not trained again")
    if failed and not again:
        said.append(f"{failed} failed before; --retry-failed trains them again")
    if corrected:
        said.append(
            f"MLflow had other metrics of {few(corrected)} than were measured, and has those of the run folders now"
        )
    if altered:
        said.append(
            f"result.json of {few(altered)} in this state folder was changed since it was recorded, or MLflow was: "
            "MLflow counts"
        )
    return "; ".join(said) or None
