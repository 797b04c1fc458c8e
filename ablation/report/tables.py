"""Lays the analysis out in tables of text cells."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.analysis import statistics
from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer, Difference, MeasuredMetric
from ablation.analysis.descriptive_records import Spread, VariantRow
from ablation.output import last_line
from ablation.records import SIGNS
from ablation.report.limits import reach_of, shown_interval
from ablation.report.names import (
    baseline_mark,
    change_text,
    comparison_text,
    levels_text,
    place_text,
    training_function,
)
from ablation.report.numbers import (
    NONE,
    count_text,
    duration_text,
    ends_text,
    level_percent,
    scale_of,
    signed,
    unit_of_differences,
    value_text,
)
from ablation.report.prose.amounts import amount, difference_decimals, rope_text
from ablation.report.prose.forecasts import chance_cell, for_power_cell
from ablation.report.prose.looks import shown_e_value
from ablation.report.prose.verdicts import verdict_text
from ablation.report.rows import FirstScreen
from ablation.report.table import Table, difference_cells, interval_cell, shared_decimals
from ablation.report.task_words import one_input
from ablation.study.spec import OTHERS

MOST_OPEN = 12
"""Rows of a table that grows with the study and is not folded."""
_E_VALUE = "e-value"


def scorecard(analysis: Analysis) -> Table:
    """Return a row per answer; differences in the metric's unit of differences."""
    answers = analysis.answers
    about = ("comparison", "metric", "verdict", "difference", interval_head(answers), "too small to matter")
    head = (*about, "wins", "win rate, 95 %", _E_VALUE, "n", "chance of a decision")
    rows = tuple(_scorecard_row(answer, interval_mark(answer, answers)) for answer in answers)
    is_shown = any(shown_e_value(answer) is not None for answer in answers)
    kept = [index for index, name in enumerate(head) if is_shown or name != _E_VALUE]
    kept_rows = tuple(tuple(row[index] for index in kept) for row in rows)
    return Table(head=tuple(head[index] for index in kept), rows=kept_rows, text_columns=3)


