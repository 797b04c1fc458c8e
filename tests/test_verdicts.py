"""Holds the verdicts to the rules: what is decided, what is withheld, and that neither depends on order or sign."""

import dataclasses
import math

import pytest
from factories import LARGEST_CLASS_SHARE, make_plan, make_runs, noisy_accuracy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablation.analysis import Verdict, analyse, contrast_name, contrasts_of
from ablation.analysis.answer_records import Effect
from ablation.analysis.sequential import Asked, Rule
from ablation.analysis.sequential import judged as stand
from ablation.analysis.statistics import confidence_sequence
from ablation.analysis.table import has_collapsed
from ablation.analysis.verdicts import effect_of, is_meaningful, verdict_of
from ablation.errors import NoResults
from ablation.records import Outcome, Plan, RecordedRun, Variant
from ablation.report import sentence

NORMALIZATION = {"model.normalization": ("none", "batch")}
NONE, BATCH = "normalization=none", "normalization=batch"
NOISE = (0.001, -0.002, 0.003, -0.001, 0.0005, 0.0015, -0.0025, 0.002)


def shifted(shift: float, *, noise: float = 1.0):
    """Return accuracies where batch norm is better by `shift`, with seeds that differ."""

    def accuracy(variant: Variant, seed: int) -> float:
        is_batch = variant.levels["model.normalization"] == "batch"
        return 0.8 + 0.01 * math.sin(seed) + (shift + noise * NOISE[seed % len(NOISE)] if is_batch else 0.0)

    return accuracy


def only_answer(plan: Plan, runs: list[RecordedRun]):
    (answer,) = analyse(plan, runs).answers
    return answer


def judged(shift: float, *, seeds: int = 5, noise: float = 1.0, **plan_options):
    plan = make_plan(factors=NORMALIZATION, seeds=seeds, **plan_options)
    return only_answer(plan, make_runs(plan, accuracy=shifted(shift, noise=noise)))


def replaced_metrics(run: RecordedRun, **metrics: float) -> RecordedRun:
    return dataclasses.replace(run, metrics={**run.metrics, **metrics})


def alike(plan: Plan) -> list[RecordedRun]:
    """Record what the baseline measured for every variant."""
    runs = make_runs(plan)
    baseline = {run.planned.seed: run for run in runs if run.planned.variant == plan.baseline.name}
    return [
        dataclasses.replace(run, metrics=twin.metrics, curves=twin.curves)
        for run in runs
        if (twin := baseline[run.planned.seed])
    ]


def test_interval_beyond_the_rope_helps_meaningfully():
    answer = judged(0.03)

    assert (answer.verdict, answer.is_meaningful) == (Verdict.HELPS, True)


def test_interval_beyond_zero_alone_helps_possibly_by_less_than_matters():
    answer = judged(0.006)

    assert (answer.verdict, answer.is_meaningful) == (Verdict.HELPS, False)


def test_interval_below_zero_hurts():
    assert judged(-0.03).verdict is Verdict.HURTS


def test_interval_inside_the_rope_is_no_meaningful_difference_even_when_zero_is_excluded():
    answer = judged(0.002, noise=0.1)

    assert answer.verdict is Verdict.NO_MEANINGFUL_DIFFERENCE
    assert answer.effect.interval.low > 0


def test_interval_with_zero_and_more_than_the_rope_is_undecided_and_has_a_forecast():
    answer = judged(0.002, noise=5.0)

    assert answer.verdict is Verdict.UNDECIDED
    assert (answer.forecast.seeds, answer.forecast.more) == (15, 10)
    assert 0 <= answer.forecast.chance < 1


def test_without_a_rope_no_difference_is_never_called_equal():
    metric = {"name": "test_accuracy", "direction": "maximize", "meaningful": None}

    assert judged(0.0, noise=0.1, metric=metric).verdict is Verdict.UNDECIDED


def test_lower_is_better_where_the_metric_is_minimized():
    answer = judged(0.05, questions=[{"effect": "model.normalization", "on": "test_loss"}])

    assert answer.effect.mean < 0
    assert answer.verdict is Verdict.HELPS


