"""What a study locks at its first result: its looks stay, others are a deviation, and no run that ended is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import Bench

from ablation.coordinator.planning import lock_plan
from ablation.errors import StudyNarrowed
from ablation.records import Outcome, Plan, RunResult
from ablation.study import Study, load_study, study_of_values
from ablation.testing.plans import make_plan
from ablation.tracking import MemoryTracker

DATA = make_plan().data
LOOKS = {"looks": [3, 5, 8]}
NORMALIZATIONS = ["none", "batch"]
MANY = {
    "name": "many",
    "data": {"name": "digits", "validation": "none"},
    "model": {"name": "cnn", "depth": 1, "width": 1, "dense": []},
    "training": {"epochs": 1, "learning_rate": 1e-3},
    "seeds": 30,
}


def study(seeds: Any, *, normalization: list[str] = NORMALIZATIONS, name: str = "small") -> Study:
    return study_of_values(
        {
            "name": name,
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


def test_results_that_were_seen_under_another_name_are_a_deviation() -> None:
    tracker = ended(5, trained=3)

    (said,) = locked(tracker, 5, name="renamed").deviations

    assert "seeds 0 to 2 of all 2 variants had results before the plan was locked, as study 'small'" == said


def test_results_of_some_of_a_plans_runs_are_counted() -> None:
    tracker = ended(2, trained=2, outcome=Outcome.FAILED)

    (said,) = locked(tracker, 5, name="wider", normalization=["none", "batch", "layer"]).deviations

    assert "seed 0 of normalization=none had results before the plan was locked, as study 'small'" == said


def test_runs_that_share_nothing_are_no_deviation() -> None:
    other_data = replace(DATA, digest="1" * 64)

    assert () == lock_plan(study(3, name="other"), data=other_data, tracker=ended(3, trained=3)).deviations


def test_a_few_runs_are_looked_up_however_many_there_are() -> None:
    asked: list[Sequence[str]] = []

    class Watched(MemoryTracker):
        def results_elsewhere(self, probes: Sequence[str], /, *, name: str) -> Mapping[str, frozenset[str]]:
            asked.append(probes)
            return super().results_elsewhere(probes, name=name)

    plan = lock_plan(
        study_of_values({**MANY, "factors": {"training.learning_rate": [1e-3 * number for number in range(1, 41)]}}),
        data=DATA,
        tracker=Watched(),
    )

    (probes,) = asked
    assert len(probes) == 8
    first = [run.identity for run in plan.runs if run.seed == 0]
    assert probes[0] == first[0]
    assert set(probes) <= set(first)


class TestInAStateFolder:
    """What another study has left in the same state folder is taken over, not trained again."""

    def test_results_in_the_state_folder_are_a_deviation_once(self, bench: Bench, tmp_path: Path) -> None:
        first = bench.run(small(tmp_path, "first", seeds=2))
        bench.tracker = MemoryTracker()  # another store: it knows nothing of the first
        second = bench.run(small(tmp_path, "second", seeds=3))
        resumed = bench.run(small(tmp_path, "second", seeds=3))

        assert () == first.record.plan.deviations
        (said,) = second.record.plan.deviations
        assert "seeds 0, 1 of all 2 variants had results before the plan was locked, in this state folder" == said
        assert second.record.plan.deviations == resumed.record.plan.deviations
        assert second.analysis is not None
        assert (said,) == second.analysis.deviations

    def test_what_the_store_tells_is_not_told_again(self, bench: Bench, tmp_path: Path) -> None:
        bench.run(small(tmp_path, "first", seeds=2))

        (said,) = bench.run(small(tmp_path, "second", seeds=2)).record.plan.deviations

        assert said.endswith("as study 'first'")

    def test_a_study_that_begins_anew_has_seen_nothing_under_another_name(self, bench: Bench, tmp_path: Path) -> None:
        bench.run(small(tmp_path, "first", seeds=2))
        bench.is_fresh = True

        assert () == bench.run(small(tmp_path, "first", seeds=2)).record.plan.deviations


def small(folder: Path, name: str, *, seeds: int) -> Study:
    (folder / "loop.py").write_text(
        "def train(settings, seed, report):\n    return {'score': settings['training']['x'] + seed % 97 / 1e3}\n"
    )
    (folder / "study.yaml").write_text(
        f"name: {name}\ntraining: {{name: 'loop.py:train', x: 1}}\nfactors: {{training.x: [1, 2]}}\n"
        f"metric: {{name: score, direction: maximize}}\nseeds: {seeds}\n"
    )
    return load_study(folder / "study.yaml")
