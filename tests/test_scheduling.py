"""What the schedule promises: plan order, every run claimed once, and the tracker believed where Optuna disagrees."""

import dataclasses
import multiprocessing
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from factories import make_plan, make_runs
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import TrialState, create_trial

from ablation.errors import StorageUnavailable
from ablation.records import Outcome, Plan, PlannedRun, RecordedRun
from ablation.scheduling import Schedule, default_storage, open_schedule, runs, storage
from ablation.scheduling.runs import AHEAD


@pytest.fixture
def url(tmp_path: Path) -> str:
    return default_storage(tmp_path)


def nothing(plan: Plan) -> list[RecordedRun]:
    return make_runs(plan, outcomes={(run.variant, run.seed): None for run in plan.runs})


def finished(plan: Plan, runs: Sequence[PlannedRun]) -> list[RecordedRun]:
    done = {run.identity for run in runs}
    return make_runs(plan, outcomes={(run.variant, run.seed): None for run in plan.runs if run.identity not in done})


def claim_all(schedule: Schedule) -> list[PlannedRun]:
    claimed = []
    while (run := schedule.next_run()) is not None:
        claimed.append(run)
    return claimed


def tell_done(schedule: Schedule, run: PlannedRun, value: float = 0.9) -> None:
    schedule.tell(run, outcome=Outcome.DONE, value=value)


def trials(url: str, name: str = "quick") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=url).get_trials()


def test_runs_are_claimed_once_each_in_plan_order(url: str) -> None:
    plan = make_plan(seeds=2)

    assert list(plan.runs) == claim_all(open_schedule(url, plan, nothing(plan)))


def test_runs_of_a_later_look_are_claimed_after_those_of_the_first_and_what_is_alike_together(url: str) -> None:
    plan = make_plan(seeds=5)
    first = [run for run in plan.runs if run.seed < 2]
    later = [run for run in plan.runs if run.seed >= 2]
    schedule = open_schedule(
        url, dataclasses.replace(plan, runs=tuple(first)), nothing(plan), alike=lambda run: run.variant
    )
    claimed = [schedule.next_group(2) for _ in plan.variants]
    assert () == schedule.next_group(2)

    schedule.extend(later)
    schedule.extend(later)

    groups = [schedule.next_group(3) for _ in plan.variants]
    assert () == schedule.next_group(3)
    assert all(len({run.variant for run in group}) == 1 for group in (*claimed, *groups))
    assert sorted(map(str, later)) == sorted(str(run) for group in groups for run in group)


def test_a_run_that_an_earlier_execution_asked_for_and_the_looks_do_not_is_not_claimed(url: str) -> None:
    plan = make_plan(seeds=5)
    open_schedule(url, plan, nothing(plan)).next_run()
    first = tuple(run for run in plan.runs if run.seed < 2)

    schedule = open_schedule(url, dataclasses.replace(plan, runs=first), nothing(plan))

    assert sorted(map(str, first)) == sorted(map(str, claim_all(schedule)))


def test_runs_that_are_alike_are_claimed_in_groups_of_a_given_size(url: str) -> None:
    plan = make_plan(seeds=5)
    schedule = open_schedule(url, plan, nothing(plan), alike=lambda run: run.variant)

    groups = []
    while group := schedule.next_group(3):
        groups.append(group)

    assert [3, 2] * len(plan.variants) == [len(group) for group in groups]
    assert all(len({run.variant for run in group}) == 1 for group in groups)
    assert sorted(plan.runs, key=str) == sorted((run for group in groups for run in group), key=str)


def test_a_run_that_is_not_alike_is_kept_for_the_next_group(url: str) -> None:
    plan = make_plan(seeds=2)
    schedule = open_schedule(url, plan, nothing(plan), alike=lambda run: run.seed == 0 and run.variant)

    groups = [schedule.next_group(9) for _ in range(len(plan.variants) + 1)]

    assert [1] * len(plan.variants) + [len(plan.variants)] == sorted(len(group) for group in groups)
    assert () == schedule.next_group(9)


def test_a_group_given_back_is_claimed_again(url: str) -> None:
    plan = make_plan(seeds=2)
    schedule = open_schedule(url, plan, nothing(plan), alike=lambda run: run.variant)
    first = schedule.next_group(2)

    for run in first:
        schedule.release(run)
    later = [run for _ in plan.variants for run in schedule.next_group(2)]

    assert set(first) <= set(later)


def test_a_seeds_round_of_variants_ends_before_the_next_seeds_begins(url: str) -> None:
    plan = make_plan(seeds=3)

    seeds = [run.seed for run in claim_all(open_schedule(url, plan, nothing(plan)))]

    assert sorted(seeds) == seeds


