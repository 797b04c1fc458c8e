"""Holds what the report describes without judging to references: sums by hand, scipy, simulation, properties."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from factories import make_plan, make_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from ablation.analysis import (
    RuleChange,
    Verdict,
    analyse,
    compare_variants,
    contrast_name,
    contrasts_of,
    epoch_table,
    with_rule,
)
from ablation.analysis import statistics as formulas
from ablation.analysis.learning import loss_at
from ablation.errors import NameUnknown
from ablation.records import LeftOut, Outcome, Plan, RecordedRun, Variant

NORMALIZATION = {"model.normalization": ("none", "batch")}
NONE, BATCH = "normalization=none", "normalization=batch"


def with_records(plan: Plan, **values: Mapping[tuple[str, int], Any]) -> list[RecordedRun]:
    """Record every run, fields of it replaced by what is given for its (variant, seed)."""
    return [
        dataclasses.replace(
            run, **{name: given[run.planned.variant, run.planned.seed] for name, given in values.items()}
        )
        for run in make_runs(plan)
    ]


def test_crossed_interval_covers_the_true_difference_as_often_as_it_says():
    random = np.random.default_rng(7)
    seeds, items, repetitions, covered = 5, 60, 600, 0
    for _ in range(repetitions):
        drawn = (
            random.normal(0, 0.5, (seeds, 1))
            + random.normal(0, 1.0, (1, items))
            + random.normal(0, 2.0, (seeds, items))
        )
        found = formulas.crossed_interval(drawn, level=0.95)
        covered += found is not None and found[1].low <= 0 <= found[1].high

    assert covered / repetitions >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / repetitions)


def test_crossed_variance_is_that_of_the_two_way_layout():
    random = np.random.default_rng(3)
    values = random.normal(size=(4, 9)) + random.normal(0, 2.0, size=(1, 9))
    mean, interval, freedom = formulas.crossed_interval(values, level=0.95) or pytest.fail("no interval")

    rows, columns = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    rest = values - rows - columns + values.mean()
    squares = [9 * np.var(rows, ddof=1), 4 * np.var(columns, ddof=1), np.sum(rest**2) / (3 * 8)]
    variance = (squares[0] + squares[1] - squares[2]) / 36
    expected = sum(squares[:2]) - squares[2]
    expected = expected**2 / (squares[0] ** 2 / 3 + squares[1] ** 2 / 8 + squares[2] ** 2 / 24)

    assert mean == pytest.approx(values.mean())
    assert freedom == pytest.approx(expected)
    assert interval.high - mean == pytest.approx(special.stdtrit(expected, 0.975) * np.sqrt(variance))


def test_images_that_vary_no_more_than_the_rest_leave_the_paired_interval_over_seeds():
    values = np.array([[1.0, 2.0, 3.0, 2.0], [3.0, 2.0, 1.0, 2.0], [2.0, 4.0, 2.0, 4.0]])
    _, interval, freedom = formulas.crossed_interval(values, level=0.95) or pytest.fail("no interval")
    paired = formulas.paired_interval(values.mean(1).tolist(), level=0.95)

    assert paired is not None
    assert (2, paired.low, paired.high) == pytest.approx((freedom, interval.low, interval.high))


@settings(deadline=None)
@given(
    st.integers(2, 6).flatmap(
        lambda seeds: st.lists(st.lists(st.integers(-2, 2), min_size=seeds, max_size=seeds), min_size=2, max_size=40)
    ),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_interval_for_other_seeds_and_images_is_never_narrower_than_that_for_other_seeds(images, level):
    values = np.array(images, dtype=float).T / 3
    paired = formulas.paired_interval(values.mean(1).tolist(), level=level)
    crossed = formulas.crossed_interval(values, level=level)

    if paired is not None:
        assert crossed is not None
        widths = [each.high - each.low for each in (crossed[1], paired)]
        assert widths[0] >= widths[1] * (1 - 1e-9)


def test_many_images_lend_few_seeds_no_degrees_of_freedom():
    """Satterthwaite's would be 6.5 here, with three seeds, and the interval a quarter narrower than for other seeds."""
    random = np.random.default_rng(5)
    values = random.normal(0, 3.0, size=(1, 400)) + np.array([[-0.3], [0.0], [0.3]]) + random.normal(size=(3, 400))
    _, interval, freedom = formulas.crossed_interval(values, level=0.95) or pytest.fail("no interval")
    paired = formulas.paired_interval(values.mean(1).tolist(), level=0.95)

    assert paired is not None
    assert (2, paired.high - paired.low) == pytest.approx((freedom, interval.high - interval.low))


