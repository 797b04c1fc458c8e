"""Tuning: equal budgets on validation, the same whoever is tuned beside whom, and apart from what is compared."""

import itertools
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from bench import Bench
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from ablation.coordinator.request import Request
from ablation.errors import AblationError, StudyChanged
from ablation.executors import InlineExecutor
from ablation.pipeline import run_study
from ablation.records import Outcome, TunedVariant, TuningTrial
from ablation.scheduling import Suggestion, default_storage, open_tuning
from ablation.scheduling.trials import median_bounds
from ablation.storage.state import State
from ablation.study import Study, load_study, parse_override, parse_study
from ablation.study.search_spaces import FIRST_TUNING_SEED, Tuning
from ablation.tracking import MemoryTracker
from ablation.training import loop
from ablation.worker.tuning_runs import objective_value

RATE = "training.learning_rate"


def tuned_study(*changes: str, name: str = "tuned", levels: str = "[none, batch]") -> Study:
    chosen = [
        "data.validation=0.2",
        "factors={model.normalization: " + levels + "}",
        "tune={training.learning_rate: {log: [1e-4, 1e-1]}, trials: 2}",
        *changes,
    ]
    return parse_study(TINY, source="tiny.yaml", overrides=[parse_override(text) for text in chosen], name=name)


def tuning(**changes: Any) -> Tuning:
    return Tuning.model_validate({RATE: {"log": (1e-4, 1e-1)}, "trials": 7, **changes})


def schedule(folder: Path, *, chosen: Tuning, variant: str = "one", direction: str = "maximize") -> Any:
    return open_tuning(
        default_storage(folder),
        name="study",
        variant=variant,
        tuning=chosen,
        start={RATE: 1e-3},
        direction=direction,
        study_seed=0,
        basis="basis",
    )


def trial(suggestion: Suggestion, *curve: float, outcome: Any = "done") -> TuningTrial:
    return TuningTrial(
        number=suggestion.number,
        settings=suggestion.settings,
        outcome=outcome,
        value=curve[-1] if outcome == "done" else None,
        curve=curve,
        seconds=1.0,
        run_ids=(f"run-{suggestion.number}",),
    )


def score(rate: float) -> float:
    return 1 - abs(math.log10(rate) + 2)


def spent(opened: Any) -> TunedVariant | None:
    """Spend a budget on a made-up objective that is best at 0.01."""
    while (suggestion := opened.next_trial()) is not None:
        opened.tell(trial(suggestion, score(suggestion.settings[RATE])))
    result: TunedVariant | None = opened.result()
    return result


def test_the_files_own_settings_are_tried_first_and_the_best_trial_is_chosen(tmp_path: Path) -> None:
    result = spent(schedule(tmp_path, chosen=tuning()))

    assert result is not None
    assert {RATE: 1e-3} == result.trials[0].settings
    assert 7 == len(result.trials)
    assert max(score(one.settings[RATE]) for one in result.trials) == result.trials[result.chosen].value
    assert result.settings == result.trials[result.chosen].settings


def test_variants_are_tried_with_the_same_settings_until_there_is_something_to_go_by(tmp_path: Path) -> None:
    one, other = (spent(schedule(tmp_path, chosen=tuning(), variant=name)) for name in ("one", "other"))

    assert one is not None
    assert other is not None
    assert [each.settings for each in one.trials[:5]] == [each.settings for each in other.trials[:5]]


def test_a_schedule_that_is_opened_again_goes_on_as_if_it_had_not_been_closed(tmp_path: Path) -> None:
    whole = spent(schedule(tmp_path, chosen=tuning(), variant="whole"))
    begun = schedule(tmp_path, chosen=tuning(), variant="interrupted")
    for _ in range(3):
        suggestion = begun.next_trial()
        begun.tell(trial(suggestion, score(suggestion.settings[RATE])))
    begun.next_trial()  # its coordinator dies here

    again = spent(schedule(tmp_path, chosen=tuning(), variant="interrupted"))

    assert whole is not None
    assert again is not None
    assert [each.settings for each in whole.trials] == [each.settings for each in again.trials]


def test_without_a_trial_that_has_a_value_nothing_is_chosen(tmp_path: Path) -> None:
    opened = schedule(tmp_path, chosen=tuning(trials=2))
    for _ in range(2):
        opened.tell(trial(opened.next_trial(), outcome="diverged"))

    assert opened.next_trial() is None
    assert opened.result() is None


WHOLE = ("training.batch_size", "training.epochs", "model.width", "model.depth")


@pytest.mark.parametrize(
    ("space", "is_whole"),
    [
        ("training.batch_size: {log: [8, 64]}", True),
        ("training.batch_size: {linear: [8, 64]}", True),
        ("training.batch_size: {integers: [8, 64], log: true}", True),
        ("training.batch_size: {choices: [8, 64]}", False),
        ("training.learning_rate: {log: [1, 100]}", False),
        ("model.dropout: {linear: [0, 0.5]}", False),
    ],
)
def test_a_setting_that_is_a_whole_number_is_tuned_as_one(space: str, is_whole: bool) -> None:
    assert (tuned_study(f"tune={{{space}}}").whole_settings() != frozenset()) is is_whole