def test_a_trial_has_the_factors_as_parameters_and_the_seed_as_an_attribute(url: str) -> None:
    plan = make_plan(seeds=2)

    claim_all(open_schedule(url, plan, finished(plan, plan.runs[:1])))

    found = {trial.user_attrs["identity"]: trial for trial in trials(url)}
    for run in plan.runs:
        assert plan.variant(run.variant).levels == found[run.identity].params
        assert run.seed == found[run.identity].user_attrs["seed"]


def test_seeds_of_one_variant_are_trials_of_their_own(url: str) -> None:
    plan = make_plan(seeds=3)
    schedule = open_schedule(url, plan, nothing(plan))
    values = {run.identity: 0.5 + 0.1 * run.seed for run in plan.runs}

    for run in claim_all(schedule):
        tell_done(schedule, run, values[run.identity])

    assert values == {trial.user_attrs["identity"]: trial.value for trial in trials(url)}


@pytest.mark.parametrize("evaluator", [FanovaImportanceEvaluator(seed=0), PedAnovaImportanceEvaluator()])
def test_importance_is_of_factors_alone(url: str, evaluator: BaseImportanceEvaluator) -> None:
    plan = make_plan(seeds=3)
    schedule = open_schedule(url, plan, nothing(plan))
    for run in claim_all(schedule):
        tell_done(schedule, run, 0.5 + 0.1 * (plan.variant(run.variant).levels["model.depth"] == 3) + 0.03 * run.seed)

    found = optuna.importance.get_param_importances(
        optuna.load_study(study_name="quick", storage=url), evaluator=evaluator
    )

    assert {"model.depth", "model.normalization"} == set(found)
    assert found["model.depth"] > found["model.normalization"]


def note_of(url: str) -> dict[str, object]:
    storage = optuna.storages.RDBStorage(url)
    return storage.get_study_system_attrs(storage.get_study_id_from_name("quick"))


def test_a_note_says_that_the_best_trial_is_no_answer_and_where_that_is(url: str, tmp_path: Path) -> None:
    plan, report = make_plan(seeds=1), tmp_path / "reports" / "quick" / "report.html"

    open_schedule(url, plan, nothing(plan), report=report)

    note = note_of(url)
    assert 1 == note["dashboard:note_ver"]
    text = str(note["dashboard:note_str:0"])
    assert "The best trial is no answer" in text
    assert f"`{report}`" in text
    assert "`ablation summarize quick`" in text


def test_a_note_that_somebody_has_written_is_left(url: str) -> None:
    plan = make_plan(seeds=1)
    open_schedule(url, plan, nothing(plan))
    storage = optuna.storages.RDBStorage(url)
    theirs = {"dashboard:note_str:0": "mine", "dashboard:note_ver": 2}
    for key, value in theirs.items():
        storage.set_study_system_attr(storage.get_study_id_from_name("quick"), key, value)

    open_schedule(url, plan, nothing(plan))

    assert theirs == note_of(url)


def as_an_earlier_version_wrote_it(url: str, plan: Plan, recorded: Sequence[RecordedRun]) -> None:
    """Write a schedule in which the seed is a parameter: what has ended as trials with values, one run as claimed."""
    levels = {"model.depth": (2, 3), "model.normalization": ("none", "batch")}
    distributions: dict[str, BaseDistribution] = {
        **{path: CategoricalDistribution(choices) for path, choices in levels.items()},
        "seed": IntDistribution(0, 10_000),
    }
    study = optuna.create_study(storage=url, study_name=plan.name, direction="maximize")
    study.set_user_attr("distributions", {name: repr(one) for name, one in distributions.items()})
    for record in recorded:
        run, value = record.planned, record.metrics.get("test_accuracy")
        study.add_trial(
            create_trial(
                state=TrialState.WAITING if value is None else TrialState.COMPLETE,
                value=value,
                params={**plan.variant(run.variant).levels, "seed": run.seed},
                distributions=distributions,
                user_attrs={"identity": run.identity},
            )
        )
    study.ask(distributions)


def test_a_study_whose_trials_have_the_seed_as_a_parameter_resumes_and_trains_nothing_again(url: str) -> None:
    plan = make_plan(seeds=2)
    recorded = finished(plan, plan.runs[:3])
    as_an_earlier_version_wrote_it(url, plan, recorded)

    schedule = open_schedule(url, plan, recorded)

    assert schedule.note is None
    assert list(plan.runs[3:]) == claim_all(schedule)
    assert all("seed" not in trial.params and "seed" in trial.user_attrs for trial in trials(url))
    values = {run.planned.identity: run.metrics["test_accuracy"] for run in recorded if run.outcome}
    complete = [trial for trial in trials(url) if trial.state is TrialState.COMPLETE]
    assert values == {trial.user_attrs["identity"]: trial.value for trial in complete}
    assert len(values) == len(complete)


