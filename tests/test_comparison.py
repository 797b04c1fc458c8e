"""Two variants compared: the verdict is at alpha over all pairs; seeds of two studies are pairs where they agree."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ablation.analysis import RecordedStudy, Verdict, compare_studies, compare_variants
from ablation.analysis.boundaries import boundaries
from ablation.analysis.comparison import Comparison
from ablation.analysis.statistics import welch_interval
from ablation.cli.summary import comparison_json, comparison_text
from ablation.errors import StudiesApart
from ablation.records import FunctionTraining, Outcome, Plan, Variant
from tests.factories import make_plan, make_runs

NORM = {"model.normalization": ("none", "batch")}
NONE, BATCH = "normalization=none", "normalization=batch"
FOUR = ("depth=2,normalization=none", "depth=2,normalization=batch")


def value(variant: Variant, seed: int) -> float:
    noise = np.random.default_rng([len(variant.name), seed]).standard_normal()
    return 0.7 + 0.05 * ("batch" in variant.name) + 0.01 * float(noise)


def study(plan: Plan, **more: Any) -> RecordedStudy:
    return RecordedStudy(plan=plan, runs=make_runs(plan, accuracy=value, **more))


def values(plan: Plan, name: str, *, seeds: int) -> list[float]:
    return [value(plan.variant(name), seed) for seed in range(seeds)]


def looking(plan: Plan, *looks: int) -> Plan:
    locked = dataclasses.replace(plan.locked, looks=looks)
    return dataclasses.replace(plan, locked=locked, study={**plan.study, "seeds": {"looks": list(looks)}})


def changed(plan: Plan, section: str | None = None, **changes: Any) -> Plan:
    """Return a plan whose variants have other settings; of a section, or beside all."""

    def configuration(variant: Variant) -> Mapping[str, Any]:
        own = variant.configuration
        return {**own, **({section: {**own.get(section, {}), **changes}} if section else changes)}

    variants = tuple(
        dataclasses.replace(
            variant,
            configuration=configuration(variant),
            settings=variant.settings if section else dataclasses.replace(variant.settings, **changes),
        )
        for variant in plan.variants
    )
    return dataclasses.replace(plan, variants=variants)


def across(first: Plan, second: Plan, **more: Any) -> Comparison:
    return compare_studies((study(first), NONE), (study(second, **more), BATCH))


def test_a_verdict_is_at_alpha_over_all_pairs_of_the_studys_variants() -> None:
    plan = make_plan(seeds=8)
    found = compare_variants(plan, study(plan).runs, *FOUR)
    own = [values(plan, name, seeds=8) for name in FOUR]
    reference = stats.ttest_rel(own[1], own[0]).confidence_interval(1 - 0.05 / 6)

    assert found.judged is not None
    assert found.judged.interval is not None
    assert (6, 0.05, Verdict.HELPS) == (found.judged.pairs, found.judged.alpha, found.judged.verdict)
    assert (reference.low, reference.high) == pytest.approx((found.judged.interval.low, found.judged.interval.high))
    assert found.judged.interval.level == pytest.approx(1 - 0.05 / 6)
    assert "over the 6 pairs of study quick's 4 variants" in " ".join(comparison_text(found).split())
    assert 6 == json.loads(comparison_json(found))["judged"]["pairs"]


def test_a_pair_is_judged_by_the_boundary_of_its_look() -> None:
    plan = looking(make_plan(seeds=12, factors=NORM), 5, 8, 12)
    found = compare_variants(plan, study(plan).runs, NONE, BATCH).judged
    differences = np.subtract(values(plan, BATCH, seeds=5), values(plan, NONE, seeds=5))

    assert found is not None
    assert found.interval is not None
    assert (5, 5) == found.seeds  # where it is decided
    half_width = boundaries((5, 8, 12), 0.05)[0].t * differences.std(ddof=1) / np.sqrt(5)
    assert found.interval.high - found.interval.low == pytest.approx(2 * half_width)


def test_a_variant_beside_itself_is_not_judged() -> None:
    plan = make_plan(factors=NORM)

    assert compare_variants(plan, study(plan).runs, BATCH, BATCH).judged is None


def test_seeds_of_two_studies_that_agree_are_pairs() -> None:
    first, second = make_plan(name="a", seeds=8, factors=NORM), make_plan(name="b", seeds=8, factors=NORM)
    found = across(first, second)
    reference = stats.ttest_rel(values(first, BATCH, seeds=8), values(first, NONE, seeds=8)).confidence_interval(
        1 - 0.05 / 6
    )

    assert found.pairing.is_paired
    assert found.judged is not None
    assert found.judged.interval is not None
    assert 6 == found.judged.pairs  # of 2 + 2 variants
    assert (reference.low, reference.high) == pytest.approx((found.judged.interval.low, found.judged.interval.high))
    assert all(row.wins is not None for row in found.metrics if row.metric.unit != "seconds")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda plan: changed(plan, study_seed=7), "study_seed (0 and 7)"),
        (lambda plan: dataclasses.replace(plan, data=dataclasses.replace(plan.data, digest="0" * 64)), "00000000"),
        (lambda plan: changed(plan, "training", epochs=9), "training.epochs (none and 9)"),
        (lambda plan: changed(plan, "data", validation=0.2), "data.validation (none and 0.2)"),
        (lambda plan: dataclasses.replace(plan, runs=plan.runs[-4:]), "no seed is in both"),
    ],
)
def test_seeds_that_mean_something_else_are_no_pairs_and_welchs_interval_says_why(change: Any, named: str) -> None:
    first, second = make_plan(name="a", seeds=6, factors=NORM), change(make_plan(name="b", seeds=8, factors=NORM))
    if named.startswith("no seed"):
        first = dataclasses.replace(first, runs=first.runs[:12])
    found = across(first, second)
    seeds = sorted({run.seed for run in second.runs})
    samples = values(first, NONE, seeds=6), [value(second.variant(BATCH), seed) for seed in seeds]
    reference = stats.ttest_ind(samples[1], samples[0], equal_var=False).confidence_interval(0.95)

    row = next(row for row in found.metrics if row.metric.name == "test_accuracy")
    assert not found.pairing.is_paired
    assert any(named in reason for reason in found.pairing.differs)
    assert row.difference is not None
    assert row.difference.interval is not None
    assert row.wins is None
    assert (reference.low, reference.high) == pytest.approx((row.difference.interval.low, row.difference.interval.high))
    assert "Welch's interval, not paired" in comparison_text(found)


def test_what_two_studies_vary_does_not_keep_their_seeds_from_being_pairs() -> None:
    first, second = make_plan(name="a", seeds=5, factors=NORM), make_plan(name="b", seeds=5, factors=NORM)
    rates = iter((0.1, 0.01))
    varied = tuple(
        dataclasses.replace(each, configuration={**each.configuration, "training": {"rate": rate}})
        for each, rate in zip(second.variants, rates, strict=True)
    )

    assert across(first, dataclasses.replace(second, variants=varied)).pairing.is_paired


def test_a_changed_training_function_draws_something_else_by_the_same_seed() -> None:
    training = FunctionTraining(name="own.py:train")
    plans = [
        dataclasses.replace(
            changed(make_plan(name=name, seeds=5, factors=NORM), training=training),
            code=dict.fromkeys((NONE, BATCH), code),
        )
        for name, code in (("a", "1"), ("b", "2"))
    ]
    plans = [changed(plan, "model") for plan in plans]

    assert ("the code of own.py:train",) == across(*plans).pairing.differs


def test_seeds_that_one_study_alone_has_are_left_out_and_named() -> None:
    first, second = make_plan(name="a", seeds=5, factors=NORM), make_plan(name="b", seeds=8, factors=NORM)
    found = across(first, second)

    assert (5, 5) == (len(found.pairing.seeds), found.judged and found.judged.seeds[0])
    assert ("seeds 5 to 7 of study b",) == found.pairing.left_out
    assert "seeds 5 to 7 of study b" in comparison_text(found)


def test_a_run_that_failed_in_one_study_leaves_no_verdict() -> None:
    plans = [make_plan(name=name, seeds=5, factors=NORM) for name in "ab"]
    found = across(*plans, outcomes={(BATCH, 2): Outcome.FAILED})

    assert found.judged is not None
    assert (Verdict.INCOMPLETE, None) == (found.judged.verdict, found.judged.interval)
    assert (f"{BATCH} has no result with seed 2",) == found.withheld


def test_studies_at_different_looks_are_judged_by_the_looks_that_they_have_in_common() -> None:
    first = looking(make_plan(name="a", seeds=8, factors=NORM), 5, 8)
    second = looking(make_plan(name="b", seeds=12, factors=NORM), 8, 12)
    found = across(first, second).judged
    assert found is not None
    assert found.interval is not None
    differences = np.subtract(values(first, BATCH, seeds=5), values(first, NONE, seeds=5))

    assert (5, 5) == found.seeds
    limit = boundaries((5, 8), 0.05 / 6)[0].t
    assert found.interval.high == pytest.approx(differences.mean() + limit * differences.std(ddof=1) / np.sqrt(5))


def test_samples_that_are_not_paired_have_a_share_of_alpha_for_each_two_looks() -> None:
    first = looking(make_plan(name="a", seeds=8, factors=NORM), 5, 8)
    second = changed(looking(make_plan(name="b", seeds=12, factors=NORM), 8, 12), study_seed=1)
    found = across(first, second).judged

    assert found is not None
    assert found.interval is not None
    assert found.interval.level == pytest.approx(1 - 0.05 / (6 * 4))
    assert (8, 12) == found.seeds


def test_a_difference_of_few_seeds_that_are_not_paired_is_fragile() -> None:
    first, second = make_plan(name="a", seeds=4, factors=NORM), make_plan(name="b", seeds=4, factors=NORM)
    found = across(first, changed(second, study_seed=1))

    assert found.judged is not None
    assert (Verdict.UNDECIDED, True) == (found.judged.verdict, found.judged.is_fragile)
    assert "fragile" in comparison_text(found)


def test_studies_that_are_judged_on_different_metrics_are_refused() -> None:
    first = make_plan(name="a", factors=NORM)
    second = make_plan(name="b", factors=NORM, metric={"name": "test_loss", "direction": "minimize"})

    with pytest.raises(StudiesApart, match="'a' is on test_accuracy, 'b' on test_loss"):
        across(first, second)


def test_studies_that_mean_different_sizes_as_meaningful_have_no_rope() -> None:
    first = make_plan(name="a", factors=NORM)
    metric = {"name": "test_accuracy", "direction": "maximize", "meaningful": 0.2}
    found = across(first, make_plan(name="b", factors=NORM, metric=metric)).judged

    assert found is not None
    assert (None, None) == (found.rope, found.is_meaningful)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
@pytest.mark.parametrize("alpha", [0.05, 1e-4])
def test_welchs_interval_is_scipys(scale: float, alpha: float) -> None:
    noise = np.random.default_rng(1)
    first, second = noise.normal(0, 1, 5), noise.normal(1, 3, 9)
    reference = stats.ttest_ind(second, first, equal_var=False).confidence_interval(1 - alpha)
    found = welch_interval(list(scale * first), list(scale * second), alpha=alpha)

    assert found is not None
    assert (found.low / scale, found.high / scale) == pytest.approx((reference.low, reference.high))


def test_welchs_interval_needs_two_values_of_either_and_some_noise() -> None:
    assert welch_interval([1.0], [1.0, 2.0], alpha=0.05) is None
    assert welch_interval([1.0, 1.0], [2.0, 2.0], alpha=0.05) is None
    assert welch_interval([1.0, 1.0], [2.0, 3.0], alpha=0.05) is not None
