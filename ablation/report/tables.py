"""Lays the analysis out in tables of text cells."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ablation.analysis.records import Analysis, Answer, ConfusionMatrix, MeasuredMetric, Points, Spread, VariantRow
from ablation.report.numbers import (
    NONE,
    count_text,
    decimals_for,
    duration_text,
    level_percent,
    scale_of,
    signed,
    unit_of_differences,
    value_text,
)
from ablation.report.prose import amount, change_text, difference_decimals, levels_text, rope_text, seeds_text

_MOST_CLASSES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text; the first `text_columns` columns are aligned to the left, the others to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1

    @property
    def alignments(self) -> tuple[str, ...]:
        return tuple(":--" if index < self.text_columns else "--:" for index in range(len(self.head)))


def scorecard(analysis: Analysis) -> Table:
    """Return a row per answer; differences in the metric's unit of differences."""
    answers = analysis.answers
    level = level_percent(answers[0].level)
    head = ("comparison", "metric", "verdict", "difference", f"{level} interval", "ROPE", "wins", "win rate, 95 %")
    return Table(head=(*head, "e-value", "n", "more seeds"), rows=tuple(map(_scorecard_row, answers)), text_columns=3)


def simple_effects(analysis: Analysis) -> Table:
    """Return each change at each setting of the other factors, with unadjusted 95 % intervals."""
    rows = []
    for answer in analysis.answers:
        for simple in answer.simple_effects:
            interval = (simple.interval.low, simple.interval.high) if simple.interval else ()
            cells = _differences([simple.mean, *interval], answer.metric)
            bounds = _interval_cell(cells[1:])
            about = (change_text(simple.change), levels_text(simple.at), answer.metric.label)
            row = (*about, f"{cells[0]} {unit_of_differences(answer.metric.unit)}", bounds, str(simple.n))
            if row not in rows:
                rows.append(row)
    return Table(head=("change", "at", "metric", "difference", "95 % interval", "n"), rows=tuple(rows), text_columns=3)


def variants(analysis: Analysis) -> Table:
    """Return a row per variant on the study's metric, the baseline first."""
    metric = analysis.metric
    head = ("variant", "runs", "mean", "SD", "min to max", "difference to baseline", "95 % interval")
    rows = tuple(_variant_row(row, metric) for row in analysis.variants)
    return Table(head=head, rows=rows, text_columns=2)


def secondary_metrics(analysis: Analysis) -> Table:
    """Return each variant's mean ± SD on the metrics that are not the study's, times apart."""
    shown = [metric for metric in analysis.metrics if metric != analysis.metric and metric.unit != "seconds"]
    rows = tuple(
        (_name(row), *(_mean_and_sd(row.spreads.get(metric.name), metric) for metric in shown))
        for row in analysis.variants
    )
    return Table(head=("variant", *(metric.label for metric in shown)), rows=rows)


def costs(analysis: Analysis) -> Table:
    """Return what each variant costs; times are means over its runs."""
    head = ("variant", "parameters", "FLOPs per image", "training", "per epoch", "peak memory", "dominated by")
    return Table(head=head, rows=tuple(map(_cost_row, analysis.variants)))


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
    return Table(head=("layer", "type", *names), rows=(*rows, total), text_columns=2)


def curves(analysis: Analysis) -> Table:
    """Return the median over seeds of the curves that are drawn, after the first, the middle and the last epoch."""
    rows = tuple(row for variant in analysis.curves for row in _curve_rows(analysis, variant.variant, variant.median))
    return Table(head=("variant", "curve", "first epoch", "middle", "last"), rows=rows, text_columns=2)