def test_rope_is_the_questions_then_the_studys_then_the_metrics():
    factor = {"effect": "model.normalization"}
    metric = {"name": "test_accuracy", "direction": "maximize", "meaningful": 0.02}

    def rope(**question):
        return judged(0.03, metric=metric, questions=[{**factor, **question}]).rope

    assert rope(meaningful=0.03) == 0.03
    assert rope() == 0.02
    assert rope(on="test_accuracy") == 0.02
    assert rope(on="learning_curve_area") == 0.005
    assert rope(on="test_loss") is None


def test_family_has_a_contrast_per_level_and_pair_of_levels():
    factors = {"model.depth": (2, 3, 4), "model.normalization": ("none", "batch", "layer")}
    questions = [{"effect": "model.depth"}, {"interaction": ["model.depth", "model.normalization"]}]
    plan = make_plan(factors=factors, questions=questions, seeds=3)

    answers = analyse(plan, make_runs(plan)).answers

    assert len(answers) == 2 + 4
    assert {answer.comparisons for answer in answers} == {6}
    assert answers[0].effect.interval.level == pytest.approx(1 - 0.05 / 6)


def test_baseline_need_not_have_the_first_level():
    plan = make_plan(factors={"model.depth": (2, 3, 4)}, baseline={"model.depth": 3})

    answers = analyse(plan, make_runs(plan)).answers

    assert [(answer.changes[0].before, answer.changes[0].after) for answer in answers] == [(3, 2), (3, 4)]


def test_effect_is_averaged_over_the_other_factors_levels_in_each_seed():
    plan = make_plan()
    runs = make_runs(plan)
    accuracy = {(run.planned.variant, run.planned.seed): run.metrics["test_accuracy"] for run in runs}

    answer = analyse(plan, runs).answers[1]

    def of(depth: int, normalization: str) -> float:
        return accuracy[f"depth={depth},normalization={normalization}", 3]

    expected = (of(2, "batch") - of(2, "none") + of(3, "batch") - of(3, "none")) / 2
    assert answer.differences[3].difference == pytest.approx(expected)
    assert len(answer.differences[3].run_ids) == 4


def test_interaction_is_the_difference_of_differences():
    def accuracy(variant: Variant, seed: int) -> float:
        together = variant.levels == {"model.depth": 3, "model.normalization": "batch"}
        return noisy_accuracy(variant, seed) + (0.05 if together else 0.0)

    plan = make_plan(questions=[{"interaction": ["model.depth", "model.normalization"]}])

    answer = only_answer(plan, make_runs(plan, accuracy=accuracy))

    assert answer.verdict is Verdict.BETTER_THAN_SUM
    shallow, deep = answer.simple_effects
    assert answer.effect.mean == pytest.approx(deep.mean - shallow.mean)


def test_one_seed_gives_numbers_and_no_verdict():
    answer = judged(0.03, seeds=1)

    assert answer.verdict is Verdict.ONE_SEED
    assert answer.effect.mean == pytest.approx(0.031)
    assert answer.effect.interval is None


@pytest.mark.parametrize("seeds", [2, 3])
def test_few_seeds_give_an_interval(seeds):
    answer = judged(0.03, seeds=seeds, noise=5.0)

    assert answer.effect.n == seeds
    assert answer.effect.interval is not None
    assert answer.effect.detectable is None  # no difference of a single comparison is found with so few


@pytest.mark.parametrize("outcome", [Outcome.FAILED, None])
def test_contrast_with_a_run_without_result_is_incomplete(outcome):
    plan = make_plan(factors=NORMALIZATION)
    runs = make_runs(plan, accuracy=shifted(0.03), outcomes={(BATCH, 2): outcome})

    answer = only_answer(plan, runs)

    assert answer.verdict is Verdict.INCOMPLETE
    assert answer.effect is None
    assert [(run.variant, run.seed) for run in answer.missing] == [(BATCH, 2)]
    assert [difference.seed for difference in answer.differences] == [0, 1, 3, 4]


def test_run_whose_metric_is_not_a_number_is_incomplete():
    plan = make_plan(factors=NORMALIZATION)
    first, *others = make_runs(plan, accuracy=shifted(0.03))

    answer = only_answer(plan, [replaced_metrics(first, test_accuracy=math.nan), *others])

    assert answer.verdict is Verdict.INCOMPLETE
    assert answer.missing[0].reason == "recorded no test_accuracy"


