"""Deletes studies, and sees that what a person has deleted is trained again and not taken from a folder.

In MLflow a deleted run lies in the trash, from which it can be restored until `mlflow gc` empties it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ablation.coordinator.lease import Lease
from ablation.errors import StudyNowhere
from ablation.records import Plan, is_study_name
from ablation.scheduling import default_storage, forget_study
from ablation.storage.locks import coordinating
from ablation.storage.state import State
from ablation.tracking import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What there is of a study: runs in the tracker, folders of runs here, and how many of these only are here."""

    name: str
    identities: frozenset[str]
    runs: int
    folders: int
    unrecorded: int

    @property
    def is_empty(self) -> bool:
        return not (self.runs or self.folders)


def holdings_of(name: str, *, tracker: Tracker, state: State) -> Holdings:
    """Return what a deletion of a study would delete.

    Raises:
        StudyNowhere: there is nothing of that name, or it is no name.
        TrackingUnavailable.
    """
    if not is_study_name(name):
        raise StudyNowhere(name, state.folder)
    identities = tracker.identities(name)
    found = Holdings(
        name=name,
        identities=identities,
        runs=tracker.count_runs(name),
        folders=len(state.folders_of(name, identities)),
        unrecorded=state.unrecorded(name),
    )
    if found.is_empty:
        raise StudyNowhere(name, state.folder)
    return found


def delete_study(
    name: str,
    *,
    tracker: Tracker,
    storage_url: str,
    state: State,
    say: Callable[[str], object] = lambda _: None,
) -> Holdings:
    """Delete a study: its runs in the tracker go to the trash, its schedule and its folders for good.

    The tracker's records go last, so the same call completes an interrupted deletion. `say` is told why
    it takes long, where it does.

    Raises:
        StudyNowhere, StudyLocked, TrackingUnavailable, StorageUnavailable.
    """
    if not is_study_name(name):  # a lock is a file of that name
        raise StudyNowhere(name, state.folder)
    with coordinating(name, storage_url=storage_url, folder=state.locks):
        found = holdings_of(name, tracker=tracker, state=state)
        delete_held(found, tracker=tracker, storage_url=storage_url, state=state, say=say)
        return found


def delete_held(
    found: Holdings, *, tracker: Tracker, storage_url: str, state: State, say: Callable[[str], object]
) -> None:
    """Delete a study whose lock this process has."""
    lease = Lease(found.name, tracker=tracker, state_folder=state.folder)
    if (why := lease.why_it_takes_long()) is not None:
        say(why)
    try:
        lease.take()
        forget_study(storage_url, found.name, is_rebuilt=_is_own(storage_url, state))
        state.remove(found.name, found.identities)
        tracker.delete_study(found.name)
    finally:
        lease.release()


def delete_before(name: str, *, tracker: Tracker, storage_url: str, state: State) -> str | None:
    """Delete what there is of a study that begins anew, and say so; None where there was nothing.

    This process has the study's lock, and has said why it takes long.
    """
    tracker.clear_experiment(name)
    try:
        found = holdings_of(name, tracker=tracker, state=state)
    except StudyNowhere:
        return None
    delete_held(found, tracker=tracker, storage_url=storage_url, state=state, say=lambda _: None)
    return "begun anew: what was recorded of the study before is in MLflow's trash"


def leave_deleted(plan: Plan, *, tracker: Tracker, storage_url: str, state: State) -> str | None:
    """Set aside what is here of a study that was deleted in the tracker, and say so; nothing where it was not.

    To be called before the study is recorded anew: then the tracker shows it as there again.
    """
    if tracker.study_run_id(plan.name) is not None or not tracker.is_deleted(plan.name):
        return None
    identities = tracker.identities(plan.name)
    forget_study(storage_url, plan.name, is_rebuilt=_is_own(storage_url, state))
    place = state.set_aside(plan.name, identities)
    if place is None:
        return None
    return (
        f"the study was deleted in MLflow: what was trained of it is set aside in {place}, and taken with --reuse "
        "alone, as long as it is not trained again"
    )


def _is_own(storage_url: str, state: State) -> bool:
    """Whether Optuna's storage is the state folder's own, of which MLflow and the run folders have all."""
    return storage_url == default_storage(state.folder)
