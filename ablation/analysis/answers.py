"""Answers the study's questions: each contrast of the family, computed and judged on the run table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ablation.analysis import statistics
from ablation.analysis.answer_records import (
    FAILED,
    NOT_ENDED,
    Answer,
    CostChange,
    CrossedEffect,
    Effect,
    Instability,
    LevelChange,
    Look,
    MissingRun,
    SeedDifference,
    SimpleEffect,
    UnstableRate,
    Verdict,
)
from ablation.analysis.caveats import is_crossover, worse_metrics
from ablation.analysis.contrasts import Contrast, SimpleContrast
from ablation.analysis.crossed import crossed_effect
from ablation.analysis.equal_seeds import repeated_seeds
from ablation.analysis.forecasts import forecast_of
from ablation.analysis.joint import joint_effect
from ablation.analysis.looks import StudyLooks
from ablation.analysis.resolution import with_resolution
from ablation.analysis.seed_differences import Runs, seed_differences
from ablation.analysis.sequential import Standing, State
from ablation.analysis.timing import is_told_apart, timing_of, timings_alike, total
from ablation.analysis.verdicts import earlier_verdict, effect_of, is_meaningful, verdict_of
from ablation.records import DATA, Outcome, Plan
from ablation.study.level_names import level_text

_MOST_COMBINATIONS = 12


def answers(looks: StudyLooks, table: pd.DataFrame) -> tuple[Answer, ...]:
    """Return one answer per contrast of the plan's locked questions, in their order."""
    runs = Runs(table.to_dict("records"), looks.recorded, test_to_train=looks.rule.test_to_train)
    return with_resolution(
        [
            _answer(place, contrast, standing, looks, runs)
            for place, (contrast, standing) in enumerate(zip(looks.contrasts, looks.standings, strict=True))
        ]
    )


