"""What a study repeats its variants over: seed indices, and in which order they are judged."""

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_plan, make_runs
from scipy import stats
from test_locking import ended, locked, study
from trainings import STUDY_SEED, begun, finished, make_data, settings_of

from ablation.analysis import StudyLooks, analyse
from ablation.analysis.comparison import compare_variants
from ablation.analysis.power import power_of
from ablation.analysis.sequential import Asked, Rule, judged
from ablation.analysis.statistics import detectable_difference
from ablation.code import CodeFolders
from ablation.datasets import Dataset, Split, make_split, prepare
from ablation.errors import DataInvalid, PathUnavailable, StudyFileError, StudyNarrowed
from ablation.lookup import differences
from ablation.records import DataSettings, FunctionTraining, Plan, Replicates, Settings
from ablation.report import report_text
from ablation.study import study_of_values
from ablation.study.identity import locked_hash
from ablation.study.plan_json import plan_from_json, plan_to_json
from ablation.training import Member, TrainingData, train_eager
from ablation.training.paths import check_alike, train_fused
from ablation.training.steps import split_of
from ablation.worker.data import run_data
from ablation.worker.own_training import data_of


def seeds_of(seeds: Any) -> list[int]:
    return list(dict.fromkeys(run.seed for run in study(seeds).runs(data_digest="d")))


def problem_of(**changes: Any) -> str:
    with pytest.raises(StudyFileError) as caught:
        study(**changes)
    return str(caught.value)


def test_seed_indices_are_trained_in_their_order_and_judged_at_one_look() -> None:
    found = study([42, 0, 7])

    assert [42, 0, 7] == seeds_of([42, 0, 7])
    assert (3,) == found.spec.looks == found.locked().schedule
    assert (42, 0, 7) == found.locked().order


def test_a_seed_is_the_same_run_however_it_is_named() -> None:
    by_number = {(run.variant, run.seed): run.identity for run in study(3).runs(data_digest="d")}
    by_index = {(run.variant, run.seed): run.identity for run in study([2, 9]).runs(data_digest="d")}

    assert {key: identity for key, identity in by_number.items() if key[1] == 2}.items() <= by_index.items()


def test_the_first_seeds_in_order_are_the_number_that_means_the_same() -> None:
    assert 3 == study([0, 1, 2]).spec.document()["seeds"]
    assert locked_hash(study(3).locked()) == locked_hash(study([0, 1, 2]).locked())
    assert locked_hash(study(3).locked()) != locked_hash(study([0, 2, 1]).locked())


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([], "needs at least one seed index, such as [0, 1, 42] @ seeds"),
        ([0, 1, 0], "has seed 0 twice; the same seed trains the same run, so name each once @ seeds"),
        (
            [0, -1],
            "must be a seed index, a whole number from 0 to 999999 (those above are for tuning), not -1 @ seeds[1]",
        ),
        (
            [True],
            "must be a seed index, a whole number from 0 to 999999 (those above are for tuning), not true @ seeds[0]",
        ),
        ([1_000_000], "(those above are for tuning), not 1000000 @ seeds[0]"),
        (
            [1.0],
            "must be a seed index, a whole number from 0 to 999999 (those above are for tuning), not 1.0 @ seeds[0]",
        ),
    ],
)
def test_what_is_no_list_of_seed_indices_is_refused(seeds: Any, said: str) -> None:
    assert said in problem_of(seeds=seeds)


def test_seeds_that_are_added_come_after_the_locked_ones_wherever_the_file_has_them() -> None:
    plan = locked(ended(3, trained=3), [42, 2, 1, 0])

    assert (0, 1, 2, 42) == plan.seeds
    assert (3, [0, 1, 2]) == (plan.locked.seeds, list(plan.locked.order))
    assert ("seeds changed from 3 to [42, 2, 1, 0], after 6 results could be seen",) == plan.deviations


