"""What a study locks at its first result: its looks stay, others are a deviation, and no run that ended is left out."""

from dataclasses import replace
from typing import Any

import pytest

from ablation.coordinator.planning import lock_plan
from ablation.errors import StudyNarrowed
from ablation.records import Outcome, Plan, RunResult
from ablation.study import Study, study_of_values
from ablation.testing.plans import make_plan
from ablation.tracking import MemoryTracker

DATA = make_plan().data
LOOKS = {"looks": [3, 5, 8]}
NORMALIZATIONS = ["none", "batch"]


def study(seeds: Any, *, normalization: list[str] = NORMALIZATIONS) -> Study:
    return study_of_values(
        {
            "name": "small",
            "data": {"name": "digits", "validation": "none"},
            "model": {"name": "cnn", "depth": 1, "width": 1, "dense": []},
            "training": {"epochs": 1},
            "factors": {"model.normalization": normalization},
            "seeds": seeds,
        }
    )


def ended(seeds: Any, *, trained: int, outcome: Outcome = Outcome.DONE) -> MemoryTracker:
    """Return a tracker with a study of which so many seeds of each variant have ended; one run is done."""
    tracker = MemoryTracker()
    plan = lock_plan(study(seeds), data=DATA, tracker=tracker)
    record = tracker.open_study(replace(plan, family=("batch − none",)))
    for index, planned in enumerate(run for run in plan.runs if run.seed < trained):
        how = outcome if index else Outcome.DONE
        run_id = tracker.start_run(record, planned, {"device": "cpu"}, attempt="a")
        metrics = {"test_accuracy": 0.5} if how is Outcome.DONE else {}
        result = RunResult(identity=planned.identity, outcome=how, metrics=metrics, epochs=1, error=None)
        tracker.finish_run(run_id, result, None)
    return tracker


def locked(tracker: MemoryTracker, seeds: Any, **changes: Any) -> Plan:
    return lock_plan(study(seeds, **changes), data=DATA, tracker=tracker)


def test_the_same_looks_again_are_no_deviation() -> None:
    plan = locked(ended(LOOKS, trained=3), {"looks": [3, 5, 8]})

    assert () == plan.deviations
    assert (3, 5, 8) == plan.looks == plan.locked.schedule


def test_a_first_and_a_last_that_give_the_same_looks_are_no_deviation() -> None:
    plan = locked(ended({"looks": [3, 5, 8, 12]}, trained=3), {"first": 3, "last": 12})

    assert () == plan.deviations


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (LOOKS, 20, "seeds changed from looks at 3, 5, 8 to 20, after 6 results could be seen"),
        (LOOKS, {"looks": [3, 5, 12]}, "seeds changed from looks at 3, 5, 8 to looks at 3, 5, 12, after 6 results"),
        (LOOKS, {"looks": [4, 8]}, "seeds changed from looks at 3, 5, 8 to looks at 4, 8, after 6 results"),
        (8, LOOKS, "seeds changed from 8 to looks at 3, 5, 8, after 6 results"),
        (3, 4, "seeds changed from 3 to 4, after 6 results could be seen"),
    ],
)
def test_other_looks_are_a_deviation_and_the_first_ones_stay_locked(before: Any, now: Any, said: str) -> None:
    tracker = ended(before, trained=3)
    first = tracker.find_study("small")
    assert first is not None

    plan = locked(tracker, now)

    assert first.plan.locked == plan.locked
    assert first.plan.locked_hash == plan.locked_hash
    assert study(now).spec.looks == plan.looks
    [deviation] = plan.deviations
    assert deviation.startswith(said)


def test_looks_that_were_locked_stay_through_further_changes() -> None:
    tracker = ended(LOOKS, trained=3)
    tracker.open_study(locked(tracker, 20))

    plan = locked(tracker, {"looks": [10, 30]})

    assert (3, 5, 8) == plan.locked.schedule
    assert (
        "seeds changed from looks at 3, 5, 8 to 20, after 6 results could be seen",
        "seeds changed from 20 to looks at 10, 30, after 6 results could be seen",
    ) == plan.deviations


def test_the_family_that_was_locked_is_carried_on() -> None:
    plan = locked(ended(LOOKS, trained=3), LOOKS)

    assert ("batch − none",) == plan.family


def test_before_there_is_a_result_looks_may_be_changed() -> None:
    tracker = ended(LOOKS, trained=0)

    plan = locked(tracker, 4)

    assert ((), (4,)) == (plan.deviations, plan.locked.schedule)


@pytest.mark.parametrize("now", [5, {"looks": [3, 5]}, {"looks": [5, 6]}, 3])
def test_seeds_that_nothing_was_trained_of_may_be_left_out(now: Any) -> None:
    plan = locked(ended(LOOKS, trained=3), now)

    assert (3, 5, 8) == plan.locked.schedule
    assert 1 == len(plan.deviations)


@pytest.mark.parametrize("before", [LOOKS, 8])
@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.DIVERGED, Outcome.FAILED])
def test_fewer_seeds_than_have_ended_are_refused_with_the_runs(before: Any, outcome: Outcome) -> None:
    tracker = ended(before, trained=4, outcome=outcome)

    with pytest.raises(StudyNarrowed, match=r"this leaves out normalization=none/seed-3, normalization=batch/seed-3\."):
        locked(tracker, 3)


def test_a_variant_that_is_gone_is_refused_with_all_its_runs() -> None:
    tracker = MemoryTracker()
    plan = lock_plan(study(4, normalization=["none", "batch", "layer"]), data=DATA, tracker=tracker)
    record = tracker.open_study(plan)
    run_id = tracker.start_run(record, plan.runs[0], {"device": "cpu"}, attempt="a")
    done = RunResult(identity=plan.runs[0].identity, outcome=Outcome.DONE, metrics={}, epochs=1, error=None)
    tracker.finish_run(run_id, done, None)

    with pytest.raises(StudyNarrowed, match=r"leaves out normalization=layer/seed-0, .*seed-2 and 1 more\."):
        locked(tracker, 4)