def test_crossed_interval_needs_two_seeds_and_two_images():
    assert formulas.crossed_interval(np.ones((1, 5)), level=0.95) is None
    assert formulas.crossed_interval(np.ones((5, 1)), level=0.95) is None
    assert formulas.crossed_interval(np.ones((5, 5)), level=0.95) is None


def test_interaction_is_the_difference_of_differences_in_points_and_logits():
    def accuracy(variant: Variant, seed: int) -> float:
        both = variant.levels == {"model.depth": 3, "model.normalization": "batch"}
        return 0.5 + 0.01 * seed + 0.1 * ("batch" in variant.levels.values()) + 0.2 * both

    plan = make_plan(seeds=3)
    (pair,) = analyse(plan, make_runs(plan, accuracy=accuracy)).factor_pairs
    (found,) = pair.interactions
    logits = [
        special.logit(0.8 + shift)
        - special.logit(0.5 + shift)
        - special.logit(0.6 + shift)
        + special.logit(0.5 + shift)
        for shift in (0.0, 0.01, 0.02)
    ]

    assert found.difference.mean == pytest.approx(0.2)
    assert found.in_logits is not None
    assert found.in_logits.mean == pytest.approx(np.mean(logits))
    assert [0.51, 0.61, 0.51, 0.81] == pytest.approx([cell.mean for cell in pair.cells])


def test_cell_with_a_missing_run_has_no_mean_and_no_interaction():
    plan = make_plan()
    (pair,) = analyse(plan, make_runs(plan, outcomes={("depth=3,normalization=batch", 2): None})).factor_pairs

    assert [False, False, False, True] == [cell.mean is None for cell in pair.cells]
    assert pair.interactions == ()


def test_three_factors_are_averaged_over_the_third():
    factors = {"model.depth": (2, 3), "model.normalization": ("none", "batch"), "model.width": (8, 16)}
    plan = make_plan(factors=factors, seeds=2)
    analysis = analyse(plan, make_runs(plan, accuracy=lambda variant, _: 0.5 + 0.01 * variant.levels["model.width"]))

    assert 3 == len(analysis.factor_pairs)
    assert [0.62] * 4 == pytest.approx([cell.mean for cell in analysis.factor_pairs[0].cells])


def accuracy_curves(values: Mapping[tuple[str, int], list[float]]) -> dict[tuple[str, int], Any]:
    return {
        key: {
            "test_accuracy": tuple(enumerate(curve, start=1)),
            "epoch_seconds": tuple((epoch, 10.0) for epoch in range(1, len(curve) + 1)),
        }
        for key, curve in values.items()
    }


def test_epochs_to_a_target_are_restricted_to_the_last_epoch():
    plan = make_plan(factors=NORMALIZATION, seeds=2)
    curves = accuracy_curves(
        {
            (NONE, 0): [0.5, 0.7, 0.8],
            (NONE, 1): [0.6, 0.7, 0.8],
            (BATCH, 0): [0.8, 0.8, 0.8],
            (BATCH, 1): [0.1, 0.1, 0.1],
        }
    )
    target = analyse(plan, with_records(plan, curves=curves)).targets[-1]
    baseline, other = target.rows

    assert (1.0, 0.8) == (target.share_of_baseline, target.value)
    assert (2, 1) == (baseline.reached, other.reached)
    assert (3.0, 2.0) == (baseline.epochs.mean, other.epochs.mean)
    assert (30.0, 20.0) == (baseline.seconds and baseline.seconds.mean, other.seconds and other.seconds.mean)
    assert other.epochs_difference is not None
    assert -1.0 == other.epochs_difference.mean