def test_a_locked_seed_is_not_put_in_anothers_place() -> None:
    tracker = ended([0, 5, 9], trained=1)

    with pytest.raises(StudyNarrowed, match="seed-9"):
        locked(tracker, [0, 5, 7])
    with pytest.raises(StudyNarrowed, match="seed-5"):
        locked(tracker, [0, 9])
    assert (0, 5) == locked(tracker, [0, 5]).seeds


def test_a_plan_of_seed_indices_comes_back_as_it_was() -> None:
    plan = locked(ended([0, 5, 9], trained=1), [9, 5, 0, 4])

    found = plan_from_json(plan_to_json(plan))

    assert plan.locked == found.locked
    assert (0, 5, 9, 4) == found.seeds


LABELS = np.array([0] * 20 + [1] * 15 + [2] * 10)


def loaded_of(folder: Path, *, groups: bool = False, test: bool = False) -> dict[str, Any]:
    """Write a function that returns 45 examples of three classes, and return a study file of it."""
    more = ', "groups": [f"p{i // 3}" for i in range(45)]' if groups else ""
    more += ', "test": (x, y)' if test else ""
    (folder / "d.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    y = np.repeat([0, 1, 2], [20, 15, 10])\n"
        "    x = np.arange(45 * 2, dtype=float).reshape(45, 2)\n"
        f'    return {{"train": (x, y){more}}}\n'
    )
    return {
        "name": "own",
        "data": {"name": "d.py:load", "validation": "none"},
        "model": {"name": "cnn", "depth": 1},
        "training": {"epochs": 1},
        "factors": {"training.batch_size": [64, 16]},
    }


def prepared(
    folder: Path,
    *,
    replicates: Replicates | None = None,
    study_seed: int = 0,
    share: float | None = None,
    groups: bool = False,
    test: bool = False,
) -> Dataset:
    """Prepare the data of `loaded_of` in a folder."""
    loaded_of(folder, groups=groups, test=test)
    code = CodeFolders(folders=(folder,))
    settings = DataSettings(name="d.py:load", validation="none", test=share)
    return prepare(settings, cache=folder / "cache", code=code, study_seed=study_seed, replicates=replicates)


def folds_of(dataset: Dataset, replicates: Replicates, **settings: Any) -> list[Split]:
    section = DataSettings(name="d.py:load", **{"validation": "none", **settings})
    return [
        make_split(dataset, section, study_seed=0, seed=seed, replicates=replicates) for seed in range(replicates.count)
    ]


def test_each_example_is_in_one_fold_of_each_repeat_and_each_repeat_divides_anew(tmp_path: Path) -> None:
    replicates = Replicates(folds=5, repeats=2)
    splits = folds_of(prepared(tmp_path, replicates=replicates), replicates)

    for repeat in (splits[:5], splits[5:]):
        assert list(range(45)) == sorted(int(index) for split in repeat for index in split.test)
        assert all(set(range(45)) - set(split.test) == set(split.train) for split in repeat)
    assert [list(split.test) for split in splits[:5]] != [list(split.test) for split in splits[5:]]


def test_classes_keep_their_proportions_in_each_fold(tmp_path: Path) -> None:
    replicates = Replicates(folds=5)

    splits = folds_of(prepared(tmp_path, replicates=replicates), replicates)

    assert [[4, 3, 2]] * 5 == [np.bincount(LABELS[split.test]).tolist() for split in splits]


def test_validation_is_held_out_of_the_other_folds(tmp_path: Path) -> None:
    replicates = Replicates(folds=3)

    for split in folds_of(prepared(tmp_path, replicates=replicates), replicates, validation=0.2):
        parts = [set(split.train), set(split.validation), set(split.test)]
        assert set(range(45)) == set.union(*parts)
        assert 45 == sum(map(len, parts))
        assert 6 == len(split.validation)


