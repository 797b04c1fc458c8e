"""Holds what answers say to what was measured: no sentence that its numbers do not bear out, whatever they are."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from factories import make_plan, make_runs, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from ablation.analysis import Analysis, Answer, Verdict, analyse
from ablation.analysis.answer_records import Difference, Interplay, Interval
from ablation.analysis.joint import interplay
from ablation.analysis.statistics import e_value, largest_e_value
from ablation.records import SIGNS, TASKS, Outcome, Plan, RecordedRun, Variant
from ablation.report import answer_summaries, answers_text, report_text, sentence
from ablation.report.figures.forest import forest_drawings
from ablation.report.figures.panels import scale_over
from ablation.report.marks import MARKS
from ablation.report.prose import headline, overview
from ablation.report.tables import scorecard
from ablation.study import load_study
from ablation.tracking.mlflow.notes import escaped, study_note

METRICS = TASKS["classification"].metrics

DEPTH, NORM = "model.depth", "model.normalization"
INTERACTION = {"interaction": [DEPTH, NORM]}
WOBBLE = (0.0, 0.003, -0.003, 0.006, -0.006, 0.0045, -0.0045, 0.0015)
Cells = Mapping[tuple[int, str], float]
effects = st.floats(-0.08, 0.08).map(lambda effect: round(effect, 3))


def cells(depth: float, norm: float, both: float, start: float = 0.6) -> Cells:
    """Return the accuracy of each variant from each change alone and both together, all against neither."""
    return {(2, "none"): start, (3, "none"): start + depth, (2, "batch"): start + norm, (3, "batch"): start + both}


def study(
    means: Cells, *, seeds: int = 8, rope: float | None = 0.005, **options: object
) -> tuple[Plan, list[RecordedRun]]:
    """Make a study of depth and normalization whose variants have these accuracies, each seed a little off them."""
    metric = {"name": "test_accuracy", "direction": "maximize", "meaningful": rope}
    plan = make_plan(seeds=seeds, metric=metric, **options)

    def accuracy(variant: Variant, seed: int) -> float:
        depth, norm = variant.levels[DEPTH], variant.levels[NORM]
        turn = 3 * (depth == 3) + 2 * (norm == "batch")
        return means[depth, norm] + WOBBLE[(seed + turn) % len(WOBBLE)]

    return plan, make_runs(plan, accuracy=accuracy)


def analysed(means: Cells, **options: object) -> Analysis:
    return analyse(*study(means, **options))


def norm_of(found: Analysis) -> Answer:
    return next(answer for answer in found.answers if answer.changes[0].factor == NORM)


def paired(runs: list[RecordedRun], weights: Mapping[tuple[int, str], float], to: Callable[[float], float] = float):
    """Return the weighted sums of accuracies by seed, and their 95 % t interval."""
    by_seed: dict[int, float] = {}
    for run in runs:
        name = run.planned.variant
        key = (3 if "depth=3" in name else 2, "batch" if "batch" in name else "none")
        value = weights.get(key, 0) * to(run.metrics["test_accuracy"])
        by_seed[run.planned.seed] = by_seed.get(run.planned.seed, 0.0) + value
    values = list(by_seed.values())
    low, high = stats.t.interval(
        0.95, len(values) - 1, *(float(each) for each in (sum(values) / len(values), stats.sem(values)))
    )
    return sum(values) / len(values), low, high


def test_a_crossover_is_the_headline() -> None:
    found = analysed(cells(depth=0.04, norm=0.03, both=0.01))

    expected = "normalization none → batch differs by depth: +3.00 points at 2, −3.00 at 3"
    expected += " (on average no meaningful difference)"
    assert headline(norm_of(found)) == expected
    assert expected in overview(found)[0]
    assert expected in answers_text(found)
    for kind in ("markdown", "html", "latex", "latex-wide"):
        assert "differs by " in report_text(found, kind).replace("&nbsp;", " ")
    assert [answer["is_crossover"] for answer in json.loads(report_text(found, "json"))["answers"]] == [True, True]
    assert '<details class="row crossover">' in report_text(found, "html")


@settings(deadline=None, max_examples=20)
@given(effects, effects, st.sampled_from([None, 0.005, 0.03]))
def test_a_headline_names_a_crossover_where_effects_surely_go_both_ways_and_nowhere_else(shallow, deep, rope) -> None:
    means = cells(depth=0.02, norm=shallow, both=0.02 + deep)
    plan, runs = study(means, rope=rope)
    answer = norm_of(analyse(plan, runs))

    signs = set()
    for depth in (2, 3):
        mean, low, high = paired(runs, {(depth, "batch"): 1, (depth, "none"): -1})
        signs.add((int(low > 0) - int(high < 0)) * (abs(mean) > (rope or 0)))
    assert answer.is_crossover == ({1, -1} <= signs)
    assert (" differs by depth: " in headline(answer)) == answer.is_crossover
    if answer.is_crossover:
        named = dict(re.findall(r"([+−])[\d.]+(?: points)? at (\d)", headline(answer)))
        assert named == {"+": "2", "−": "3"} if shallow > 0 else named == {"+": "3", "−": "2"}
        assert " on average" in sentence(answer).partition(": ")[2]


@pytest.mark.parametrize(
    ("depth", "norm", "both", "words"),
    [
        (0.03, 0.04, 0.10, "reinforce each other"),
        (0.03, 0.04, 0.05, "overlap each other"),
        (0.03, 0.04, -0.02, "work against each other"),
        (-0.03, -0.04, -0.10, "reinforce each other"),
        (-0.03, -0.04, -0.05, "overlap each other"),
        (-0.03, -0.04, 0.02, "work against each other"),
        (0.03, -0.04, 0.05, "oppose each other and do not add up"),
        (0.03, -0.04, -0.05, "oppose each other and do not add up"),
        (0.0, 0.0, 0.05, "do not add up"),
    ],
)
def test_two_effects_are_called_by_what_they_do_together(depth: float, norm: float, both: float, words: str) -> None:
    (answer,) = analysed(cells(depth, norm, both), questions=[INTERACTION]).answers

    assert headline(answer) == f"depth 2 → 3 and normalization none → batch {words}"
    assert answer.verdict in (Verdict.BETTER_THAN_SUM, Verdict.WORSE_THAN_SUM)


def test_an_interaction_of_two_changes_that_hurt_is_told_with_what_both_do() -> None:
    (answer,) = analysed(cells(depth=-0.05, norm=-0.06, both=-0.08), questions=[INTERACTION]).answers

    assert sentence(answer).startswith(
        "depth 2 → 3 and normalization none → batch overlap each other: test accuracy is 3.00 points higher than the "
        "sum of both effects (95 % interval: 2.75 to 3.25 points higher), higher in 8 of 8 seeds. Both together: 8.00 "
        "points lower (95 %: 7.34 to 8.66 points lower); alone: 5.00 points lower (depth 2 → 3) and 6.00 points lower "
        "(normalization none → batch)."
    )
    assert "better" not in sentence(answer)


@settings(deadline=None, max_examples=20)
@given(effects, effects, effects)
def test_what_an_interaction_is_called_is_borne_out_by_its_effects(depth, norm, both) -> None:
    plan, runs = study(cells(depth, norm, both), questions=[INTERACTION])
    (answer,) = analyse(plan, runs).answers
    text = sentence(answer)

    assert (answer.joint is None) == (answer.effect is None or answer.effect.interval is None)
    if answer.joint is None:
        return
    neither = {(2, "none"): -1}
    combined = paired(runs, {(3, "batch"): 1, **neither})[0]
    alone = [paired(runs, {corner: 1, **neither})[0] for corner in ((3, "none"), (2, "batch"))]
    assert "Both together: " in text
    assert answer.joint.combined.mean == pytest.approx(combined, abs=1e-12)
    assert " better " not in text
    if "reinforce" in text:
        assert min(alone) > 0 or max(alone) < 0
        assert abs(combined) > abs(sum(alone))
    if "overlap" in text:
        assert min(alone) > 0 or max(alone) < 0
        assert 0 < combined / sum(alone) < 1
    if "work against" in text:
        assert combined / sum(alone) <= 0
    if "oppose" in text:
        assert alone[0] * alone[1] < 0
    is_named = answer.verdict in (Verdict.BETTER_THAN_SUM, Verdict.WORSE_THAN_SUM)
    assert any(each.value in headline(answer) for each in Interplay) == is_named


def of_sign(sign: int) -> Difference:
    low, high = {1: (1.0, 3.0), -1: (-3.0, -1.0), 0: (-1.0, 2.0)}[sign]
    return Difference(n=5, mean=(low + high) / 2, interval=Interval(low=low, high=high, level=0.95))


signs = st.sampled_from([-1, 0, 1])


@given(signs, signs, st.sampled_from([-1, 1]), signs)
def test_turning_the_metric_round_changes_no_name_of_an_interaction(first, second, interaction, combined) -> None:
    found = interplay(of_sign(first), of_sign(second), interaction, of_sign(combined))
    swapped = interplay(of_sign(second), of_sign(first), interaction, of_sign(combined))
    if 0 not in (first, second, combined):
        assert found is interplay(of_sign(-first), of_sign(-second), -interaction, of_sign(-combined))

    assert found is swapped
    assert (found is Interplay.NO_SUM) == (0 in (first, second))


def test_an_interaction_that_logits_do_not_show_depends_on_the_scale() -> None:
    means = {(2, "none"): 0.5, (3, "none"): 0.8, (2, "batch"): 0.8, (3, "batch"): 0.9412}
    (answer,) = analysed(means, questions=[INTERACTION]).answers

    assert headline(answer).endswith(" overlap each other (depends on the scale)")
    assert re.search(
        r"In logits the interaction is [+−]?0\.\d+ \(95 %: −0\.\d+ to \+0\.\d+\): it depends", sentence(answer)
    )


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.35, 0.99), min_size=4, max_size=4))
def test_only_an_interaction_that_logits_deny_depends_on_the_scale(found) -> None:
    means = dict(zip([(2, "none"), (3, "none"), (2, "batch"), (3, "batch")], found, strict=True))
    plan, runs = study(means, questions=[INTERACTION])
    (answer,) = analyse(plan, runs).answers

    weights = {(3, "batch"): 1, (3, "none"): -1, (2, "batch"): -1, (2, "none"): 1}
    _, low, high = paired(runs, weights, to=lambda value: float(special.logit(value)))
    is_decided = answer.verdict in (Verdict.BETTER_THAN_SUM, Verdict.WORSE_THAN_SUM)
    is_denied = is_decided and not (low > 0 if answer.effect.mean > 0 else high < 0)
    assert ("depends on the scale" in headline(answer)) == is_denied
    assert ("depends on the scale" in sentence(answer).removeprefix(headline(answer))) == is_denied


def with_loss(runs: list[RecordedRun], metric: str, shift: float) -> list[RecordedRun]:
    """Return the runs with a metric that batch norm shifts by so much, each seed a little off it."""
    return [
        dataclasses.replace(
            run,
            metrics={
                **run.metrics,
                metric: 0.5
                + (shift if "batch" in run.planned.variant else 0.0)
                + 4 * WOBBLE[(run.planned.seed + 2 * ("batch" in run.planned.variant)) % len(WOBBLE)],
            },
        )
        for run in runs
    ]


def test_a_change_that_helps_and_makes_another_metric_worse_is_told_with_a_but() -> None:
    plan, runs = study(cells(depth=0.01, norm=0.03, both=0.04))

    answer = norm_of(analyse(plan, with_loss(runs, "test_loss", 0.17)))

    assert headline(answer) == "normalization none → batch helps, but test loss is worse"
    assert "seeds. But: test loss is worse, +0.170 nats (95 %: +0.160 to +0.180). " in sentence(answer)
    assert [found.metric.name for found in answer.worse] == ["test_loss"]
    beside = dataclasses.replace(answer, is_primary=False)
    assert headline(beside) == "normalization none → batch helps (test accuracy), but test loss is worse"


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(["test_loss", "test_brier_score", "learning_curve_area", "training_seconds", "final_train_loss"]),
    st.floats(-0.06, 0.06),
    effects,
)
def test_what_helps_is_told_with_every_quality_that_is_surely_worse_and_with_no_other(metric, shift, norm) -> None:
    plan, runs = study(cells(depth=0.0, norm=norm, both=norm))
    others = {name: 0.5 for name in METRICS if name != "test_accuracy"}
    runs = with_loss(
        [dataclasses.replace(run, metrics={**others, "test_accuracy": run.metrics["test_accuracy"]}) for run in runs],
        metric,
        shift,
    )

    answer = norm_of(analyse(plan, runs))

    values = [4 * (WOBBLE[(seed + 2) % 8] - WOBBLE[seed % 8]) + shift for seed in range(8)]
    half_width = stats.t.ppf(0.975, 7) * stats.sem(values)
    is_worse = SIGNS[METRICS[metric].direction] * sum(values) / 8 < -half_width
    is_quality = metric not in ("training_seconds", "final_train_loss")
    assert ("But: " in sentence(answer)) == (answer.verdict is Verdict.HELPS and is_worse and is_quality)
    assert (", but " in headline(answer)) == ("But: " in sentence(answer))


def test_an_interval_ends_where_differences_of_a_fraction_do() -> None:
    plan = make_plan(factors={NORM: ("none", "batch")}, seeds=2)
    runs = make_runs(plan, accuracy=lambda variant, seed: 0.95 - (seed + 0.1) * 0.4 * ("batch" in variant.name))

    found = analyse(plan, runs)

    (answer,) = found.answers
    assert "(95 % interval: 100 points lower to 100 points higher)" in sentence(answer)
    assert scorecard(found).rows[0][4] == "−100 to +100"
    assert answer.effect.interval.low < -1 < 1 < answer.effect.interval.high


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.floats(0.31, 1.0), min_size=2, max_size=3), min_size=4, max_size=4))
def test_no_interval_is_shown_beyond_what_its_metric_can_reach(found) -> None:
    seeds = min(map(len, found))
    plan = make_plan(questions=[{"effect": NORM}, {"effect": DEPTH}, INTERACTION], seeds=seeds)
    names = [variant.name for variant in plan.variants]
    analysis = analyse(plan, make_runs(plan, accuracy=lambda variant, seed: found[names.index(variant.name)][seed]))

    for reach, rows in ((100, scorecard(analysis).rows[:2]), (200, scorecard(analysis).rows[2:])):
        bounds = [number for row in rows for number in re.findall(r"[+−]?([\d.,]+)(?= to|$)", row[4].split(" (")[0])]
        assert all(float(bound.replace(",", "")) <= reach for bound in bounds)
    spans = re.findall(r"interval: ([\d.]+)[a-z ]* to ([\d.]+) points", answers_text(analysis))
    assert all(float(end) <= 200 for span in spans for end in span)


def test_what_is_too_small_to_matter_is_told_in_a_readers_words() -> None:
    answer = norm_of(analysed(cells(depth=0.03, norm=0.0, both=0.03)))

    assert "The whole interval is too small to matter (±0.5 points)." in sentence(answer)


@settings(deadline=None, max_examples=20)
@given(effects, effects, effects, st.integers(1, 8), st.sampled_from([None, 0.005, 0.02]))
def test_no_sentence_has_the_word_rope(depth, norm, both, seeds, rope) -> None:
    questions = [{"effect": NORM}, INTERACTION]
    found = analysed(cells(depth, norm, both), seeds=seeds, rope=rope, questions=questions)

    assert "ROPE" not in answers_text(found)


def test_the_word_rope_is_left_to_the_methods_which_explain_it() -> None:
    report, _, method = report_text(analysed(cells(0.02, 0.03, 0.04)), "markdown").partition("## Method")

    assert "ROPE" not in report
    assert "ROPE (region of practical equivalence)" in method


@pytest.mark.parametrize(("seeds", "is_shown"), [(5, False), (6, True)])
def test_an_e_value_is_shown_where_so_many_seeds_can_decide_by_it(seeds: int, is_shown: bool) -> None:
    plan, runs = study(cells(0.01, 0.0005, 0.01), seeds=seeds, locked_seeds=3, questions=[{"effect": NORM}])

    found = analyse(plan, runs)

    assert found.answers[0].decisive_e_value == pytest.approx(100)
    assert ("e-value" in scorecard(found).head) == is_shown
    assert (", so the e-value decides: " in sentence(found.answers[0])) == is_shown
    assert (f"so the e-value decides; with {seeds} seeds it cannot." in sentence(found.answers[0])) != is_shown


def test_a_plan_that_nothing_was_added_to_shows_no_e_value() -> None:
    assert "e-value" not in scorecard(analysed(cells(0.01, 0.02, 0.03))).head


@given(st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=2, max_size=8))
def test_no_e_value_is_above_the_largest_for_its_seeds(differences) -> None:
    found = e_value(differences)

    assert found is None or found <= largest_e_value(len(differences)) * (1 + 1e-9)
    assert [round(largest_e_value(n), 1) for n in range(2, 7)] == [1.7, 4.0, 11.2, 36.0, 129.6]


def test_an_unstable_question_names_the_level_whose_runs_failed() -> None:
    plan = make_plan(seeds=3)
    names = [variant.name for variant in plan.variants if "none" in variant.name]
    failed = {(name, seed): Outcome.DIVERGED for name in names for seed in range(3)}

    depth, norm = map(sentence, analyse(plan, make_runs(plan, outcomes=failed)).answers)

    assert "unstable: all 6 runs with normalization=none diverged, none of 6 with normalization=batch (" in norm
    assert (
        "unstable: all 3 runs of depth=3,normalization=none diverged, all 3 of depth=2,normalization=none; none of the "
        "other 6 (" in depth
    )


def test_one_run_that_failed_is_no_plural() -> None:
    plan = make_plan(factors={NORM: ("none", "batch")}, seeds=1)

    (answer,) = analyse(plan, make_runs(plan, outcomes={("normalization=none", 0): Outcome.DIVERGED})).answers

    assert "unstable: the one run with normalization=none diverged, none of 1 with normalization=batch (" in sentence(
        answer
    )


def test_of_four_unstable_variants_none_is_hidden_as_one_more() -> None:
    plan = make_plan(seeds=3)
    failed = {(variant.name, 0): Outcome.DIVERGED for variant in plan.variants}

    for answer in analyse(plan, make_runs(plan, outcomes=failed)).answers:
        named, _, _ = sentence(answer).partition(" (")
        assert all(variant.name in named for variant in plan.variants)
        assert "more variants" not in named


def test_of_a_part_beside_all_others_the_words_name_what_the_model_has() -> None:
    study = load_study(Path(__file__).parents[1] / "studies" / "leave-one-block-out" / "study.yaml")
    plan = plan_of(study)
    failed = [(name, seed) for name in ("only-first", "all-off") for seed in range(5)]

    found = analyse(plan, make_runs(plan, outcomes=dict.fromkeys(failed, Outcome.DIVERGED)))

    (answer,) = (each for each in found.answers if [change.label for change in each.changes][1:] == ["first"])
    named, _, rates = sentence(answer).partition(" (")
    assert named == (
        "first and the others together, unstable: all 5 runs with none of the parts diverged, all 5 with first alone, "
        "none of 5 without first, none of 5 with all parts"
    )
    assert "48 to 100 % with none of the parts, 48 to 100 % with first alone, 0 to 52 % without first" in rates


def test_of_a_part_the_words_are_with_and_without_it() -> None:
    plan = make_plan(factors={"norm": ("present", "absent")}, seeds=3)
    accuracy = {"norm=present": 0.8, "norm=absent": 0.29}
    runs = make_runs(plan, accuracy=lambda variant, _: accuracy[variant.name])
    runs = [
        dataclasses.replace(run, outcome=Outcome.DIVERGED, metrics={})
        if run.planned.name == "norm=absent/seed-2"
        else run
        for run in runs
    ]

    (answer,) = analyse(plan, runs).answers

    assert sentence(answer).startswith(
        "removing norm, unstable: all 3 runs without norm diverged or collapsed, none of 3 with it (95 % intervals of "
        "the rates: 29 to 100 % without norm, 0 to 71 % with norm; exact sign test over seeds p = 0.25). Means are not "
    )


@settings(deadline=None, max_examples=20)
@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1), st.data())
def test_an_unstable_question_names_the_failed_runs_by_kind_and_counts_them_all(failed, data) -> None:
    plan = make_plan(seeds=3)
    names = [variant.name for variant in plan.variants]
    kinds = {run: data.draw(st.sampled_from(["diverged", "collapsed"])) for run in sorted(failed)}
    outcomes = {(names[at], seed): Outcome.DIVERGED for (at, seed), kind in kinds.items() if kind == "diverged"}
    low = {(names[at], seed) for (at, seed), kind in kinds.items() if kind == "collapsed"}
    runs = make_runs(
        plan, outcomes=outcomes, accuracy=lambda variant, seed: 0.29 if (variant.name, seed) in low else 0.8
    )

    for answer in analyse(plan, runs).answers:
        text = sentence(answer).partition(" (")[0]
        words = " or ".join(kind for kind in ("diverged", "collapsed") if kind in kinds.values())
        assert f" {words}" in text
        assert ("diverged or" in text) == (len(set(kinds.values())) == 2)
        counts = [int(own or all_of) for all_of, own in re.findall(r"\ball (\d+)|(?<!of )\b(\d+) of", text)]
        assert sum(counts) == len(failed)


def test_sentences_are_finite_and_whole_at_every_number_of_seeds() -> None:
    for seeds in range(1, 9):
        for answer in analysed(
            cells(0.02, 0.03, -0.02), seeds=seeds, questions=[{"effect": NORM}, INTERACTION]
        ).answers:
            text = sentence(answer)
            assert text.endswith((".", "?"))
            assert not re.search(r"\bnan\b|\binf\b|None|  ", text)
            assert math.isfinite(answer.effect.mean)


def test_comparisons_without_a_verdict_are_counted_by_what_they_lack() -> None:
    one = analysed(cells(0.02, 0.03, 0.04), seeds=1)
    plan = make_plan()
    still = analyse(plan, make_runs(plan, accuracy=lambda variant, _: 0.8 if variant.is_baseline else 0.7))

    assert overview(one)[0].endswith(": 2 with one seed, no verdict.")
    assert overview(still)[0].endswith(": 2 without variation, no verdict.")


def test_the_note_in_mlflow_has_a_crossovers_whole_headline_bold() -> None:
    found = analysed(cells(depth=0.04, norm=0.03, both=0.01))

    note = study_note(overview(found), answer_summaries(found), links={}, figure=None)

    for answer in found.answers:
        assert f"**{escaped(headline(answer))}**: test accuracy is" in note


def test_the_forest_plots_interval_ends_where_differences_of_a_fraction_do() -> None:
    plan = make_plan(factors={NORM: ("none", "batch")}, seeds=2)
    found = analyse(plan, make_runs(plan, accuracy=lambda variant, seed: 0.9 - 0.4 * seed * ("batch" in variant.name)))

    (drawing,) = forest_drawings(found)

    (line,) = [line for line in drawing.figure.axes[0].get_lines() if line.get_gid() == "interval"]
    low, high = drawing.figure.axes[0].get_xlim()
    assert list(line.get_xdata()) == [max(-100, low), min(100, high)]
    assert all(-100 <= tick <= 100 for tick in drawing.figure.axes[0].get_xticks() if low <= tick <= high)


def test_the_forest_plot_has_room_for_every_verdict() -> None:
    (answer,) = analysed(cells(depth=0.04, norm=0.03, both=0.01), questions=[{"effect": NORM}]).answers
    found = analysed(cells(depth=0.03, norm=-0.04, both=0.05), questions=[INTERACTION])
    of_effects = [verdict for verdict in Verdict if "than the sum" not in verdict]
    crossed = [dataclasses.replace(answer, verdict=verdict) for verdict in of_effects]
    called = [
        dataclasses.replace(each, joint=dataclasses.replace(each.joint, interplay=interplay))
        for each in found.answers
        for interplay in Interplay
    ]

    (drawing,) = forest_drawings(dataclasses.replace(found, answers=(*crossed, *called)))

    drawing.figure.draw_without_rendering()
    words = [text for text in drawing.figure.texts if text.get_gid() == "verdict"]
    assert sum(text.get_text()[0] in {mark.shape for mark in MARKS.values()} | {"×"} for text in words) == (
        len(of_effects) + len(Interplay)
    )
    left = drawing.figure.axes[0].get_window_extent().x0
    for text in words:
        assert text.get_window_extent().x1 < left, text.get_text()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_no_axis_names_a_value_that_its_metric_cannot_have(values) -> None:
    assert all(0 <= tick <= 100 for tick in scale_over(values, unit="fraction").ticks)
    assert all(tick >= 0 for tick in scale_over(values, unit="nats").ticks)


def test_a_difference_that_cannot_be_is_not_named_as_the_least_that_is_found() -> None:
    plan = make_plan(factors={"model.depth": (2, 3, 4, 5)}, seeds=2)
    shifts = (0.6, 0.9, 0.4, 0.7, 0.8, 0.35)
    runs = make_runs(plan, accuracy=lambda variant, seed: shifts[(variant.levels[DEPTH] * (seed + 2)) % 6])

    for answer in analyse(plan, runs).answers:
        assert answer.effect.detectable > 1
        assert "With 2 seeds no difference that there can be is found in 80 % of repetitions." in sentence(answer)