def test_contrast_with_a_diverged_run_is_unstable_and_compares_rates():
    plan = make_plan(factors=NORMALIZATION)
    outcomes = {(BATCH, 1): Outcome.DIVERGED, (BATCH, 2): Outcome.DIVERGED}

    answer = only_answer(plan, make_runs(plan, accuracy=shifted(0.03), outcomes=outcomes))

    assert answer.verdict is Verdict.UNSTABLE
    assert answer.effect is None
    assert [(rate.unstable, rate.n) for rate in answer.instability.rates] == [(2, 5), (0, 5)]
    assert answer.instability.p_value == pytest.approx(0.5)


def test_run_at_chance_has_collapsed_and_makes_its_contrast_unstable():
    plan = make_plan(factors=NORMALIZATION)
    accuracy = shifted(0.03)

    def collapsing(variant: Variant, seed: int) -> float:
        return 0.29 if (variant.name, seed) == (NONE, 4) else accuracy(variant, seed)

    analysis = analyse(plan, make_runs(plan, accuracy=collapsing))

    assert analysis.answers[0].verdict is Verdict.UNSTABLE
    assert analysis.diagnostics.collapsed == (f"{NONE}/seed-4",)
    assert [row.collapsed for row in analysis.variants] == [1, 0]
    assert {} == analysis.variants[1].differences


def answering(run: RecordedRun, *, first: int, second: int) -> RecordedRun:
    """Return a run whose model answers so many test images with the first class, and so many with the second."""
    rows = ((first // 2, second // 2, 0, 0), (first - first // 2, second - second // 2, 0, 0), (0,) * 4, (0,) * 4)
    return dataclasses.replace(run, confusion={**run.confusion, "test": rows})


def test_a_poor_model_that_tells_classes_apart_has_not_collapsed():
    plan = make_plan(factors=NORMALIZATION)
    runs = [answering(run, first=94, second=6) for run in make_runs(plan, accuracy=lambda *_: 0.29)]

    analysis = analyse(plan, runs)

    assert analysis.diagnostics.collapsed == ()
    assert analysis.answers[0].verdict is not Verdict.UNSTABLE


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 0.5), st.integers(0, 200), st.integers(0, 200))
def test_a_run_has_collapsed_where_it_is_at_chance_and_hardly_answers_but_one_class(accuracy, margin, first, second):
    plan = make_plan(factors=NORMALIZATION)
    plan = dataclasses.replace(plan, locked=dataclasses.replace(plan.locked, collapse_margin=margin))
    run = answering(make_runs(plan, accuracy=lambda *_: accuracy)[0], first=first, second=second)
    without = dataclasses.replace(run, confusion={})

    is_at_chance = accuracy <= LARGEST_CLASS_SHARE + margin
    assert has_collapsed(plan, run) == (is_at_chance and max(first, second) >= 0.95 * (first + second))
    assert has_collapsed(plan, without) == is_at_chance


def test_failed_run_counts_before_instability():
    plan = make_plan(factors=NORMALIZATION)
    outcomes = {(BATCH, 1): Outcome.DIVERGED, (BATCH, 2): Outcome.FAILED}

    answer = only_answer(plan, make_runs(plan, outcomes=outcomes))

    assert answer.verdict is Verdict.INCOMPLETE
    assert answer.instability is not None


def test_only_contrasts_that_need_the_failed_run_are_incomplete():
    factors = {"model.depth": (2, 3, 4)}
    plan = make_plan(factors=factors)

    answers = analyse(plan, make_runs(plan, outcomes={("depth=4", 0): Outcome.FAILED})).answers

    assert answers[0].verdict is not Verdict.INCOMPLETE
    assert answers[1].verdict is Verdict.INCOMPLETE