def test_a_told_trial_has_the_metric_as_value(url: str) -> None:
    plan = make_plan(seeds=1)
    schedule = open_schedule(url, plan, nothing(plan))
    run = schedule.next_run()
    assert run is not None

    tell_done(schedule, run, 0.9)

    assert (TrialState.COMPLETE, 0.9) == (trials(url)[0].state, trials(url)[0].value)


def test_a_run_that_was_given_back_and_has_a_result_all_the_same_gets_one_trial_with_it(url: str) -> None:
    plan = make_plan(seeds=1)
    schedule = open_schedule(url, plan, nothing(plan))
    run = schedule.next_run()
    assert run is not None
    schedule.release(run)

    for _ in range(2):
        open_schedule(url, plan, finished(plan, [run]))

    assert 1 == sum(trial.state is TrialState.COMPLETE for trial in trials(url))


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.FAILED])
def test_a_run_without_a_value_is_a_failed_trial_that_says_why(url: str, outcome: Outcome) -> None:
    plan = make_plan(seeds=1)
    schedule = open_schedule(url, plan, nothing(plan))
    run = schedule.next_run()
    assert run is not None

    schedule.tell(run, outcome=outcome, value=None)

    assert (TrialState.FAIL, outcome.value) == (trials(url)[0].state, trials(url)[0].user_attrs["outcome"])


def test_what_a_lost_coordinator_had_claimed_is_claimed_again(url: str) -> None:
    plan = make_plan(seeds=1)
    lost = open_schedule(url, plan, nothing(plan))
    first, second = lost.next_run(), lost.next_run()
    assert first is not None
    tell_done(lost, first)

    again = claim_all(open_schedule(url, plan, finished(plan, [first])))

    assert second in again
    assert {*plan.runs} - {first} == {*again}


def test_a_run_that_the_tracker_has_is_not_claimed_though_optuna_lost_it(url: str) -> None:
    plan = make_plan(seeds=2)

    claimed = claim_all(open_schedule(url, plan, finished(plan, plan.runs[:3])))

    assert list(plan.runs[3:]) == claimed
    assert 3 == sum(trial.state is TrialState.COMPLETE for trial in trials(url))


def test_a_run_that_only_optuna_calls_done_is_claimed_again(url: str) -> None:
    plan = make_plan(seeds=1)
    schedule = open_schedule(url, plan, nothing(plan))
    for run in claim_all(schedule):
        tell_done(schedule, run)

    assert {*plan.runs} == {*claim_all(open_schedule(url, plan, nothing(plan)))}


def test_a_diverged_run_is_a_result_and_not_claimed_again(url: str) -> None:
    plan = make_plan(seeds=1)
    first = plan.runs[0]
    outcomes = {(run.variant, run.seed): None for run in plan.runs[1:]}
    recorded = make_runs(plan, outcomes={**outcomes, (first.variant, first.seed): Outcome.DIVERGED})

    assert first not in claim_all(open_schedule(url, plan, recorded))


def test_more_seeds_add_only_their_own_runs(url: str) -> None:
    before, now = make_plan(seeds=1), make_plan(seeds=2)
    schedule = open_schedule(url, before, nothing(before))
    for run in claim_all(schedule):
        tell_done(schedule, run)

    claimed = claim_all(open_schedule(url, now, finished(now, before.runs)))

    assert {1} == {run.seed for run in claimed}


def test_levels_may_be_added_to_a_factor(url: str) -> None:
    before = make_plan(seeds=1)
    now = make_plan(seeds=1, factors={"model.depth": (2, 3), "model.normalization": ("none", "batch", "layer")})
    schedule = open_schedule(url, before, nothing(before))
    for run in claim_all(schedule):
        tell_done(schedule, run)

    claimed = claim_all(open_schedule(url, now, finished(now, before.runs)))

    assert ["depth=2,normalization=layer", "depth=3,normalization=layer"] == [run.variant for run in claimed]
    assert 4 == sum(trial.state is TrialState.COMPLETE for trial in trials(url))


def test_runs_no_longer_planned_are_not_claimed(url: str) -> None:
    before, now = make_plan(seeds=3), make_plan(seeds=1)
    open_schedule(url, before, nothing(before))

    assert list(now.runs) == claim_all(open_schedule(url, now, nothing(now)))


def test_a_released_run_is_claimed_again(url: str) -> None:
    plan = make_plan(seeds=1)
    schedule = open_schedule(url, plan, nothing(plan))
    first = schedule.next_run()
    assert first is not None

    schedule.release(first)

    assert first in claim_all(schedule)