def test_an_argument_of_own_code_is_whole_where_its_value_and_bounds_are(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def build(shape, **settings): ...\n")
    text = TINY.decode().replace(
        "model: {name: cnn, depth: 1, width: 2, dense: [8], normalization: none}",
        "model: {name: own:build, hidden: 32, scale: 32, rate: 0.5, depth: 1, normalization: none}",
    )
    path = tmp_path / "own.yaml"
    path.write_text(text)
    spaces = "model.hidden: {log: [8, 64]}, model.scale: {log: [8.0, 64]}, model.rate: {linear: [0, 1]}"
    changes = [f"tune={{{spaces}}}", "data.validation=0.2"]

    study = load_study(path, overrides=list(map(parse_override, changes)))

    assert {"model.hidden"} == study.whole_settings()


def test_a_log_scale_stands_alone_with_bounds_or_beside_integers() -> None:
    for space, reason in (
        ("{log: true}", "log: true stands beside integers"),
        ("{log: [1, 8], integers: [1, 8]}", "has one of"),
        ("{log: true, linear: [1, 8]}", "has one of"),
        ("{log: true, integers: [0, 8]}", "begins above 0"),
    ):
        with pytest.raises(AblationError, match=reason):
            tuned_study(f"tune={{training.batch_size: {space}}}")


def test_every_kind_of_space_is_kept_to(tmp_path: Path) -> None:
    spaces = {
        RATE: {"log": (1e-4, 1e-1)},
        "model.dropout": {"linear": (0.1, 0.4)},
        "training.batch_size": {"integers": (8, 16)},
        "training.epochs": {"integers": (2, 64), "log": True},
        "model.width": {"log": (4.0, 64.0)},
        "model.depth": {"linear": (1, 4)},
        "training.optimizer": {"choices": ("adam", "sgd")},
    }
    chosen = Tuning.model_validate({**spaces, "trials": 12, "sampler": "random"})
    opened = open_tuning(
        default_storage(tmp_path),
        name="study",
        variant="one",
        tuning=chosen,
        start={},
        direction="minimize",
        study_seed=0,
        basis="basis",
        whole=WHOLE,
    )
    tried = []
    while (suggestion := opened.next_trial()) is not None:
        tried.append(suggestion.settings)
        opened.tell(trial(suggestion, 0.5))

    assert all(space.holds(settings[path]) for settings in tried for path, space in chosen.spaces.items())
    assert all(type(settings[path]) is int for settings in tried for path in WHOLE)
    assert {"adam", "sgd"} == {settings["training.optimizer"] for settings in tried}


@given(
    curves=st.lists(
        st.lists(st.floats(0, 1, width=16), min_size=4, max_size=4), min_size=6, max_size=9, unique_by=tuple
    ),
    direction=st.sampled_from(["maximize", "minimize"]),
)
def test_trials_are_stopped_where_optunas_median_pruner_would_stop_them(
    curves: list[list[float]], direction: str
) -> None:
    sign = 1 if direction == "maximize" else -1
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    theirs = optuna.create_study(direction=direction, pruner=optuna.pruners.MedianPruner(n_startup_trials=5))
    whole: list[list[float]] = []
    for curve in curves:
        bounds = median_bounds(whole, sign=sign)
        ours = [epoch for epoch, bound in enumerate(bounds) if max(sign * each for each in curve[: epoch + 1]) < bound]
        asked = theirs.ask()
        optunas = []
        for epoch, value in enumerate(curve):
            asked.report(value, epoch)
            if asked.should_prune():
                optunas.append(epoch)
                break
        theirs.tell(asked, state=optuna.trial.TrialState.PRUNED) if optunas else theirs.tell(asked, curve[-1])
        whole += [] if optunas else [curve]

        assert ours[:1] == optunas


@pytest.mark.parametrize(("choice", "minimized", "value"), [("last", False, 0.6), ("best-validation", False, 0.9)])
def test_a_trials_value_is_that_of_the_epoch_which_the_study_measures(
    choice: str, minimized: bool, value: float
) -> None:
    assert value == objective_value((0.2, 0.9, 0.6), choice, is_minimized=minimized)


def found(bench: Bench, study: Study) -> dict[str, TunedVariant]:
    record = bench.tracker.find_study(study.name)
    assert record is not None
    return {variant.variant: variant for variant in record.plan.tuning}


def without_ids(tuned: TunedVariant) -> tuple[Any, ...]:
    return (tuned.chosen, [(one.settings, one.outcome, one.value, one.curve) for one in tuned.trials])


def test_each_variant_gets_the_whole_budget_and_is_compared_with_what_was_found(bench: Bench) -> None:
    study = tuned_study()

    outcome = bench.run(study)

    tuned = found(bench, study)
    assert {Outcome.DONE: 4} == outcome.ended
    assert [2, 2] == [len(variant.trials) for variant in tuned.values()]
    for variant in outcome.record.plan.variants:
        assert variant.settings.engine.learning_rate == tuned[variant.name].settings[RATE]


def test_tuning_uses_seed_indices_and_runs_that_no_comparison_has(bench: Bench) -> None:
    study = tuned_study()
    bench.run(study)
    record = bench.tracker.find_study(study.name)
    assert record is not None

    compared = {run.run_id for run in bench.tracker.recorded_runs(record)}
    tuning_runs = {one for variant in record.plan.tuning for trial in variant.trials for one in trial.run_ids}

    assert compared.isdisjoint(tuning_runs)
    assert all(run.seed < FIRST_TUNING_SEED for run in record.plan.runs)
    assert () == bench.tracker.left_out(record)


def test_tuning_never_measures_on_test(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_arguments: Any, **_keywords: Any) -> None:
        raise AssertionError("the test split was measured")

    monkeypatch.setattr(loop, "_results", forbidden)
    study = tuned_study()

    bench.run(study)

    assert all(trial.outcome in ("done", "pruned") for one in found(bench, study).values() for trial in one.trials)


@pytest.mark.slow
def test_an_interrupted_tuning_ends_as_one_that_was_not(bench: Bench, tmp_path: Path, data_cache: Path) -> None:
    study = tuned_study("tune.trials=6")
    undisturbed = Bench(tmp_path / "other", data_cache)
    undisturbed.run(study)
    steps = bench.steps(study)
    for progress in itertools.islice(steps, 9):
        assert progress.planned == 12
    steps.close()

    bench.run(study)

    ours, theirs = found(bench, study), found(undisturbed, study)
    assert {name: without_ids(one) for name, one in ours.items()} == {
        name: without_ids(one) for name, one in theirs.items()
    }
    assert bench.metrics(study) == undisturbed.metrics(study)


@pytest.mark.slow
def test_the_number_of_slots_makes_no_difference(bench: Bench, tmp_path: Path, data_cache: Path) -> None:
    study = tuned_study("tune.trials=6")
    bench.run(study)
    state = State(folder=tmp_path / "wide")
    state.folder.mkdir()
    (state.folder / "data").symlink_to(data_cache)
    wide = InlineExecutor(device="cpu")
    wide.slots = ("cpu", "cpu", "cpu")
    tracker = MemoryTracker()
    list(
        run_study(
            Request(study=study, tracker=tracker, executor=wide, storage_url=default_storage(state.folder), state=state)
        )
    )
    record = tracker.find_study(study.name)

    assert record is not None
    assert [without_ids(one) for one in record.plan.tuning] == [
        without_ids(one) for one in found(bench, study).values()
    ]


def test_a_study_that_is_run_again_tunes_nothing_again(bench: Bench) -> None:
    study = tuned_study()
    bench.run(study)
    left = bench.state.folder / "tuning" / study.name / ("0" * 32)
    left.mkdir(parents=True)  # by one that was killed when it had frozen what it found

    bench.run(study)

    assert [] == bench.trained
    assert [] == bench.notes
    assert [] == list((bench.state.folder / "tuning").glob("*"))


@pytest.mark.slow
def test_a_level_added_later_is_tuned_and_the_others_keep_their_settings(bench: Bench) -> None:
    bench.run(tuned_study())
    before = found(bench, tuned_study())

    outcome = bench.run(tuned_study(levels="[none, batch, layer]"))

    after = found(bench, tuned_study())
    assert {Outcome.DONE: 6} == outcome.ended
    assert ["normalization=layer"] == sorted(after.keys() - before.keys())
    assert before == {name: after[name] for name in before}
    assert 2 == len(bench.trained)


def test_another_tuning_of_a_study_with_results_is_refused(bench: Bench) -> None:
    bench.run(tuned_study())

    with pytest.raises(StudyChanged, match=r"tune\.trials: 2 -> 3"):
        bench.run(tuned_study("tune.trials=3"))


def test_a_variant_whose_tuning_ends_at_the_files_settings_shares_its_runs(bench: Bench) -> None:
    only = "tune={training.learning_rate: {choices: [1e-3, 1e-7]}, trials: 2, also_untuned: true}"
    study = tuned_study(only, "seeds=1")

    outcome = bench.run(study)

    assert all(variant.settings == {RATE: 1e-3} for variant in found(bench, study).values())
    assert 4 == len(outcome.record.plan.runs)
    assert 2 == len(outcome.record.plan.runs_to_train()) == len(bench.trained)
    assert outcome.analysis is not None
    assert [answer.at for answer in outcome.analysis.answers] == [{"settings": "tuned"}, {"settings": "file"}]