def test_seeds_planned_for_one_variant_alone_are_not_compared_and_leave_the_look_unjudged():
    plan = make_plan(factors=NORMALIZATION)
    fewer = tuple(run for run in plan.runs if (run.variant, run.seed) != (BATCH, 4))
    unbalanced = dataclasses.replace(plan, runs=fewer)

    answer = only_answer(unbalanced, make_runs(unbalanced, accuracy=shifted(0.03)))

    assert answer.effect.n == 4
    assert (answer.verdict, answer.look.number) == (Verdict.UNDECIDED, 0)


def test_three_identical_seeds_give_no_verdict_and_a_warning():
    plan = make_plan(factors=NORMALIZATION, seeds=3)
    by_variant = {run.planned.variant: run.metrics for run in make_runs(plan, accuracy=shifted(0.03))}
    runs = [dataclasses.replace(run, metrics=by_variant[run.planned.variant]) for run in make_runs(plan)]

    analysis = analyse(plan, runs)

    assert analysis.answers[0].verdict is Verdict.NO_VARIATION
    assert analysis.answers[0].effect.interval is None
    assert [equal.seeds for equal in analysis.diagnostics.equal_seeds] == [(0, 1, 2), (0, 1, 2)]


def test_two_identical_seeds_among_others_give_no_verdict():
    plan = make_plan(factors=NORMALIZATION)
    runs = make_runs(plan, accuracy=shifted(0.03))
    copied = next(run.metrics for run in runs if (run.planned.variant, run.planned.seed) == (BATCH, 0))
    runs = [
        dataclasses.replace(run, metrics=copied) if (run.planned.variant, run.planned.seed) == (BATCH, 3) else run
        for run in runs
    ]

    answer = only_answer(plan, runs)

    assert answer.verdict is Verdict.NO_VARIATION
    assert answer.repeated_seeds == (0, 3)


def test_a_comparison_of_repeated_seeds_leaves_its_alpha_to_nobody():
    plan = make_plan()
    runs = make_runs(plan)
    first = {run.planned.variant: run.metrics for run in runs if run.planned.seed == 0}
    batch = {variant.name for variant in plan.variants if variant.levels["model.normalization"] == "batch"}
    repeated = [
        dataclasses.replace(run, metrics=first[run.planned.variant])
        if run.planned.seed == 1 and run.planned.variant in batch and "depth=3" in run.planned.variant
        else run
        for run in runs
    ]

    found = analyse(plan, repeated).answers

    assert [Verdict.NO_VARIATION] * 2 == [answer.verdict for answer in found]
    assert ["no variation"] * 2 == [answer.look.state for answer in found]
    assert [0.025] * 2 == [answer.look.alpha for answer in found]


def test_an_added_seed_that_collapsed_is_said_and_counted():
    plan = make_plan(factors=NORMALIZATION, seeds=4, locked_seeds=3)

    answer = only_answer(plan, make_runs(plan, outcomes={(BATCH, 3): Outcome.DIVERGED}))

    assert answer.verdict is Verdict.UNSTABLE
    assert "1 of 4" in sentence(answer)


def test_variants_equal_in_every_number_ask_whether_the_factor_reaches_the_model():
    plan = make_plan(factors=NORMALIZATION, seeds=3)

    answer = only_answer(plan, alike(plan))

    assert answer.is_identical
    assert answer.verdict is Verdict.NO_VARIATION
    assert sentence(answer).startswith(
        "normalization none → batch, no variation, no verdict: test accuracy is the same in every seed; "
        "both gave identical results: does this factor reach the model?"
    )


def test_one_seed_is_enough_to_ask_whether_a_factor_reaches_the_model():
    plan = make_plan(factors=NORMALIZATION, seeds=1)

    assert "both gave identical results: does this factor reach the model?" in sentence(only_answer(plan, alike(plan)))


@pytest.mark.parametrize("name", ["test_loss", "final_train_accuracy"])
def test_one_other_number_in_one_seed_shows_that_the_factor_reaches_the_model(name):
    plan = make_plan(factors=NORMALIZATION, seeds=3)
    first, *others = alike(plan)
    runs = [dataclasses.replace(first, metrics={**first.metrics, name: first.metrics[name] + 1e-9}), *others]

    answer = only_answer(plan, runs)

    assert not answer.is_identical
    assert "does this factor reach the model?" not in sentence(answer)