def test_a_released_run_is_claimed_by_a_later_execution(url: str) -> None:
    plan = make_plan(seeds=1)
    schedule = open_schedule(url, plan, nothing(plan))
    first = schedule.next_run()
    assert first is not None

    schedule.release(first)

    assert {*plan.runs} == {*claim_all(open_schedule(url, plan, nothing(plan)))}


def test_a_few_runs_wait_in_optunas_queue_however_many_are_planned(url: str) -> None:
    plan = make_plan(seeds=5)

    open_schedule(url, plan, nothing(plan)).next_run()

    assert {"RUNNING": 1, "WAITING": AHEAD - 1} == Counter(trial.state.name for trial in trials(url))


def test_a_queue_that_was_left_full_is_claimed_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(seeds=3)
    with monkeypatch.context() as patched:
        patched.setattr(runs, "AHEAD", len(plan.runs))
        open_schedule(url, plan, nothing(plan)).next_run()

    claimed = claim_all(open_schedule(url, plan, nothing(plan)))

    assert sorted(run.name for run in plan.runs) == sorted(run.name for run in claimed)


def test_what_somebody_else_enqueues_is_not_trained_and_loses_no_run(url: str) -> None:
    plan = make_plan(seeds=2)
    schedule = open_schedule(url, plan, nothing(plan))
    first = schedule.next_run()
    optuna.load_study(study_name="quick", storage=url).enqueue_trial({"seed": 7})

    claimed = [first, *claim_all(schedule)]

    assert list(plan.runs) == claimed
    assert 1 == sum(trial.state is TrialState.FAIL for trial in trials(url))


def test_studies_share_a_storage_without_meeting(url: str) -> None:
    one, other = make_plan(seeds=1), make_plan(name="other", seeds=1)
    claim_all(open_schedule(url, one, nothing(one)))

    assert len(one.runs) == len(claim_all(open_schedule(url, other, nothing(other))))
    assert len(one.runs) == len(trials(url))


@pytest.mark.parametrize(("is_local", "mode"), [(True, "wal"), (False, "delete")])
def test_a_database_is_logged_ahead_only_where_no_other_machine_can_write_to_it(
    url: str, is_local: bool, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "is_on_local_disk", lambda folder: is_local)
    plan = make_plan(seeds=1)

    open_schedule(url, plan, nothing(plan))

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert (mode,) == connection.execute("PRAGMA journal_mode").fetchone()


def test_a_file_system_that_is_not_known_is_not_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LOCAL", frozenset())

    assert not storage.is_on_local_disk(tmp_path)


def test_what_was_told_outlives_a_killed_coordinator(url: str) -> None:
    killed = multiprocessing.get_context("spawn").Process(target=_claim_two_tell_one_and_die, args=(url,))
    killed.start()
    killed.join()

    assert -signal.SIGKILL == killed.exitcode
    assert [TrialState.COMPLETE, TrialState.RUNNING] == [trial.state for trial in trials(url)][:2]


def test_a_storage_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("not a database, but long enough to be read as one" * 100)
    plan = make_plan(seeds=1)

    with pytest.raises(StorageUnavailable, match=r"optuna\.db.*--storage"):
        open_schedule(default_storage(tmp_path), plan, nothing(plan))


def _claim_two_tell_one_and_die(url: str) -> None:
    plan = make_plan(seeds=1)
    schedule = open_schedule(url, plan, nothing(plan))
    first, _ = schedule.next_run(), schedule.next_run()
    assert first is not None
    tell_done(schedule, first)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("is_recorded", [True, False], ids=["another value", "no result"])
def test_where_optuna_contradicts_the_tracker_the_tracker_counts_and_it_is_said(url: str, is_recorded: bool) -> None:
    plan = make_plan(seeds=2)
    schedule = open_schedule(url, plan, nothing(plan))
    first, second = schedule.next_run(), schedule.next_run()
    assert first is not None
    assert second is not None
    recorded = finished(plan, [first, second] if is_recorded else [second])
    values = {run.planned.identity: run.metrics.get("test_accuracy") for run in recorded}
    tell_done(schedule, first, 0.123)
    tell_done(schedule, second, values[second.identity] or 0.0)

    again = open_schedule(url, plan, recorded)

    assert again.note is not None
    assert f"Optuna has 0.123 of {first.name}, and MLflow" in again.note
    done = {trial.user_attrs["identity"]: trial.value for trial in trials(url) if trial.state is TrialState.COMPLETE}
    assert {run.planned.identity: values[run.planned.identity] for run in recorded if run.outcome} == done
    assert len(plan.runs) - len(done) == len(claim_all(again))
    assert open_schedule(url, plan, recorded).note is None