def curve_names(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Return (name, title) of the curves that are drawn, the split in the title."""
    split = analysis.heldout_split
    return (
        (f"{split}_accuracy", f"{split} accuracy"),
        (f"{split}_loss", f"{split} loss"),
        ("train_loss", "training loss"),
    )


def confusions(analysis: Analysis) -> Table:
    """Return the three most frequent mistakes of each variant on each split."""
    rows = tuple(
        (matrix.variant, matrix.split, str(len(matrix.run_ids)), mistakes)
        for matrix in analysis.confusion
        if (mistakes := "; ".join(_mistakes(matrix, analysis.data.classes)))
    )
    return Table(
        head=("variant", "split", "runs", "true → answered (share of the true class)"), rows=rows, text_columns=4
    )


def confusion_counts(matrix: ConfusionMatrix, analysis: Analysis) -> Table | None:
    """Return the counts of one matrix, or None where there are too many classes to read."""
    classes = analysis.data.classes
    if len(classes) > _MOST_CLASSES:
        return None
    rows = tuple((name, *map(str, counts)) for name, counts in zip(classes, matrix.counts, strict=True))
    return Table(head=("true class", *classes), rows=rows)


def sureness(analysis: Analysis) -> Table:
    """Return the smallest difference that each comparison's seeds find, and the seeds still needed."""
    head = (
        "comparison",
        "metric",
        "n",
        "SD of differences",
        "smallest difference found",
        "more seeds",
        "training each",
    )
    return Table(head=head, rows=tuple(map(_sureness_row, analysis.answers)), text_columns=2)


def estimands(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Return (comparison, what exactly was estimated) per answer."""
    return tuple((_comparison(answer), answer.estimand) for answer in analysis.answers)


def _scorecard_row(answer: Answer) -> tuple[str, ...]:
    effect, unit = answer.effect, unit_of_differences(answer.metric.unit)
    about = (_comparison(answer), answer.metric.label, _verdict(answer))
    rope = f"±{rope_text(answer)}" if answer.rope is not None else "none"
    if effect is None:
        return (*about, NONE, NONE, rope, NONE, NONE, NONE, str(len(answer.differences)), NONE)
    scale, decimals = scale_of(answer.metric.unit), difference_decimals(answer)
    bounds = (effect.interval.low, effect.interval.high) if effect.interval else ()
    wins = f"{effect.wins.wins}/{effect.wins.n}" + (f", {effect.wins.ties} tied" if effect.wins.ties else "")
    return (
        *about,
        f"{signed(scale * effect.mean, decimals)} {unit}",
        _interval_cell([signed(scale * bound, decimals) for bound in bounds]),
        rope,
        wins,
        f"{100 * effect.wins.share.low:.0f} to {100 * effect.wins.share.high:.0f} %",
        f"{effect.e_value:.3g}" if effect.e_value is not None else NONE,
        str(effect.n),
        seeds_text(answer) or NONE,
    )


def _sureness_row(answer: Answer) -> tuple[str, ...]:
    effect = answer.effect
    sd, detectable = (effect.sd, effect.detectable) if effect else (None, None)
    return (
        _comparison(answer),
        answer.metric.label,
        str(len(answer.differences)),
        amount(sd, answer) if sd is not None else NONE,
        amount(detectable, answer) if detectable is not None else NONE,
        seeds_text(answer) or NONE,
        duration_text(answer.seconds_per_seed) if answer.seconds_per_seed else NONE,
    )


def _comparison(answer: Answer) -> str:
    return " × ".join(map(change_text, answer.changes))


def _verdict(answer: Answer) -> str:
    if answer.is_meaningful is None:
        return answer.verdict.value
    return f"{answer.verdict.value}, {'meaningfully' if answer.is_meaningful else 'possibly by less than matters'}"


def _interval_cell(cells: Sequence[str]) -> str:
    return f"{cells[0]} to {cells[1]}" if cells else NONE


def _differences(values: Sequence[float], metric: MeasuredMetric) -> list[str]:
    """Return differences in the metric's unit with decimals that fit their scale."""
    scaled = [scale_of(metric.unit) * value for value in values]
    width = (scaled[2] - scaled[1]) / 2 if len(scaled) == 3 else None
    return [signed(value, decimals_for(width, scaled[:1])) for value in scaled]


def _name(row: VariantRow) -> str:
    return f"{row.name} (baseline)" if row.is_baseline else row.name


def _variant_row(row: VariantRow, metric: MeasuredMetric) -> tuple[str, ...]:
    spread = row.spreads.get(metric.name)
    numbers = (NONE, NONE, NONE)
    if spread is not None:
        extremes = f"{value_text(spread.minimum, metric.unit)} to {value_text(spread.maximum, metric.unit)}"
        numbers = (value_text(spread.mean, metric.unit), _sd(spread, metric), extremes)
    return (_name(row), _outcomes(row), *numbers, *_difference_cells(row, metric))


def _difference_cells(row: VariantRow, metric: MeasuredMetric) -> tuple[str, str]:
    if row.is_baseline:
        return "", ""
    difference = row.difference
    if difference is None:
        return "withheld", NONE
    interval = (difference.interval.low, difference.interval.high) if difference.interval else ()
    cells = _differences([difference.mean, *interval], metric)
    return f"{cells[0]} {unit_of_differences(metric.unit)}", _interval_cell(cells[1:])


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


def _mean_and_sd(spread: Spread | None, metric: MeasuredMetric) -> str:
    if spread is None:
        return NONE
    sd = f" ± {value_text(spread.sd, metric.unit)}" if spread.sd is not None else ""
    return value_text(spread.mean, metric.unit).removesuffix(" %" if sd else "") + sd


def _cost_row(row: VariantRow) -> tuple[str, ...]:
    training, epoch, memory = (
        row.spreads.get(name) for name in ("training_seconds", "epoch_seconds", "peak_memory_mib")
    )
    return (
        _name(row),
        f"{row.parameters:,}",
        count_text(row.flops),
        duration_text(training.mean) if training else NONE,
        duration_text(epoch.mean) if epoch else NONE,
        f"{memory.mean:,.0f} MiB" if memory else NONE,
        row.dominated_by or NONE,
    )


def _curve_rows(analysis: Analysis, variant: str, median: Mapping[str, Points]) -> Iterator[tuple[str, ...]]:
    for name, title in curve_names(analysis):
        points = median.get(name)
        if points:
            unit = "fraction" if name.endswith("accuracy") else "nats"
            chosen = (points[0], points[len(points) // 2], points[-1])
            yield variant, title, *(f"{value_text(value, unit)} ({epoch})" for epoch, value in chosen)


def _mistakes(matrix: ConfusionMatrix, classes: Sequence[str]) -> Iterable[str]:
    counted = [
        (count, true, answered)
        for true, row in enumerate(matrix.counts)
        for answered, count in enumerate(row)
        if count and true != answered
    ]
    for count, true, answered in sorted(counted, key=lambda mistake: (-mistake[0], *mistake[1:]))[:3]:
        yield f"{classes[true]} → {classes[answered]} {100 * count / sum(matrix.counts[true]):.1f} %"