def test_costs_alone_make_no_difference():
    plan = make_plan(factors=NORMALIZATION, seeds=3)
    runs = [
        dataclasses.replace(run, metrics={**run.metrics, "training_seconds": float(index), "fit_time": float(index)})
        for index, run in enumerate(alike(plan))
    ]

    assert only_answer(plan, runs).is_identical


def test_an_answer_on_times_keeps_its_numbers():
    plan = make_plan(factors=NORMALIZATION, questions=[{"effect": "model.normalization", "on": "training_seconds"}])
    runs = [replaced_metrics(run, training_seconds=float(index**2)) for index, run in enumerate(alike(plan))]

    answer = only_answer(plan, runs)

    assert not answer.is_identical
    assert "interval: " in sentence(answer)


def test_a_factor_that_nothing_reads_beside_others_is_asked_about_alone():
    plan = make_plan()
    runs = make_runs(plan)
    by_rest = {(run.planned.variant.split(",")[1], run.planned.seed): run for run in runs}
    runs = [
        dataclasses.replace(run, metrics=twin.metrics, curves=twin.curves)
        for run in runs
        if (twin := by_rest[run.planned.variant.split(",")[1], run.planned.seed])
    ]

    depth, normalization = analyse(plan, runs).answers

    assert (True, False) == (depth.is_identical, normalization.is_identical)


def test_equal_differences_of_different_runs_give_no_certainty():
    answer = judged(0.03, noise=0.0)

    assert answer.verdict is Verdict.NO_VARIATION
    assert answer.repeated_seeds == ()


def test_words_tell_a_difference_that_does_not_vary_from_seeds_that_do_not():
    plan = make_plan(factors=NORMALIZATION, seeds=3)
    by_variant = {run.planned.variant: run.metrics for run in make_runs(plan, accuracy=shifted(0.03))}
    repeated = [dataclasses.replace(run, metrics=by_variant[run.planned.variant]) for run in make_runs(plan)]

    same_difference, same_seeds = judged(0.03, noise=0.0), only_answer(plan, repeated)

    assert {"no variation: no verdict"} == {same_difference.verdict.value, same_seeds.verdict.value}
    assert "The difference is identical in every seed, so there is no estimate of noise." in sentence(same_difference)
    assert "Seeds 0, 1, 2 repeat each other in every number" in sentence(same_seeds)
    assert "repeat each other" not in sentence(same_difference)


def test_grown_study_needs_an_e_value_above_five_comparisons_over_alpha():
    found, sure = judged(0.006, locked_seeds=3), judged(0.03, seeds=8, locked_seeds=3)

    assert found.effect.interval.low > 0
    assert found.effect.e_value < found.decisive_e_value == pytest.approx(5 / 0.05)
    assert found.verdict is Verdict.UNDECIDED
    assert sure.effect.e_value > 5 / 0.05
    assert (sure.verdict, sure.is_grown, sure.is_meaningful) == (Verdict.HELPS, True, True)


def test_grown_study_calls_too_small_what_the_confidence_sequence_holds_inside_the_rope():
    few, many = (judged(0.0, seeds=seeds, noise=0.5, locked_seeds=3) for seeds in (5, 8))
    sequence = confidence_sequence([0.5 * noise for noise in NOISE], alpha=0.05 / 5)

    assert few.verdict is Verdict.UNDECIDED
    assert (many.effect.interval.low, many.effect.interval.high) == pytest.approx(sequence)
    assert many.effect.interval.high < 0.005
    assert many.verdict is Verdict.NO_MEANINGFUL_DIFFERENCE


def test_seeds_too_few_for_any_interval_beyond_the_plan_are_said_to_be_too_few():
    answer = judged(0.03, seeds=4, locked_seeds=1)

    assert (answer.verdict, answer.effect.interval) == (Verdict.UNDECIDED, None)
    assert "4 seeds are too few for an interval that holds however many are added" in sentence(answer)