def missing_run(row: Mapping[Any, Any], metric: str) -> MissingRun | None:
    """Return why a row of the run table has no result on a metric, or None where it has one or diverged."""
    if row["outcome"] is None:
        reason = NOT_ENDED
    elif row["outcome"] == Outcome.FAILED:
        reason = FAILED
    elif row["outcome"] == Outcome.DONE and not math.isfinite(row[metric]):
        reason = f"recorded no {metric}"
    else:
        return None
    return MissingRun(variant=row["variant"], seed=row["seed"], run_id=row["run_id"], reason=reason, error=row["error"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What a comparison's verdict is, and what it rests on."""

    verdict: Verdict
    effect: Effect | None
    differences: tuple[SeedDifference, ...]
    missing: tuple[MissingRun, ...]
    instability: Instability | None
    repeated: tuple[int, ...]


def _judged(contrast: Contrast, standing: Standing, runs: Runs, asked: Runs) -> _Judged:
    """Judge a comparison on the seeds of its last look, `runs`; those that are `asked` for may lack a result."""
    variants, metric = tuple(contrast.weights), contrast.metric
    differences = seed_differences(contrast.weights, runs, metric.name)
    missing = _missing(variants, asked, metric.name) if _is_held_up(standing) else ()
    instability = _instability(contrast, runs)
    repeated = repeated_seeds(runs.rows(variants), runs.recorded)
    effect, verdict = None, Verdict.INCOMPLETE if missing else Verdict.UNSTABLE
    if not differences and instability is None and standing.state is State.OUT_OF_BUDGET:
        verdict = Verdict.OUT_OF_BUDGET
    elif not missing and instability is None:
        effect = _varied(differences, repeated, contrast, standing, test_to_train=runs.test_to_train)
        is_interaction = len(contrast.changes) == 2
        verdict = verdict_of(standing.state, effect, direction=metric.direction, is_interaction=is_interaction)
        if runs.test_to_train:  # the e-process is of independent differences
            effect = replace(effect, e_value=None)
    return _Judged(
        verdict=verdict,
        effect=effect,
        differences=differences,
        missing=missing,
        instability=instability,
        repeated=repeated,
    )


def _answer(place: int, contrast: Contrast, standing: Standing, looks: StudyLooks, all_runs: Runs) -> Answer:
    """Answer with the numbers of a comparison's last look; before its first one, those there are, and no interval."""
    variants, rule = tuple(contrast.weights), looks.rule
    runs = all_runs.of(looks.seeds[: standing.seeds or standing.wanted])
    found = _judged(contrast, standing, runs, all_runs.of(looks.seeds[: standing.wanted]))
    effect, interval = found.effect, found.effect.interval if found.effect else None
    look = _look(contrast, standing, looks, all_runs)
    simple, is_crossing = _simple_effects(contrast, standing, runs, found)
    return Answer(
        changes=contrast.changes,
        at=contrast.at,
        averaged_over=contrast.averaged_over,
        combinations=contrast.combinations,
        metric=contrast.metric,
        is_primary=contrast.is_primary,
        estimand=estimand_of(contrast),
        rope=contrast.rope,
        alpha=rule.alpha,
        comparisons=rule.comparisons,
        is_grown=standing.is_grown,
        decisive_e_value=rule.decisive_e_value,
        verdict=found.verdict,
        is_meaningful=is_meaningful(found.verdict, interval, contrast.rope),
        differences=found.differences,
        effect=effect,
        forecast=forecast_of(looks, place, following=look.next) if found.verdict.is_left_open else None,
        missing=found.missing,
        instability=found.instability,
        repeated_seeds=found.repeated,
        is_timed_apart=_is_timed_apart(variants, runs),
        cost=_cost(contrast, runs, looks.plan),
        simple_effects=simple,
        crossed=_crossed(contrast, runs) if interval else None,
        seconds_per_seed=_usual_seconds(variants, runs),
        look=look,
        is_crossover=is_crossing,
        joint=joint_effect(contrast, runs, found.verdict) if interval and len(contrast.changes) == 2 else None,
        worse=worse_metrics(contrast, runs, looks.plan) if found.verdict is Verdict.HELPS else (),
        is_identical=not any(each.difference for each in found.differences) and _is_identical(contrast, runs),
        earlier_verdict=_earlier(contrast, found.verdict, looks, all_runs) if standing.seeds else None,
    )


def _is_timed_apart(variants: Sequence[str], runs: Runs) -> bool:
    return len({(row["host"], row["device"]) for row in runs.rows(variants) if row["run_id"]}) > 1


def _is_held_up(standing: Standing) -> bool:
    """Whether a comparison cannot be judged for want of a run: one failed, or its first look is under way."""
    return standing.state is State.PAUSED or (standing.state is State.OPEN and not standing.seeds)


def _look(contrast: Contrast, standing: Standing, looks: StudyLooks, runs: Runs) -> Look:
    later = runs.of(looks.seeds[standing.seeds :]) if standing.seeds else runs.of(())
    is_under_way = standing.state in (State.OPEN, State.OUT_OF_BUDGET) and looks.is_planned(contrast, standing.wanted)
    return Look(
        number=sum(seeds <= standing.seeds for seeds in looks.rule.looks),
        seeds=standing.seeds,
        looks=looks.rule.looks,
        next=standing.wanted if is_under_way else None,
        state=standing.state.value,
        alpha=standing.alpha,
        is_floored=standing.is_floored,
        is_fragile=standing.is_fragile,
        is_added=looks.is_added(contrast),
        later_unstable=tuple(later.unstable(tuple(contrast.weights))),
    )


def _earlier(contrast: Contrast, verdict: Verdict, looks: StudyLooks, runs: Runs) -> Verdict | None:
    """Return what a version before planned looks said of a study that it recorded, where that differs."""
    if looks.plan.family or not verdict.is_judged:
        return None
    found = seed_differences(contrast.weights, runs, contrast.metric.name)
    said = earlier_verdict(
        [each.difference for each in found],
        looks.rule,
        rope=contrast.rope,
        direction=contrast.metric.direction,
        is_interaction=len(contrast.changes) == 2,
    )
    return said if said is not verdict else None


def _is_identical(contrast: Contrast, runs: Runs) -> bool:
    """Whether both sides of an effect measured the same, to the bit, in every seed that both have."""
    if len(contrast.changes) == 2:
        return False
    (_, after), (_, before) = contrast.sides
    if len(after) != len(before):
        return False  # averages over unlike many variants
    pairs = [
        (runs.measured(first, seed), runs.measured(second, seed))
        for first, second in zip(after, before, strict=True)
        for seed in runs.seeds((first, second))
    ]
    return bool(pairs) and all(first and first == second for first, second in pairs)


def _crossed(contrast: Contrast, runs: Runs) -> CrossedEffect | None:
    """Return the effect over seeds and test images; None on other metrics, of folds, or where answers were not kept.

    None over several data sets, too: their test images are not the same ones.
    """
    is_over_data = len(contrast.averaged_over.get(DATA, ())) > 1 or any(
        each.factor == DATA for each in contrast.changes
    )
    is_over_images = is_over_data or bool(runs.test_to_train)  # each fold has images of its own
    if contrast.metric.name != "test_accuracy" or is_over_images:
        return None
    seeds = runs.seeds(tuple(contrast.weights))
    return crossed_effect(
        [(weight, [runs.correct(variant, seed) for seed in seeds]) for variant, weight in contrast.weights.items()]
    )


def _missing(variants: Sequence[str], runs: Runs, metric: str) -> tuple[MissingRun, ...]:
    return tuple(missing for row in runs.rows(variants) if (missing := missing_run(row, metric)) is not None)


def _instability(contrast: Contrast, runs: Runs) -> Instability | None:
    """Compare how often either side diverged or collapsed; None where no run did."""
    seeds = runs.seeds(tuple(contrast.weights))
    unstable = {variant: [runs.is_unstable(variant, seed) for seed in seeds] for variant in contrast.weights}
    if not any(map(any, unstable.values())):
        return None
    rates = []
    for levels, variants in contrast.sides:
        count = sum(sum(unstable[variant]) for variant in variants)
        n = len(seeds) * len(variants)
        rates.append(UnstableRate(levels=levels, unstable=count, n=n, share=statistics.share_interval(count, n)))
    # The seed is the unit that is drawn anew: each counts once, however many pairs of variants it has.
    by_seed = [
        statistics.without_rounding_error(
            [weight * unstable[variant][index] for variant, weight in contrast.weights.items()]
        )
        for index in range(len(seeds))
    ]
    names = tuple(
        f"{variant}/seed-{seed}"
        for variant in unstable
        for seed, is_ in zip(seeds, unstable[variant], strict=True)
        if is_
    )
    return Instability(
        rates=tuple(rates),
        p_value=statistics.sign_test(by_seed),
        runs=names,
        variants=tuple(runs.stability(variant, seeds) for variant in unstable),
    )


def _varied(
    differences: Sequence[SeedDifference],
    repeated: Sequence[int],
    contrast: Contrast,
    standing: Standing,
    *,
    test_to_train: float,
) -> Effect:
    """Return the effect, without the statements about other seeds where seeds are repetitions of each other."""
    values = [difference.difference for difference in differences]
    effect = effect_of(
        values,
        direction=contrast.metric.direction,
        interval=standing.interval,
        alpha=standing.p,
        least_sd=standing.least_sd,
        test_to_train=test_to_train,
    )
    if not repeated:
        return effect
    return replace(effect, interval=None, e_value=None, detectable=None, skewness=None)


def estimand_of(contrast: Contrast | Answer) -> str:
    """Say what exactly a comparison estimates."""
    metric = contrast.metric.label
    if len(contrast.changes) == 2:
        first, second = contrast.changes
        change = (
            f"mean over seeds of a difference of differences of {metric}: what {_change_text(second)} changes at "
            f"{first.factor}={level_text(first.after)}, minus what it changes at "
            f"{first.factor}={level_text(first.before)}, in the same seed"
        )
    else:
        change = (
            f"mean over seeds of a difference of {metric}: {contrast.changes[0].factor}="
            f"{level_text(contrast.changes[0].after)} minus {level_text(contrast.changes[0].before)} in the same seed"
        )
    beside = {factor: levels for factor, levels in contrast.averaged_over.items() if factor not in contrast.at}
    fixed = {
        factor: levels[0]
        for factor, levels in beside.items()
        if len(levels) == 1 and all(factor in each for each in contrast.combinations)
    }
    at = ", ".join(f"{factor} = {level_text(level)}" for factor, level in {**contrast.at, **fixed}.items())
    others = _averaged_text({factor: levels for factor, levels in beside.items() if factor not in fixed}, contrast)
    return change + (f", where {at}" if at else "") + (f", averaged over {others}" if others else "")


def _averaged_text(levels: Mapping[str, Sequence[Any]], contrast: Contrast | Answer) -> str:
    """Name the levels that are averaged over; combination by combination where the study lacks some of them."""
    if len(contrast.combinations) == math.prod(map(len, levels.values())):
        return "; ".join(f"{factor} = {', '.join(map(level_text, own))}" for factor, own in levels.items())
    named = [
        ", ".join(f"{factor} = {level_text(found[factor])}" for factor in levels if factor in found)
        for found in contrast.combinations[:_MOST_COMBINATIONS]
    ]
    more = len(contrast.combinations) - len(named)
    return "; ".join(named) + (f"; and {more} more combinations of them" if more else "")


def _cost(contrast: Contrast, runs: Runs, plan: Plan) -> CostChange | None:
    """Compare the two sides of an effect; seconds only where all runs were timed on one host and device."""
    if len(contrast.changes) == 2:
        return None
    (_, after), (_, before) = contrast.sides
    # Sums over as many variants; where one side is averaged over more of them, each counts by its weight.
    share = {name: 1 if len(after) == len(before) else abs(weight) for name, weight in contrast.weights.items()}
    parameters, flops = (
        [sum(share[variant] * getattr(plan.summaries[variant], size) for variant in side) for side in (after, before)]
        for size in ("parameters", "flops")
    )
    is_timed_apart = _is_timed_apart((*after, *before), runs)
    timings = None if is_timed_apart else timings_alike({name: runs.done(name) for name in (*after, *before)})
    seconds, is_unclear = None, False
    if timings is not None:
        sides = [[timings[name].times(share[name]) for name in side] for side in (after, before)]
        is_unclear = not is_told_apart(*sides)
        seconds = total(sides[0]) / total(sides[1]) if total(sides[1]) and not is_unclear else None
    return CostChange(
        parameters=parameters[0] / parameters[1] if parameters[1] else None,
        flops=flops[0] / flops[1] if flops[1] else None,
        seconds=seconds,
        is_time_unclear=is_unclear,
    )


def _usual_seconds(variants: Sequence[str], runs: Runs) -> float | None:
    """Return the variants' usual training seconds, added up; None where one has no timed run."""
    timings = [timing_of(runs.done(variant)) for variant in variants]
    timed = [timing for timing in timings if timing is not None]
    return total(timed) if len(timed) == len(timings) else None


def _simple_effects(
    contrast: Contrast, standing: Standing, runs: Runs, found: _Judged
) -> tuple[tuple[SimpleEffect, ...], bool]:
    """Return the simple effects of a look that was judged, and whether they cross over."""
    if found.effect is None or not standing.seeds or found.repeated:
        return (), False
    effects = tuple(_simple_effect(simple, runs, contrast.metric.name) for simple in contrast.simple)
    is_crossing = is_crossover(effects, contrast)
    return effects if found.effect.interval or is_crossing else (), is_crossing


def _simple_effect(simple: SimpleContrast, runs: Runs, metric: str) -> SimpleEffect:
    differences = seed_differences(simple.weights, runs, metric)
    values = [difference.difference for difference in differences]
    return SimpleEffect(
        change=simple.change,
        at=simple.at,
        n=len(values),
        mean=statistics.mean_of(values),
        interval=statistics.paired_interval(
            values, level=statistics.DESCRIPTIVE_LEVEL, test_to_train=runs.test_to_train
        ),
        run_ids=tuple(run_id for difference in differences for run_id in difference.run_ids),
    )


def _change_text(change: LevelChange) -> str:
    return f"{change.factor} {level_text(change.before)} → {level_text(change.after)}"