def test_seconds_to_a_target_are_not_compared_between_hosts():
    plan = make_plan(factors=NORMALIZATION, seeds=2)
    runs = [dataclasses.replace(run, host=f"host {run.planned.seed}") for run in make_runs(plan)]

    rows = [row for target in analyse(plan, runs).targets for row in target.rows]

    assert all(row.seconds is None and row.seconds_difference is None for row in rows)


def test_loss_at_a_level_is_interpolated_between_the_epochs_around_it():
    train, heldout = ((1, 2.0), (2, 1.0), (3, 0.5)), ((1, 3.0), (2, 2.0), (3, 4.0))

    assert 2.5 == loss_at(train, heldout, 1.5)
    assert 2.0 == loss_at(train, heldout, 1.0)
    assert 3.0 == loss_at(train, heldout, 2.0)
    assert loss_at(train, heldout, 0.4) is None
    assert loss_at(train, heldout, 2.1) is None


def test_losses_are_matched_at_the_lowest_training_loss_that_all_runs_reached():
    plan = make_plan(factors=NORMALIZATION, seeds=2)
    slow, fast = ((1, 2.0), (2, 1.0)), ((1, 1.5), (2, 0.5))
    rising = ((1, 1.0), (2, 2.0))
    curves = {
        (variant, seed): {"train_sample_loss": slow if variant == NONE else fast, "test_loss": rising}
        for variant, seed in itertools.product((NONE, BATCH), (0, 1))
    }
    (found,) = analyse(plan, with_records(plan, curves=curves)).matched_losses

    assert 1.0 == found.train_loss
    assert (1.5, 2.0, -0.5) == (found.heldout_loss, found.baseline_heldout_loss, found.difference.mean)


def test_best_epoch_is_optimistic_by_what_it_is_above_the_last():
    plan = make_plan(factors=NORMALIZATION, seeds=2)
    values = {key: [0.5, 0.9, 0.8] for key in itertools.product((NONE, BATCH), (0, 1))}
    found = analyse(plan, with_records(plan, curves=accuracy_curves(values))).best_epochs[0]

    assert (0.8, 0.9, 2.0) == pytest.approx((found.last, found.best, found.median_epoch))
    assert 0.1 == pytest.approx(found.optimism.mean)


def test_confusion_difference_stands_beside_what_other_seeds_do():
    plan = make_plan(factors=NORMALIZATION, seeds=2, classes=("a", "b"))
    counts = {
        (NONE, 0): ((8, 2), (0, 10)),
        (NONE, 1): ((6, 4), (0, 10)),
        (BATCH, 0): ((9, 1), (0, 10)),
        (BATCH, 1): ((9, 1), (0, 10)),
    }
    confusion = {key: {"test": rows} for key, rows in counts.items()}
    (found,) = analyse(plan, with_records(plan, confusion=confusion)).confusion_differences

    assert ((0.2, -0.2), (0.0, 0.0)) == tuple(pytest.approx(row) for row in found.difference)
    assert found.reseeding is not None
    assert 0.1 == pytest.approx(found.reseeding[0][0])  # √((0.02 + 0) / 2)
    assert found.size == pytest.approx(np.sqrt(0.08 / 4))


def test_matrix_of_another_size_is_left_out():
    plan = make_plan(factors=NORMALIZATION, seeds=1, classes=("a", "b"))
    confusion = {(NONE, 0): {"test": ((1, 0, 0),) * 3}, (BATCH, 0): {"test": ((1, 0), (0, 1))}}
    analysis = analyse(plan, with_records(plan, confusion=confusion))

    assert [BATCH] == [matrix.variant for matrix in analysis.confusion]
    assert analysis.confusion_differences == ()


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.text("01", min_size=12, max_size=12), min_size=2, max_size=6))
def test_disagreement_between_seeds_is_the_mean_over_their_pairs(answers):
    plan = make_plan(factors=NORMALIZATION, seeds=len(answers))
    kept = {(variant, seed): text for variant in (NONE, BATCH) for seed, text in enumerate(answers)}
    found = analyse(plan, with_records(plan, test_correct=kept)).disagreements
    pairs = [np.mean([a != b for a, b in zip(*pair, strict=True)]) for pair in itertools.combinations(answers, 2)]

    assert found[0].between_seeds == pytest.approx(np.mean(pairs))
    assert 0.0 == found[1].with_baseline