def test_an_e_value_that_fell_below_what_is_needed_again_is_said_to_have_been_above_it():
    shifts = (0.03, 0.031, 0.029, 0.03, 0.0305, 0.0295, 0.03, 0.031, 0.2, -0.1)
    plan = make_plan(factors=NORMALIZATION, seeds=10, locked_seeds=3)

    answer = only_answer(
        plan, make_runs(plan, accuracy=lambda variant, seed: 0.5 + (variant.name == BATCH) * shifts[seed])
    )

    assert answer.effect.e_value < answer.decisive_e_value
    assert answer.verdict is Verdict.HELPS
    assert f"with fewer seeds it was above the 100 needed, and is {answer.effect.e_value:.3g} now" in sentence(answer)


def test_a_study_of_an_earlier_version_says_where_its_verdict_was_another():
    # 3 seeds: helps by their t interval, fragile by the rule of planned looks.
    plan = make_plan(factors=NORMALIZATION, seeds=3)
    runs = make_runs(plan, accuracy=shifted(0.03))
    differences = [0.03 + noise for noise in NOISE[:3]]
    assert stats.ttest_1samp(differences, 0).pvalue < 0.05

    family = tuple(map(contrast_name, contrasts_of(plan)))

    earlier, now = (only_answer(each, runs) for each in (plan, dataclasses.replace(plan, family=family)))

    assert (earlier.verdict, earlier.earlier_verdict) == (Verdict.UNDECIDED, Verdict.HELPS)
    assert "Versions before planned looks called this “helps”." in sentence(earlier)
    assert (now.verdict, now.earlier_verdict) == (Verdict.UNDECIDED, None)


def test_a_grown_study_of_an_earlier_version_says_where_its_verdict_was_another():
    # An e-value above m / alpha sufficed; now 5 m / alpha is needed.
    plan = make_plan(factors=NORMALIZATION, seeds=5, locked_seeds=3)

    answer = only_answer(plan, make_runs(plan, accuracy=shifted(0.02)))

    assert 1 / 0.05 < answer.effect.e_value < 5 / 0.05
    assert (answer.verdict, answer.earlier_verdict) == (Verdict.UNDECIDED, Verdict.HELPS)


def test_a_study_of_an_earlier_version_whose_verdicts_are_the_same_says_nothing_of_it():
    answer = judged(0.03)

    assert (answer.verdict, answer.earlier_verdict) == (Verdict.HELPS, None)


def test_mixed_hosts_and_devices_are_reported():
    plan = make_plan(factors=NORMALIZATION)
    first, *others = make_runs(plan)

    analysis = analyse(plan, [dataclasses.replace(first, device="cuda:0", host="node"), *others])

    assert analysis.diagnostics.devices == ("cpu", "cuda:0")
    assert analysis.diagnostics.hosts == ("bench", "node")
    assert analysis.answers[0].cost.seconds is None


def test_study_without_any_result_is_refused():
    with pytest.raises(NoResults):
        analyse(make_plan(), [])


def test_analysis_does_not_depend_on_the_order_of_runs():
    plan = make_plan()
    runs = make_runs(plan, outcomes={("depth=3,normalization=none", 1): Outcome.DIVERGED})

    assert analyse(plan, runs) == analyse(plan, runs[::-1])


def test_answers_do_not_depend_on_the_order_of_variants_and_planned_runs():
    plan = make_plan()
    turned = dataclasses.replace(plan, variants=plan.variants[::-1], runs=plan.runs[::-1])
    runs = make_runs(plan)

    expected, found = analyse(plan, runs).answers, analyse(turned, runs).answers

    assert [answer.verdict for answer in found] == [answer.verdict for answer in expected]
    assert [answer.effect for answer in found] == [answer.effect for answer in expected]


@pytest.mark.parametrize("shift", [0.03, 0.006, -0.03, 0.0])
def test_swapping_the_baseline_turns_helps_into_hurts(shift):
    swapped = {Verdict.HELPS: Verdict.HURTS, Verdict.HURTS: Verdict.HELPS}
    there = judged(shift)
    back = judged(shift, baseline={"model.normalization": "batch"})

    assert back.verdict is swapped.get(there.verdict, there.verdict)
    assert back.is_meaningful == there.is_meaningful
    assert back.effect.mean == pytest.approx(-there.effect.mean)


