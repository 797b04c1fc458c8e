"""Tuning of training functions of one's own, and settings that are tuned only where a condition holds."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bench import Bench

from ablation.errors import AblationError, StudyChanged, ValidationMissing, VariantFails
from ablation.executors import ProcessExecutor
from ablation.records import Outcome, TunedVariant, TuningTrial
from ablation.report.tuning_tables import budget_text, objective, spaces, tuned_variants
from ablation.scheduling import default_storage, open_tuning
from ablation.storage.run_folder import EPOCHS
from ablation.study import Study, load_study, parse_override
from ablation.study.search_spaces import SearchSpace, Tuning, drawing_order

RIDGE = '''
import numpy as np


def train(settings, seed, report, data):
    """Fit a ridge regression by so many steps of gradient descent; `rmse` is of what it was given as test."""
    chosen = settings["training"]
    (x, y), (held, truth), (other, answers) = data.train, data.validation, data.test
    weights = np.random.default_rng(seed).normal(size=x.shape[1])
    for _ in range(chosen["steps"]):
        gradient = 2 * x.T @ (x @ weights - y) / len(x) + chosen["penalty"] * weights
        weights = weights - chosen["rate"] * gradient
        report(val_rmse=rmse(held @ weights, truth), test_rmse=rmse(other @ weights, answers))
    (report.folder / "weights.txt").write_text(str(weights))
    return {"rmse": rmse(other @ weights, answers), "test_size": len(answers)}


def rmse(predicted, truth):
    return float(np.sqrt(np.mean((predicted - truth) ** 2)))


def load():
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=(80, 3)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5]) + drawn.normal(size=80)).astype(np.float32)
    return {"train": (x[:50], y[:50]), "test": (x[50:], y[50:])}
'''
FILE = """
name: ridge
data: {name: "ridge.py:load", task: regression, validation: 0.2, target_scaling: none}
training: {name: "ridge.py:train", steps: 3, rate: 0.1, penalty: 0.0, hidden: 16, optimizer: adam}
factors: {training.penalty: [0.0, 0.5]}
metric: {name: rmse, direction: minimize, validation: val_rmse}
tune: {training.rate: {log: [1e-3, 1.0]}, trials: 7}
seeds: 2
"""


def own_study(folder: Path, *changes: str, code: str = RIDGE, name: str | None = None) -> Study:
    (folder / "ridge.py").write_text(code)
    path = folder / "ridge.yaml"
    path.write_text(FILE)
    return load_study(path, overrides=list(map(parse_override, changes)), name=name or "ridge")


def tuning_of(bench: Bench, study: Study) -> dict[str, TunedVariant]:
    record = bench.tracker.find_study(study.name)
    assert record is not None
    return {each.variant: each for each in record.plan.tuning}


def without_times(tuned: Mapping[str, TunedVariant]) -> Any:
    return {
        name: (each.chosen, [(one.settings, one.outcome, one.value, one.curve) for one in each.trials])
        for name, each in tuned.items()
    }


def test_a_training_function_is_tuned_by_what_it_reports_on_validation(bench: Bench, tmp_path: Path) -> None:
    study = own_study(tmp_path)

    outcome = bench.run(study)

    tuned = tuning_of(bench, study)
    assert {Outcome.DONE: 4} == outcome.ended
    assert [7, 7] == [len(each.trials) for each in tuned.values()]
    for variant in outcome.record.plan.variants:
        trials = tuned[variant.name].trials
        done = [trial for trial in trials if trial.outcome == "done"]
        assert all(trial.value == trial.curve[-1] and len(trial.curve) == 3 for trial in done)
        best = min(done, key=lambda trial: trial.value or 0.0)
        assert best.settings == tuned[variant.name].settings
        assert best.settings["training.rate"] == variant.settings.function.arguments["rate"]
        assert 0.1 == trials[0].settings["training.rate"]
        assert all(len(trial.curve) < 3 for trial in trials if trial.outcome == "pruned")
    assert {"pruned", "done"} == {trial.outcome for each in tuned.values() for trial in each.trials}
    assert outcome.analysis is not None
    assert ("val_rmse", "minimize") == (objective(outcome.analysis).name, objective(outcome.analysis).direction)
    assert "what the training function returned as val_rmse, else by what it reported last" in budget_text(
        outcome.analysis
    )


def test_a_trial_shows_no_test_split_and_keeps_nothing_named_after_it(bench: Bench, tmp_path: Path) -> None:
    spy = RIDGE.replace(
        '    weights = np.random', '    with open(settings["training"]["log"], "a") as log:\n'
        '        log.write(f"{len(other)} {np.array_equal(held, other)}\\n")\n    weights = np.random'
    )  # fmt: skip
    log = tmp_path / "log.txt"
    study = own_study(tmp_path, "tune.trials=2", f"training.log={log}", "seeds=1", code=spy)

    steps = bench.steps(study)
    kept: list[dict[str, Any]] = []
    for _ in steps:
        folders = (bench.state.folder / "tuning" / study.name).glob(f"*/{EPOCHS}")
        kept += [json.loads(line)["metrics"] for file in folders for line in file.read_text().splitlines()]
        assert [] == list((bench.state.folder / "tuning" / study.name).glob("*/artifacts/files/*"))

    seen = log.read_text().splitlines()
    assert ["10 True"] * 4 == seen[:4]
    assert ["30 False"] * 2 == seen[4:]
    assert kept
    assert {("val_rmse",)} == {tuple(each) for each in kept}


def test_what_a_function_returns_counts_before_what_it_reported_last(bench: Bench, tmp_path: Path) -> None:
    best = RIDGE.replace('return {"rmse"', 'return {"val_rmse": 0.25, "rmse"')
    study = own_study(tmp_path, "tune={training.rate: {log: [1e-3, 1.0]}, trials: 1}", "seeds=1", code=best)

    bench.run(study)

    assert [0.25, 0.25] == [each.trials[0].value for each in tuning_of(bench, study).values()]
    assert all(each.trials[0].curve[-1] != 0.25 for each in tuning_of(bench, study).values())


def test_a_value_that_is_not_finite_ends_a_trial_as_diverged(bench: Bench, tmp_path: Path) -> None:
    code = RIDGE.replace("report(val_rmse=", 'report(val_rmse=np.inf if chosen["rate"] > 1 else ')
    study = own_study(tmp_path, "tune={training.rate: {choices: [0.1, 2.0]}, trials: 4}", "seeds=1", code=code)

    bench.run(study)

    trials = [trial for each in tuning_of(bench, study).values() for trial in each.trials]
    assert {"done", "diverged"} == {trial.outcome for trial in trials}
    assert all(trial.value is None for trial in trials if trial.outcome == "diverged")
    assert {0.1} == {each.settings["training.rate"] for each in tuning_of(bench, study).values()}


def test_a_function_without_the_validation_metric_ends_the_study_at_its_first_trial(
    bench: Bench, tmp_path: Path
) -> None:
    study = own_study(tmp_path, "metric.validation=val_error")

    with pytest.raises(
        ValidationMissing,
        match=r"tuning/.*/trial-0.* ended without val_error.*: the training function reported test_rmse, val_rmse and "
        r"returned rmse, test_size, and not val_error\. No other trial",
    ):
        bench.run(study)

    corrected = own_study(tmp_path)
    assert {Outcome.DONE: 4} == bench.run(corrected).ended


def test_a_function_that_takes_max_batches_is_asked_for_it_before_anything_trains(bench: Bench, tmp_path: Path) -> None:
    code = RIDGE.replace("report, data)", "report, data, max_batches=None)")
    study = own_study(tmp_path, "metric.validation=val_error", code=code)

    with pytest.raises(VariantFails, match="reported test_rmse, val_rmse and returned rmse, test_size, and not"):
        bench.run(study)

    assert bench.tracker.find_study(study.name) is None


@pytest.mark.slow
def test_an_own_tuning_that_was_interrupted_ends_as_one_that_was_not(
    bench: Bench, tmp_path: Path, data_cache: Path
) -> None:
    study = own_study(tmp_path, "seeds=1", "tune.trials=3")
    undisturbed = Bench(tmp_path / "other", data_cache)
    undisturbed.run(study)
    steps = bench.steps(study)
    for _ in itertools.islice(steps, 6):
        pass
    steps.close()

    bench.run(study)

    assert without_times(tuning_of(undisturbed, study)) == without_times(tuning_of(bench, study))


@pytest.mark.slow
def test_processes_tune_a_function_as_one_process_does(bench: Bench, tmp_path: Path, data_cache: Path) -> None:
    study = own_study(tmp_path, "seeds=1", "tune.trials=3")
    beside = Bench(tmp_path / "other", data_cache)
    with ProcessExecutor(slots=("cpu", "cpu")) as beside.executor:
        beside.run(study)

    bench.run(study)

    assert without_times(tuning_of(beside, study)) == without_times(tuning_of(bench, study))


def test_another_validation_metric_of_a_study_with_results_is_refused(bench: Bench, tmp_path: Path) -> None:
    small = ("tune.trials=1", "seeds=1")
    bench.run(own_study(tmp_path, *small))

    with pytest.raises(StudyChanged, match=r"metric\.validation: 'val_rmse' -> 'other'"):
        bench.run(own_study(tmp_path, *small, "metric.validation=other"))


def test_without_tuning_a_validation_metric_alters_no_plan(tmp_path: Path) -> None:
    plain = own_study(tmp_path, "tune=null", "metric={name: rmse, direction: minimize}")
    named = own_study(tmp_path, "tune=null")

    assert plain.spec.fixed() == named.spec.fixed()
    assert plain.locked() == named.locked()
    assert {"name": "rmse", "direction": "minimize", "meaningful": None} == plain.spec.document()["metric"]


REFUSED = {
    "metric={name: rmse, direction: minimize}": r"is missing: tuning .* `metric: \{name: rmse, direction: minimize, "
    r"validation: val_rmse\}` @ metric\.validation",
    "metric.validation=rmse": r"'rmse' is compared too.* @ metric\.validation",
    "metric.validation=test_rmse": r"'test_rmse' is, by its name, of test",
    "metric.validation=pruned": r"'pruned' is measured anyway",
    "data.validation=none": r"tuning needs a validation split, and data\.validation is none @ tune",
    "training={epochs: 1}": r"is for a training function of your own; the engine measures .* tunes by the",
    "tune={training.rate: {log: [1, 2], when: {training.rat: 1}}}": r"'training.rat' is no factor of this study",
    "tune={training.rate: {log: [1, 2], when: {training.rate: 1}}}": r"a condition of a setting on itself",
    "tune={training.rate: {log: [1, 2], when: {training.penalty: 2}}}": r"2 is never its value; it may be 0\.0, 0\.5",
    "tune={training.rate: {log: [1, 2], when: {training.penalty: []}}}": r"\[\] is never its value",
    "tune={training.rate: {log: [1, 2], when: {training.hidden: 1}}, training.hidden: {log: [1, 2]}}": r"is tuned on a "
    r"scale; a condition is on a factor, or on what is tuned among choices",
    "tune={training.rate: {choices: [1, 2], when: {training.hidden: 1}}, training.hidden: {choices: [1, 2], "
    "when: {training.rate: 1}}}": r"the conditions of training\.rate and training\.hidden look at each other",
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.items())
def test_what_cannot_be_tuned_is_refused_before_anything_trains(tmp_path: Path, change: str, reason: str) -> None:
    with pytest.raises(AblationError, match=reason):
        own_study(tmp_path, change)


def test_a_condition_may_look_at_what_a_recipe_sets(bench: Bench, tmp_path: Path) -> None:
    recipe = (
        "factors={recipe: {fast: {training.optimizer: adam}, slow: {training.optimizer: sgd, training.penalty: 0.5}}}"
    )
    condition = "{log: [16, 64], when: {training.optimizer: sgd}}"
    study = own_study(tmp_path, recipe, f"tune={{training.hidden: {condition}, trials: 2}}", "seeds=1")

    bench.run(study)

    settings = {name: [*each.trials[-1].settings] for name, each in tuning_of(bench, study).items()}
    assert {"recipe=fast": [], "recipe=slow": ["training.hidden"]} == settings


def test_a_nested_setting_is_tuned(bench: Bench, tmp_path: Path) -> None:
    nested = "tune={training.opt.hidden: {log: [16, 64]}, training.opt.rate: {log: [1e-3, 1e-2]}, trials: 2}"
    study = own_study(tmp_path, "training.opt={hidden: 16, rate: 1e-3, name: sgd}", nested, "seeds=1")

    outcome = bench.run(study)

    assert {"training.opt.hidden"} == study.whole_settings()
    for variant in outcome.record.plan.variants:
        found = tuning_of(bench, study)[variant.name].settings
        opt = {"hidden": found["training.opt.hidden"], "rate": found["training.opt.rate"], "name": "sgd"}
        assert opt == variant.settings.function.arguments["opt"]


def test_a_condition_that_no_variant_fulfils_is_refused(tmp_path: Path) -> None:
    condition = "tune={training.rate: {log: [1, 2], when: {training.penalty: 0.5, training.hidden: 32}}}"
    factors = "factors={training.penalty: [0.0, 0.5], training.hidden: [16, 32]}"

    with pytest.raises(AblationError, match=r"no variant of this design has training\.penalty 0\.5 and training"):
        own_study(tmp_path, condition, factors, "forbid=[{training.penalty: 0.5, training.hidden: 32}]")


def drawn(folder: Path, tune: Mapping[str, Any], given: Mapping[str, Any], **options: Any) -> TunedVariant:
    """Return a tuning on a made-up objective, the sum of what is numbers."""
    opened = open_tuning(
        default_storage(folder),
        name="study",
        variant=json.dumps(given),
        tuning=Tuning.model_validate(tune),
        start={},
        direction="maximize",
        study_seed=0,
        basis="basis",
        given=given,
        **options,
    )
    while (suggestion := opened.next_trial()) is not None:
        value = sum(each for each in suggestion.settings.values() if not isinstance(each, str))
        opened.tell(
            TuningTrial(
                number=suggestion.number,
                settings=suggestion.settings,
                outcome="done",
                value=value,
                curve=(value,),
                seconds=1.0,
                run_ids=(),
            )
        )
    found = opened.result()
    assert found is not None
    return found


SGD = {
    "optimizer": {"choices": ("adam", "sgd"), "when": {"kind": ("deep", "wide")}},
    "momentum": {"linear": (0.0, 0.9), "when": {"optimizer": "sgd"}},
    "hidden": {"log": (16, 64)},
    "trials": 8,
    "sampler": "random",
}


def test_a_setting_is_drawn_exactly_where_its_condition_holds(tmp_path: Path) -> None:
    given = {"optimizer": "adam", "momentum": 0.9, "hidden": 16}

    deep = drawn(tmp_path, SGD, {**given, "kind": "deep"}, whole={"hidden"})
    flat = drawn(tmp_path, SGD, {**given, "kind": "flat"}, whole={"hidden"})

    assert 8 == len(deep.trials) == len(flat.trials)
    assert {"adam", "sgd"} == {trial.settings["optimizer"] for trial in deep.trials}
    assert all(("momentum" in trial.settings) is (trial.settings["optimizer"] == "sgd") for trial in deep.trials)
    assert all({"hidden"} == trial.settings.keys() for trial in flat.trials)
    assert all(type(trial.settings["hidden"]) is int for trial in (*deep.trials, *flat.trials))


def test_a_condition_on_a_choice_that_is_not_drawn_looks_at_the_files_value(tmp_path: Path) -> None:
    found = drawn(tmp_path, {**SGD, "trials": 1}, {"optimizer": "sgd", "kind": "flat"})

    assert {"momentum", "hidden"} == found.settings.keys()


def test_a_variant_that_tunes_no_setting_has_one_trial(tmp_path: Path) -> None:
    spaces = {"momentum": SGD["momentum"], "trials": 20}

    assert [{}] == [dict(trial.settings) for trial in drawn(tmp_path, spaces, {"optimizer": "adam"}).trials]


def test_settings_are_drawn_by_name_and_behind_what_their_conditions_look_at() -> None:
    space = {"log": (1, 2)}
    plain = {name: SearchSpace.model_validate(space) for name in "cab"}
    held = {**plain, "a": SearchSpace.model_validate({**space, "when": {"c": 1, "factor": 2}})}

    assert ["a", "b", "c"] == drawing_order(plain)
    assert ["b", "c", "a"] == drawing_order(held)


def test_a_space_without_a_condition_is_written_as_before() -> None:
    tuning = Tuning.model_validate({"a": {"log": (1, 2)}, "trials": 3})

    assert (
        '{"trials":3,"seeds":1,"sampler":"tpe","pruner":"median","also_untuned":false,'
        '"a":{"log":[1,2],"linear":null,"integers":null,"choices":null}}'
    ) == tuning.model_dump_json()


def test_the_report_says_where_settings_are_tuned_and_how_many_each_variant_has(bench: Bench, tmp_path: Path) -> None:
    study = own_study(
        tmp_path,
        "tune={training.rate: {log: [1e-2, 0.2]}, training.hidden: {log: [16, 64], when: {training.penalty: 0.5}}, "
        "trials: 2}",
        "seeds=1",
    )

    outcome = bench.run(study)

    assert outcome.analysis is not None
    tables = tuned_variants(outcome.analysis)
    column = tables.head.index("settings tuned")
    assert ["1", "2"] == [row[column] for row in tables.rows]
    assert "16 to 64, on a log scale, where penalty is 0.5" == dict(spaces(outcome.analysis))["training.hidden"]
    assert "A setting with a condition is tuned where that holds" in budget_text(outcome.analysis)
    hidden = [variant.settings.function.arguments["hidden"] for variant in outcome.record.plan.variants]
    assert 16 == hidden[0]
    assert type(hidden[1]) is int


def test_whole_numbers_of_a_training_function_are_tuned_as_such(tmp_path: Path) -> None:
    spaces = "tune={training.hidden: {log: [16, 64]}, training.rate: {log: [1, 64]}}"

    assert {"training.hidden"} == own_study(tmp_path, spaces).whole_settings()


def test_the_validation_metrics_direction_is_the_metrics_unless_it_is_declared(tmp_path: Path) -> None:
    declared = own_study(tmp_path, "metrics={val_rmse: maximize}")

    assert ("val_rmse", "minimize") == own_study(tmp_path).spec.validation_metric
    assert ("val_rmse", "maximize") == declared.spec.validation_metric