def test_answers_of_unequal_length_are_not_crossed():
    plan = make_plan(factors=NORMALIZATION, seeds=2)
    kept = {(variant, seed): "01" * (5 + seed) for variant in (NONE, BATCH) for seed in (0, 1)}
    analysis = analyse(plan, with_records(plan, test_correct=kept))

    assert analysis.answers[0].crossed is None
    assert analysis.disagreements[0].between_seeds is None


def test_effect_on_new_images_has_the_mean_of_all_seeds_and_images():
    plan = make_plan(factors=NORMALIZATION, seeds=2)
    kept = {(NONE, 0): "0011", (NONE, 1): "0111", (BATCH, 0): "1011", (BATCH, 1): "1111"}
    crossed = analyse(plan, with_records(plan, test_correct=kept)).answers[0].crossed

    assert crossed is not None
    assert (0.25, 2, 4) == (crossed.mean, crossed.seeds, crossed.images)


@pytest.mark.slow
def test_placebo_that_only_draws_the_streams_anew_gives_no_evidence():
    """Two levels whose runs differ by chance alone: from run table to verdict, e-values included."""
    repetitions, alpha = 200, 0.05
    random = np.random.default_rng(11)
    plan = make_plan(factors={"placebo": (0, 1)}, seeds=5, alpha=alpha)
    judged = decisive = 0
    for _ in range(repetitions):
        runs = make_runs(plan, accuracy=lambda *_: 0.8 + 0.01 * float(random.standard_normal()))
        (answer,) = analyse(plan, runs).answers
        judged += answer.verdict in (Verdict.HELPS, Verdict.HURTS)
        decisive += bool(answer.effect and answer.effect.e_value and answer.effect.e_value > answer.decisive_e_value)

    assert judged / repetitions <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / repetitions)
    assert decisive / repetitions <= alpha


def test_changed_rule_is_a_deviation_and_judges_anew():
    plan = make_plan(factors=NORMALIZATION)
    wide = analyse(with_rule(plan, RuleChange(meaningful=0.2)), make_runs(plan))

    assert Verdict.NO_MEANINGFUL_DIFFERENCE is wide.answers[0].verdict
    assert ("meaningful changed from 0.005 to 0.2 by this summary, after results could be seen",) == wide.deviations
    assert plan.locked_hash == wide.plan_hash


NORM = {"effect": "model.normalization"}


def ropes(change: RuleChange, *questions: Mapping[str, Any], **metric: Any) -> tuple[list[float | None], list[str]]:
    """Return the ROPE of each question by a changed rule, and the deviations without what they all say."""
    chosen = {"name": "test_accuracy", "direction": "maximize", "meaningful": 0.02, **metric}
    plan = make_plan(factors=NORMALIZATION, metric=chosen, questions=questions)
    changed = with_rule(plan, change)
    answers = analyse(changed, make_runs(plan)).answers
    said = [text.replace(" by this summary, after results could be seen", "") for text in changed.deviations]
    return [answer.rope for answer in answers], said


def test_a_questions_rope_in_the_old_metrics_unit_is_left_out_with_the_metric():
    found, said = ropes(RuleChange(metric="test_loss"), {**NORM, "meaningful": 0.03})

    assert [None] == found
    assert said[-1] == "meaningful of the effect of model.normalization, 0.03, left out: it was that of test_accuracy"


def test_questions_on_a_metric_that_they_name_keep_their_rope_when_the_studys_metric_changes():
    on = [{**NORM, "on": "test_accuracy"}, {**NORM, "on": "test_loss", "meaningful": 0.1}, NORM]

    assert [0.02, 0.1, None] == ropes(RuleChange(metric="test_loss"), *on)[0]
    assert [None, 0.1, None] == ropes(RuleChange(metric="test_loss"), *on, meaningful=None)[0]