DIFFERENCES = st.lists(st.floats(-0.1, 0.1).map(lambda value: round(value, 5)), min_size=2, max_size=8)
ROPES = st.one_of(st.none(), st.floats(0.001, 0.1))


def are_no_luck(differences: list[float]) -> bool:
    """Whether seeds are as many as a verdict needs where fewer than three comparisons tell what the noise is."""
    return len(differences) >= 5


def verdict_with(
    differences: list[float], rope: float | None, comparisons: int, *, is_grown: bool
) -> tuple[Verdict, bool | None, Effect]:
    n = len(differences)
    looks, growth = ((1,), (n,)) if is_grown else ((n,), ())
    rule = Rule(looks=looks, growth=growth, alpha=0.05, planned=comparisons, comparisons=comparisons)
    (found,) = stand([Asked(metric="test_accuracy", rope=rope, spread=1.0, seeds=differences)], rule)
    effect = effect_of(differences, direction="maximize", interval=found.interval, alpha=found.alpha)
    verdict = verdict_of(found.state, effect, direction="maximize", is_interaction=False)
    return verdict, is_meaningful(verdict, found.interval, rope), effect


@settings(deadline=None, max_examples=60)
@given(DIFFERENCES, ROPES, st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_more_comparisons_never_loosen_a_verdict(differences, rope, comparisons, more, is_grown):
    before, before_meaningful, _ = verdict_with(differences, rope, comparisons, is_grown=is_grown)
    after, after_meaningful, _ = verdict_with(differences, rope, comparisons + more, is_grown=is_grown)

    if after is Verdict.NO_MEANINGFUL_DIFFERENCE:
        assert before is Verdict.NO_MEANINGFUL_DIFFERENCE
    if after in (Verdict.HELPS, Verdict.HURTS):
        assert before in (after, Verdict.NO_MEANINGFUL_DIFFERENCE)
    if after_meaningful:
        assert (before, before_meaningful) == (after, True)
    if before is Verdict.UNDECIDED:
        assert after is Verdict.UNDECIDED


@settings(deadline=None, max_examples=60)
@given(DIFFERENCES, ROPES, st.booleans())
def test_turning_every_difference_turns_the_verdict(differences, rope, is_grown):
    verdict, is_meaningful, effect = verdict_with(differences, rope, 3, is_grown=is_grown)
    turned, turned_meaningful, _ = verdict_with([-value for value in differences], rope, 3, is_grown=is_grown)

    opposite = {Verdict.HELPS: Verdict.HURTS, Verdict.HURTS: Verdict.HELPS}
    assert turned is opposite.get(verdict, verdict)
    assert turned_meaningful == is_meaningful
    assert (verdict is Verdict.NO_VARIATION) == (effect.e_value is None)


@settings(deadline=None, max_examples=60)
@given(DIFFERENCES.filter(are_no_luck), st.floats(0.001, 0.1), st.integers(1, 8))
def test_no_meaningful_difference_is_two_one_sided_tests_at_half_of_each_comparisons_alpha(
    differences, rope, comparisons
):
    verdict, _, effect = verdict_with(differences, rope, comparisons, is_grown=False)
    if effect.interval is None:
        return
    above = stats.ttest_1samp(differences, -rope, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, rope, alternative="less").pvalue
    level = 0.05 / comparisons / 2
    if math.isclose(max(above, below), level, rel_tol=1e-6):  # on the border either is right
        return

    assert (verdict is Verdict.NO_MEANINGFUL_DIFFERENCE) == (max(above, below) < level)


@settings(deadline=None, max_examples=60)
@given(DIFFERENCES.filter(are_no_luck), st.integers(1, 8))
def test_interval_and_verdict_are_those_of_scipys_paired_test(differences, comparisons):
    verdict, _, effect = verdict_with(differences, None, comparisons, is_grown=False)
    if effect.interval is None:
        return
    found = stats.ttest_rel(differences, [0.0] * len(differences))
    interval = found.confidence_interval(1 - 0.05 / comparisons)

    assert (effect.interval.low, effect.interval.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    if not math.isclose(found.pvalue, 0.05 / comparisons, rel_tol=1e-6):
        assert (verdict is not Verdict.UNDECIDED) == (found.pvalue < 0.05 / comparisons)