@pytest.mark.parametrize("validation", ["none", 0.25])
def test_folds_and_validation_keep_groups_whole(tmp_path: Path, validation: Any) -> None:
    replicates = Replicates(folds=4, repeats=2)
    dataset = prepared(tmp_path, groups=True, replicates=replicates)
    groups = dataset.train_groups

    for split in folds_of(dataset, replicates, validation=validation):
        parts = [part for part in (split.train, split.validation, split.test) if part is not None]
        of_parts = [set(groups[part]) for part in parts]
        assert 15 == sum(map(len, of_parts)) == len(set.union(*of_parts))
        assert {0, 1, 2} == set(LABELS[split.train])
        assert 45 / 4 - 3 <= len(split.test) <= 45 / 4 + 3


def test_a_test_split_is_drawn_once_by_the_study_seed_and_is_part_of_the_digest(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, other = (prepared(tmp_path, share=0.2, study_seed=seed) for seed in (0, 1))
    again = prepared(tmp_path / "again", share=0.2)

    assert (36, 9) == (first.facts.train_images, first.facts.test_images)
    assert [4, 3, 2] == np.bincount(first.test_labels).tolist()
    assert first.facts.digest == again.facts.digest != other.facts.digest
    both = np.concatenate([first.train_images, first.test_images])
    assert np.arange(90.0).tolist() == sorted(both.ravel().tolist())


def test_a_drawn_test_split_keeps_groups_whole(tmp_path: Path) -> None:
    found = prepared(tmp_path, share=0.2, groups=True)

    test = {int(row[0]) // 6 for row in found.test_images}
    assert test.isdisjoint({int(row[0]) // 6 for row in found.train_images})
    assert 6 <= found.facts.test_images <= 12
    assert len(found.train_groups) == found.facts.train_images


WAYS_OUT = "it returned no test split; return one, or: to draw a test split from train once, set `data.test: 0.2`; to"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({}, WAYS_OUT),
        (
            {"test": True, "share": 0.2},
            "it returned a test split, and the study asks for one to be made of train @ data.test",
        ),
        ({"test": True, "replicates": Replicates(folds=3)}, "for one to be made of train @ replicates"),
        ({"replicates": Replicates(folds=11)}, "11 folds, and the smallest class has 10 examples: take fewer folds"),
        ({"groups": True, "replicates": Replicates(folds=16)}, "16 folds of whole groups, and it has 15 groups"),
        ({"share": 0.01}, "0.01 of 45 examples is 0, too few for an example of each class"),
    ],
)
def test_data_that_cannot_be_divided_is_refused_with_the_reason(tmp_path: Path, made: Any, said: str) -> None:
    with pytest.raises(DataInvalid) as caught:
        prepared(tmp_path, **made)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 3}, "stands in the place of `seeds`, and the file has both"),
        ({"data": {"name": "digits"}}, "digits has a test split of its own, and folds are for data without one"),
        ({"replicates": {"folds": 1}}, "must be a whole number from 2 to 1000, not 1 @ replicates.folds"),
        ({"replicates": {"looks": [3, 5]}}, "unknown key 'looks'"),
        ({"replicates": {"folds": 1000, "repeats": 1000}}, "are 1000000 runs per variant"),
        ({"tune": {"training.learning_rate": {"log": [1e-4, 1e-1]}, "trials": 3}}, "tuning would have seen what it is"),
        (
            {"data": {"name": "d.py:load", "test": 0.2}},
            "takes every example as a test example once per repeat; leave test",
        ),
        (
            {"factors": {"data.limit": [20, 30]}, "data": {"name": "d.py:load", "limit": 20}},
            "variants would be tested on different ones @ factors.data.limit",
        ),
    ],
)
def test_what_folds_do_not_go_with_is_refused_before_anything_is_read(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        study_of_values({**loaded_of(tmp_path), "replicates": {"folds": 3}, **changes})

    assert said in str(caught.value)


def test_a_test_split_of_data_that_has_one_is_refused() -> None:
    with pytest.raises(StudyFileError, match="digits has a test split of its own; leave test out"):
        study_of_values({"name": "n", "data": {"name": "digits", "test": 0.2}, "factors": {"data.limit": [50, 60]}})


def folded(seeds: int = 10, **changes: Any) -> Plan:
    """Return a plan of 5 folds × 2 repeats of 100 examples."""
    plan, replicates = make_plan(seeds=seeds, **changes), Replicates(folds=5, repeats=2)
    variants = tuple(replace(each, settings=replace(each.settings, replicates=replicates)) for each in plan.variants)
    study = {key: value for key, value in plan.study.items() if key != "seeds"}
    return replace(
        plan,
        study={**study, "replicates": replicates.plain()},
        variants=variants,
        data=replace(plan.data, train_images=1797, test_images=0, fold_sizes=((1438, 359),) * 10),
        locked=replace(plan.locked, replicates=replicates),
    )


def corrected(values: Sequence[float], alpha: float, ratio: float) -> tuple[float, float]:
    """Return Nadeau and Bengio's corrected resampled t interval, written out."""
    n = len(values)
    error = math.sqrt((1 / n + ratio) * np.var(values, ddof=1))
    half = stats.t.isf(alpha / 2, n - 1) * error
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def test_every_interval_over_folds_is_the_corrected_one() -> None:
    plan = folded(
        factors={"model.depth": [2, 3], "model.width": [8, 16]},
        questions=[
            {"effect": "model.depth"},
            {"interaction": ("model.depth", "model.width")},
        ],
    )
    ratio = 359 / 1438

    found = analyse(plan, make_runs(plan))

    for answer in found.answers:
        effect, values = answer.effect, [each.difference for each in answer.differences]
        assert corrected(values, 0.025, ratio) == pytest.approx((effect.interval.low, effect.interval.high), rel=1e-12)
        assert effect.e_value is None
        assert answer.forecast is None
        assert answer.crossed is None
        plain = detectable_difference(effect.sd, 10, alpha=0.025)
        assert effect.detectable == pytest.approx(plain * math.sqrt(1 + 10 * ratio))
        for simple in answer.simple_effects:
            assert simple.interval.high - simple.interval.low > 0
    compared = compare_variants(plan, make_runs(plan), plan.variants[0].name, plan.variants[1].name)
    runs = {run.planned.name: run.metrics["test_accuracy"] for run in make_runs(plan)}
    first, second = (variant.name for variant in plan.variants[:2])
    values = [runs[f"{second}/seed-{seed}"] - runs[f"{first}/seed-{seed}"] for seed in range(10)]
    difference = next(row for row in compared.metrics if row.metric.name == "test_accuracy").difference
    assert corrected(values, 0.05, ratio) == pytest.approx((difference.interval.low, difference.interval.high))
    assert (5, 2, ratio) == (found.folds.folds, found.folds.repeats, found.folds.test_to_train)
    assert found.folds == compared.folds


def test_a_report_on_folds_says_so_and_after_whom_they_are_corrected() -> None:
    plan = folded()

    text = report_text(analyse(plan, make_runs(plan)), "markdown")

    assert "Nadeau and Bengio, Inference for the generalization error, Machine Learning 52 (2003)" in text
    assert "Folds: 5, 2 times. Each example is tested on once each time." in text
    assert "of 10 folds" in text
    assert not re.search(r"(?<![\w/-])[Ss]eeds?(?![\w/-])", text.split("## Reproduce")[0])


def test_a_plan_of_folds_comes_back_as_it_was() -> None:
    plan = folded()

    assert plan == plan_from_json(plan_to_json(plan))
    with pytest.raises(ValueError, match="its runs are not those of 5 folds"):
        plan_from_json(plan_to_json(replace(plan, runs=tuple(run for run in plan.runs if run.seed != 9))))


def test_a_changed_number_of_folds_is_a_changed_study(tmp_path: Path) -> None:
    five, ten = (study_of_values({**loaded_of(tmp_path), "replicates": {"folds": folds}}) for folds in (5, 10))
    assert {"replicates.folds": (5, 10)} == differences(five.spec.fixed(), ten.spec.fixed())
    assert set(five.runs(data_digest="d")).isdisjoint(ten.runs(data_digest="d"))
    assert list(range(5)) == [run.seed for run in five.runs(data_digest="d") if run.variant == five.variants[0].name]


def test_what_is_added_to_folds_later_is_judged_once_at_its_part_of_alpha() -> None:
    rule = Rule(looks=(10,), growth=(), alpha=0.05, planned=1, comparisons=2, test_to_train=0.25)
    values = [float(value) for value in np.random.default_rng(0).normal(1.0, 1.0, 10)]
    asked = Asked(metric="m", rope=None, spread=1.0, seeds=values)

    first, added = judged([asked, replace(asked, is_added=True)], rule)

    assert corrected(values, 0.05, 0.25) == pytest.approx((first.interval.low, first.interval.high))
    assert corrected(values, 0.005, 0.25) == pytest.approx((added.interval.low, added.interval.high))


def test_what_folds_find_is_told_with_the_correction() -> None:
    plan = folded()

    (power,) = power_of(
        StudyLooks.of(replace(plan, locked=replace(plan.locked, questions=plan.locked.questions[:1])), ())
    )[:1]

    assert power.looks[0].detectable_sd == pytest.approx(
        detectable_difference(1.0, 10, alpha=0.05) * math.sqrt(1 + 10 * 359 / 1438)
    )


def test_each_fold_is_tested_on_its_own_examples_by_the_engine_and_own_functions(tmp_path: Path) -> None:
    replicates = Replicates(folds=3)
    dataset = prepared(tmp_path, replicates=replicates)
    settings = DataSettings(name="d.py:load", validation=0.2)
    training = FunctionTraining(name="t.py:train")
    own_settings = Settings(data=settings, model=None, training=training, study_seed=0, replicates=replicates)
    for seed in range(3):
        split = make_split(dataset, settings, study_seed=0, seed=seed, replicates=replicates)
        data, _ = run_data(
            dataset.folder,
            settings,
            study_seed=0,
            seed=seed,
            replicates=replicates,
            device=torch.device("cpu"),
            layout=torch.contiguous_format,
        )
        images, labels, indices = split_of(data, "test")
        own = data_of(own_settings, dataset, seed=seed)

        assert split.test.tolist() == indices.tolist()
        assert own.test[1].tolist() == labels[indices].tolist() == data.test_labels.tolist()
        assert np.array_equal(own.test[0], images[indices].numpy())


def fold_data(fold: int, *, size: int = 11) -> TrainingData:
    """Return the data of one of four folds of made-up images: all of them, and which are trained and tested on."""
    whole = make_data(train_images=43)
    test = torch.arange(55)[fold :: 55 // size][:size]
    train = torch.tensor([index for index in range(55) if index not in test.tolist()])
    return replace(whole, train=train, test=test, test_images=whole.images, test_labels=whole.labels[test])


def test_fused_folds_are_each_tested_on_their_own_examples() -> None:
    members = [Member(model=begun(seed), data=fold_data(seed), settings=settings_of(), seed=seed) for seed in (0, 1)]
    alone = [train_eager(replace(each, model=copy.deepcopy(each.model)), study_seed=STUDY_SEED) for each in members]
    expected = [finished(epochs)[1][0] for epochs in alone]

    _, found = finished(train_fused(members, backend="streams", study_seed=STUDY_SEED))

    for one, other in zip(expected, found, strict=True):
        assert one.metrics["test_accuracy"] == other.metrics["test_accuracy"]
        assert one.metrics["test_loss"] == pytest.approx(other.metrics["test_loss"], rel=1e-4)
        assert one.test_targets.tolist() == other.test_targets.tolist()
        assert 11 == len(other.test_targets)


def test_folds_of_other_sizes_are_not_fused_and_the_reason_says_why() -> None:
    members = [
        Member(model=begun(seed), data=fold_data(seed, size=size), settings=settings_of(), seed=seed)
        for seed, size in ((0, 11), (1, 5))
    ]

    with pytest.raises(PathUnavailable, match="seeds 0 and 1 differ in the sizes of their splits"):
        check_alike(members)