def test_a_rope_given_to_a_summary_is_said_to_apply_where_it_does():
    others = [{**NORM, "meaningful": 0.03}, {**NORM, "on": "test_loss"}]
    mixed = ropes(RuleChange(meaningful=0.2), NORM, *others)
    none = ropes(RuleChange(meaningful=0.2), *others)
    taken = ropes(RuleChange(meaningful=0.2, metric="test_loss"), *others)

    assert mixed == (
        [0.2, 0.03, None],
        [
            "meaningful changed from 0.02 to 0.2; not for the effect of model.normalization, the effect of "
            "model.normalization on test_loss: on another metric, or with a meaningful of its own"
        ],
    )
    assert none == ([0.03, None], ["meaningful of 0.2 was asked for, and applies to no question"])
    assert [0.2, 0.2] == taken[0]


def test_a_planned_comparison_stays_planned_beside_another_metric():
    """It would be judged as added after results, by the e-value and an alpha of its own."""
    plan = make_plan(questions=[{**NORM, "on": "test_accuracy"}, {"effect": "model.depth", "on": "test_loss"}])
    plan = dataclasses.replace(plan, family=tuple(map(contrast_name, contrasts_of(plan))))

    answers = analyse(with_rule(plan, RuleChange(metric="test_loss")), make_runs(plan)).answers

    assert [(False, 2)] * 2 == [(answer.look.is_added, answer.comparisons) for answer in answers]
    assert answers[0].look.alpha == analyse(plan, make_runs(plan)).answers[0].look.alpha


def test_rule_that_changes_nothing_is_no_deviation():
    plan = make_plan()

    assert plan == with_rule(plan, RuleChange(metric="test_accuracy", meaningful=0.005, alpha=0.05))


def test_comparison_of_two_variants_is_paired_and_turns_with_their_order():
    plan = make_plan(seeds=4)
    runs = make_runs(plan)
    one = compare_variants(plan, runs, "depth=2,normalization=none", "depth=3,normalization=batch")
    other = compare_variants(plan, runs, "depth=3,normalization=batch", "depth=2,normalization=none")

    for there, back in zip(one.metrics, other.metrics, strict=True):
        assert there.difference is not None
        assert back.difference is not None
        assert there.difference.mean == -back.difference.mean
        assert there.difference.n == 4


def test_comparison_with_a_hole_withholds_differences_and_says_which():
    plan = make_plan(factors=NORMALIZATION)
    runs = make_runs(plan, outcomes={(BATCH, 1): None, (NONE, 2): Outcome.DIVERGED})
    comparison = compare_variants(plan, runs, NONE, BATCH)

    assert (f"{NONE} diverged with seed 2", f"{BATCH} has no result with seed 1") == comparison.withheld
    assert all(row.difference is None for row in comparison.metrics)


def test_unknown_variant_is_named_with_the_near_ones():
    plan = make_plan(factors=NORMALIZATION)

    with pytest.raises(NameUnknown, match="did you mean 'normalization=batch'"):
        compare_variants(plan, make_runs(plan), NONE, "normalization=bach")


def test_left_out_and_damaged_runs_are_listed():
    plan = make_plan(factors=NORMALIZATION)
    problems = {(NONE, 0): ("evaluation.json is missing",)} | {
        (variant, seed): () for variant in (NONE, BATCH) for seed in range(5) if (variant, seed) != (NONE, 0)
    }
    stranger = LeftOut(run_id="r", name="somebody's", reason="not planned")
    found = analyse(plan, with_records(plan, problems=problems), left_out=[stranger]).diagnostics

    assert (stranger,) == found.left_out
    assert [(NONE, 0)] == [(record.variant, record.seed) for record in found.damaged]


def test_epoch_table_has_a_row_per_run_and_epoch():
    plan = make_plan(seeds=2)
    table = epoch_table(plan, make_runs(plan))

    assert 2 * 4 * 4 == len(table)
    assert {"variant", "seed", "run_id", "model.depth", "epoch", "test_accuracy", "train_loss"} <= set(table)