def answer_rows(screen: FirstScreen) -> Table:
    """Return the rows of the first screen in words: differences and intervals in the unit of their metric."""
    rows = [
        (
            f"{row.mark.shape} {row.change}",
            row.verdict + (f": {row.problem}" if row.problem else ""),
            f"{row.effect} {group.unit}".rstrip() if row.effect else NONE,
            row.bounds or NONE,
            " · ".join(row.costs),
            group.heading,
        )
        for group in screen.groups
        for row in group.rows
    ]
    interval = next((f"{group.level} interval" for group in screen.groups if group.level), "interval")
    is_same = len({group.level for group in screen.groups}) == 1
    head = ("change", "verdict", "effect", interval if is_same else "interval", screen.cost_heading, "on")
    is_shown = (True, True, True, True, bool(screen.costs), len(screen.groups) > 1)
    kept = [index for index, is_kept in enumerate(is_shown) if is_kept]
    return Table(
        head=tuple(head[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in rows),
        text_columns=2,
    )


def interval_head(answers: Sequence[Answer]) -> str:
    """Return what the intervals that decide are called: by their level where they have one in common."""
    levels = {level_percent(answer.level) for answer in answers}
    return f"{levels.pop()} interval" if len(levels) == 1 else "interval (level)"


def interval_mark(answer: Answer, answers: Sequence[Answer]) -> str:
    """Return what stands behind an interval: its own level, unless all have the same."""
    own = level_percent(answer.level)
    return "" if all(level_percent(other.level) == own for other in answers) else f" ({own})"


def simple_effects(analysis: Analysis) -> Table:
    """Return each change at each setting of the other factors, with unadjusted 95 % intervals."""
    rows = []
    for answer in analysis.answers:
        for simple in answer.simple_effects:
            difference = Difference(n=simple.n, mean=simple.mean, interval=simple.interval)
            about = (change_text(simple.change), _place(simple.at, analysis), answer.metric.label)
            reach = reach_of(answer.metric)
            decimals = metric_decimals(answer.metric, analysis)
            cells = difference_cells(difference, answer.metric.unit, reach=reach, decimals=decimals)
            row = (*about, *cells, str(simple.n))
            if row not in rows:
                rows.append(row)
    return Table(head=("change", "at", "metric", "difference", "95 % interval", "n"), rows=tuple(rows), text_columns=3)


def interactions(analysis: Analysis) -> Table:
    """Return the interaction of every pair of crossed factors on the study's metric, in its unit and in logits."""
    unit, reach = analysis.metric.unit, reach_of(analysis.metric, is_interaction=True)
    pairs = [found for pair in analysis.factor_pairs for found in pair.interactions]
    decimals = metric_decimals(analysis.metric, analysis)
    in_logits = shared_decimals([found.in_logits for found in pairs], "logits")
    rows = [
        (
            f"{change_text(found.first)} × {change_text(found.second)}",
            *difference_cells(found.difference, unit, reach=reach, decimals=decimals),
            *difference_cells(found.in_logits, "logits", decimals=in_logits),
            str(found.difference.n),
        )
        for found in pairs
    ]
    head = ("interaction", "difference of differences", "95 % interval", "in logits", "95 % interval", "n")
    return Table(head=head, rows=tuple(rows))


def crossed(analysis: Analysis) -> Table:
    """Return the effects on test accuracy with intervals for other seeds, and for other seeds and test images."""
    rows = []
    for answer in analysis.answers:
        effect, found = answer.effect, answer.crossed
        if effect is None or found is None:
            continue
        seeds_alone = statistics.paired_interval(
            [difference.difference for difference in answer.differences], level=found.interval.level
        )
        unit, reach = answer.metric.unit, reach_of(answer.metric, is_interaction=answer.is_interaction)
        over_both = Difference(n=effect.n, mean=found.mean, interval=found.interval)
        over_seeds = Difference(n=effect.n, mean=effect.mean, interval=seeds_alone)
        look: dict[str, Any] = {"reach": reach, "decimals": metric_decimals(answer.metric, analysis)}
        mean, both = difference_cells(over_both, unit, **look)
        _, alone = difference_cells(over_seeds, unit, **look)
        rows.append((comparison_text(answer), mean, alone, both, str(found.seeds), f"{found.images:,}"))
    head = (
        "comparison",
        "difference",
        "other seeds, 95 %",
        f"other seeds and {analysis.data.inputs}, 95 %",
        "seeds",
        analysis.data.inputs,
    )
    return Table(head=head, rows=tuple(rows))


def variants(analysis: Analysis) -> Table:
    """Return a row per variant on the study's metric, the baseline first."""
    return _variants_table(analysis.variants, analysis)


def first_variants(analysis: Analysis) -> Table:
    """Return the first 12 rows, the baseline and then the best means, or all rows where there are no more."""
    rows = analysis.variants
    if len(rows) <= MOST_OPEN:
        return variants(analysis)
    baseline = [row for row in rows if row.is_baseline]
    others = sorted((row for row in rows if not row.is_baseline), key=lambda row: _from_best(row, analysis.metric))
    return _variants_table([*baseline, *others][:MOST_OPEN], analysis)


def failures(analysis: Analysis) -> Table:
    """Return the runs that failed and the last line of each error, the first 12."""
    failed = [run for run in analysis.diagnostics.missing if run.error]
    rows = tuple((f"{run.variant}/seed-{run.seed}", last_line(run.error)) for run in failed[:MOST_OPEN])
    return Table(head=("run", "error"), rows=rows, text_columns=2)


def secondary_metrics(analysis: Analysis) -> Table:
    """Return each variant's mean ± SD on the metrics that are not the study's, times apart."""
    shown = [metric for metric in analysis.metrics if metric != analysis.metric and metric.unit != "seconds"]
    rows = tuple(
        (variant_text(row), *(mean_and_sd(row.spreads.get(metric.name), metric) for metric in shown))
        for row in analysis.variants
    )
    return Table(head=("variant", *(metric.label for metric in shown)), rows=rows if shown else ())


def costs(analysis: Analysis) -> Table:
    """Return what each variant costs, times as medians over its runs; of a user's own function, what was measured."""
    head = (
        "variant",
        "parameters",
        f"FLOPs per {one_input(analysis)}",
        "epochs",
        "training",
        "per epoch",
        "peak memory",
        "dominated by",
    )
    lasted = _epochs_by_variant(analysis)
    rows = tuple(_cost_row(row, lasted.get(row.name, NONE)) for row in analysis.variants)
    if not training_function(analysis):
        place = head.index("epochs")
        if set(lasted.values()) == {NONE} or not lasted:
            return Table(head=_without(head, place), rows=tuple(_without(row, place) for row in rows))
        return Table(head=head, rows=rows)
    kept = [index for index in range(len(head)) if {row[index] for row in rows} - {"0", NONE}]
    shown = tuple(tuple(row[index] for index in kept) for row in rows)
    return Table(head=tuple(head[index] for index in kept), rows=shown if len(kept) > 1 else ())


def _without(cells: tuple[str, ...], place: int) -> tuple[str, ...]:
    return cells[:place] + cells[place + 1 :]


def _epochs_by_variant(analysis: Analysis) -> dict[str, str]:
    """Return how many epochs each variant's runs took, where that depends on the run; nothing where it never does.

    Runs that diverged are left out.
    """
    if training_function(analysis):
        return {}
    found: dict[str, list[int]] = {}
    for variant in analysis.curves:
        done = [seed.curves for seed in variant.seeds if not seed.is_diverged]
        found[variant.variant] = [max(epoch for points in one.values() for epoch, _ in points) for one in done if one]
    if all(len(set(lasted)) < 2 for lasted in found.values()) and not _may_end_early(analysis):
        return {}
    return {name: _range_text(lasted) for name, lasted in found.items() if lasted}


def _may_end_early(analysis: Analysis) -> bool:
    """Whether the study ends runs by patience, in its baseline or as a level."""
    sections = (analysis.study.get("training") or {}, analysis.study.get("factors") or {})
    return any(
        "patience" in str(key) or "training.patience" in str(value) for part in sections for key, value in part.items()
    )


def _range_text(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def layers(analysis: Analysis) -> Table:
    """Return the trainable parameters of each layer in each variant."""
    names = [row.name for row in analysis.variants]
    rows = [
        (
            layer.name,
            layer.type,
            *(f"{layer.parameters[name]:,}" if name in layer.parameters else NONE for name in names),
        )
        for layer in analysis.layers
    ]
    total = ("total", "", *(f"{row.parameters:,}" for row in analysis.variants))
    return Table(head=("layer", "type", *names), rows=(*rows, total) if rows else (), text_columns=2)


def sureness(analysis: Analysis) -> Table:
    """Return the smallest difference that each comparison's seeds find, and what more seeds would decide."""
    head = (
        "comparison",
        "metric",
        "n",
        "SD of differences",
        "smallest difference found",
        "chance of a decision",
        "for 80 %",
        "training each",
    )
    return Table(head=head, rows=tuple(map(_sureness_row, analysis.answers)), text_columns=2)


def estimands(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Return (comparison, what exactly was estimated) per answer."""
    return tuple((comparison_text(answer), answer.estimand) for answer in analysis.answers)


def _place(levels: Mapping[str, Any], analysis: Analysis) -> str:
    """Return the levels of the other factors; where these are parts, all there or all not, in the words for that."""
    if OTHERS in levels:
        return place_text(levels)
    settings = {factor: level for factor, level in levels.items() if factor not in analysis.parts}
    parts = [level == analysis.factors[part][0] for part, level in levels.items() if part in analysis.parts]
    if analysis.design != "leave-one-out+add-one" or len(set(parts)) != 1:
        return levels_text(levels)
    return place_text({OTHERS: "present" if parts[0] else "absent", **settings})


def _scorecard_row(answer: Answer, mark: str) -> tuple[str, ...]:
    effect, unit, e_value = answer.effect, unit_of_differences(answer.metric.unit), shown_e_value(answer)
    about = (comparison_text(answer), answer.metric.label, _verdict(answer))
    rope = f"±{rope_text(answer)}" if answer.rope is not None else "not said"
    if effect is None:
        return (*about, NONE, NONE, rope, NONE, NONE, NONE, str(len(answer.differences)), NONE)
    scale, decimals = scale_of(answer.metric.unit), difference_decimals(answer)
    shown = shown_interval(answer)
    bounds = (shown.low, shown.high) if shown else ()
    wins = f"{effect.wins.wins}/{effect.wins.n}" + (f", {effect.wins.ties} tied" if effect.wins.ties else "")
    return (
        *about,
        f"{signed(scale * effect.mean, decimals)} {unit}".rstrip(),
        interval_cell([signed(scale * bound, decimals) for bound in bounds]) + (mark if bounds else ""),
        rope,
        wins,
        f"{100 * effect.wins.share.low:.0f} to {100 * effect.wins.share.high:.0f} %",
        f"{e_value:.3g}" if e_value is not None else NONE,
        str(effect.n),
        chance_cell(answer),
    )


def _sureness_row(answer: Answer) -> tuple[str, ...]:
    effect = answer.effect
    sd, detectable = (effect.sd, effect.detectable) if effect else (None, None)
    reach = reach_of(answer.metric, is_interaction=answer.is_interaction)
    return (
        comparison_text(answer),
        answer.metric.label,
        str(len(answer.differences)),
        amount(sd, answer) if sd is not None else NONE,
        amount(detectable, answer) if detectable is not None and detectable < reach else NONE,
        chance_cell(answer),
        for_power_cell(answer),
        duration_text(answer.seconds_per_seed) if answer.seconds_per_seed else NONE,
    )


def _verdict(answer: Answer) -> str:
    if answer.is_meaningful is None:
        return verdict_text(answer)
    return f"{verdict_text(answer)}, {'meaningfully' if answer.is_meaningful else 'possibly too small to matter'}"


def variant_text(row: VariantRow) -> str:
    return f"{row.name}{baseline_mark(row.name)}" if row.is_baseline else row.name


def _variants_table(rows: Sequence[VariantRow], analysis: Analysis) -> Table:
    head = ("variant", "runs", "mean", "SD", "min to max", "difference to baseline", "95 % interval")
    return Table(head=head, rows=tuple(_variant_row(row, analysis) for row in rows), text_columns=2)


def metric_decimals(metric: MeasuredMetric, analysis: Analysis) -> int:
    """Return the decimals of all differences on a metric: its answers', or the variants' where there are none."""
    asked = [answer for answer in analysis.answers if answer.metric.name == metric.name and answer.effect is not None]
    if asked:
        return max(map(difference_decimals, asked))
    return shared_decimals([row.differences.get(metric.name) for row in analysis.variants], metric.unit)


def _from_best(row: VariantRow, metric: MeasuredMetric) -> float:
    """Return what sorts variants by their means, best first; those without one come last."""
    spread = row.spreads.get(metric.name)
    return -SIGNS[metric.direction] * spread.mean if spread is not None else math.inf


def _variant_row(row: VariantRow, analysis: Analysis) -> tuple[str, ...]:
    metric = analysis.metric
    spread = row.spreads.get(metric.name)
    numbers = (NONE, NONE, NONE)
    if spread is not None:
        extremes = ends_text(spread.minimum, spread.maximum, metric.unit)
        numbers = (value_text(spread.mean, metric.unit), _sd(spread, metric), extremes)
    return (variant_text(row), _outcomes(row), *numbers, *baseline_difference_cells(row, analysis))


def baseline_difference_cells(row: VariantRow, analysis: Analysis) -> tuple[str, str]:
    metric = analysis.metric
    if analysis.reference(row) is row:
        return "", ""
    difference = row.differences.get(metric.name)
    if difference is None:
        return "withheld", NONE
    decimals = metric_decimals(metric, analysis)
    return difference_cells(difference, metric.unit, reach=reach_of(metric), decimals=decimals)


def _outcomes(row: VariantRow) -> str:
    counts = (
        (row.diverged, "diverged"),
        (row.collapsed, "collapsed"),
        (row.failed, "failed"),
        (row.missing, "missing"),
    )
    return ", ".join([f"{row.done} of {row.planned} done", *(f"{count} {what}" for count, what in counts if count)])


def _sd(spread: Spread, metric: MeasuredMetric) -> str:
    if spread.sd is None:
        return NONE
    text = value_text(spread.sd, metric.unit)
    return text.replace(" %", " points")


def mean_and_sd(spread: Spread | None, metric: MeasuredMetric) -> str:
    if spread is None:
        return NONE
    sd = f" ± {value_text(spread.sd, metric.unit)}" if spread.sd is not None else ""
    return value_text(spread.mean, metric.unit).removesuffix(" %" if sd else "") + sd


def _cost_row(row: VariantRow, epochs: str) -> tuple[str, ...]:
    memory = row.spreads.get("peak_memory_mib")
    return (
        variant_text(row),
        f"{row.parameters:,}" + (f" ({row.trainable:,} trained)" if row.trainable is not None else ""),
        count_text(row.flops),
        epochs,
        duration_text(row.training.median) if row.training else NONE,
        duration_text(row.epoch.median) if row.epoch else NONE,
        f"{memory.mean:,.0f} MiB" if memory else NONE,
        row.dominated_by or NONE,
    )
