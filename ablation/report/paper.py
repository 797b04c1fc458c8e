"""Lays an analysis out as tables for one column of a paper: the variants, and the comparisons that are no variant's."""

import re
from collections.abc import Iterator, Mapping, Sequence

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer, MeasuredMetric, Verdict
from ablation.analysis.descriptive_records import Spread, VariantRow
from ablation.report.column_table import (
    Cell,
    Layout,
    Row,
    cell,
    column_table,
    fitting,
    head_cell,
    joined,
    name_cell,
    small,
    stacked,
    text_cell,
)
from ablation.report.latex import latex_label
from ablation.report.limits import shown_interval
from ablation.report.names import baseline_mark, comparison_text, is_absent, settings_text
from ablation.report.numbers import (
    MINUS,
    NONE,
    in_brackets,
    magnitude,
    ratio_text,
    scale_of,
    signed,
)
from ablation.report.paper_captions import comparisons_caption, in_unit, variants_caption
from ablation.report.prose.amounts import difference_decimals
from ablation.report.prose.verdicts import DIFFERS
from ablation.study.comparisons import LISTED
from ablation.study.design import ALL_OFF, BASELINE, FULL
from ablation.study.level_names import level_text, short_name, short_names
from ablation.study.search_spaces import SETTINGS
from ablation.study.spec import OTHERS

PACKAGES = r"""% Tables for one column: \input them where a float may stand. The preamble needs:
%   \usepackage[T1]{fontenc}
%   \usepackage{booktabs, tabularx, amssymb}
"""
_NAMES = {FULL: "Full model", BASELINE: "Baseline", ALL_OFF: "No part"}


def paper_document(analysis: Analysis) -> str:
    """Return the text of a file with a table of the variants and, where there are any, one of other comparisons."""
    return "\n".join([PACKAGES, *_tables(analysis)])


def _tables(analysis: Analysis) -> Iterator[str]:
    judged = _judged(analysis)
    yield _variants_table(analysis, judged)
    others = [answer for answer in analysis.answers if not any(answer is each for each in judged.values())]
    if others:
        yield _comparisons_table(analysis, others)


def _judged(analysis: Analysis) -> dict[str, Answer]:
    """Return, by variant, the answer that compares it alone with the baseline on the study's metric."""
    baseline = next(row for row in analysis.variants if row.is_baseline)
    found: dict[str, Answer] = {}
    for answer in analysis.answers:
        change = answer.changes[0]
        if answer.metric != analysis.metric or answer.is_interaction:
            continue
        if change.factor == LISTED:
            named = [change.after] if change.before == baseline.name else []
        else:
            levels = {**baseline.levels, change.factor: change.after}
            named = [row.name for row in analysis.variants if row.levels == levels and _is_alone(answer, baseline)]
        found |= {name: answer for name in named if not any(name == known for known in found)}
    return found


def _is_alone(answer: Answer, baseline: VariantRow) -> bool:
    """Whether a change was made at the baseline's levels of all other factors alone."""
    places = answer.combinations or ({},)
    at = {**places[0], **answer.at}
    return len(places) == 1 and all(
        level == ("present" if factor == OTHERS else baseline.levels.get(factor)) for factor, level in at.items()
    )


def _variants_table(analysis: Analysis, judged: Mapping[str, Answer]) -> str:
    rows = _ordered(analysis, judged)
    layouts = [_by_names(analysis, rows, judged, is_stacked=is_stacked) for is_stacked in (False, True)]
    if analysis.design == "factorial" and not judged:
        layouts = [_by_levels(analysis, rows), *layouts]
    return column_table(
        fitting([*layouts, _by_names(analysis, rows, judged, is_stacked=True, has_sizes=False)]),
        caption=variants_caption(analysis, list(judged.values())),
        label=latex_label(f"tab:{analysis.name}"),
    )


def _by_levels(analysis: Analysis, rows: Sequence[VariantRow]) -> Layout:
    """Lay variants out with a column per factor."""
    *others, last = rows[0].levels
    short = short_names([*others, last])
    laid = [
        Row(
            name=name_cell(level_text(row.levels[last])),
            cells=(
                *(text_cell(level_text(row.levels[factor])) for factor in others),
                _value_cell(row.spreads.get(analysis.metric.name), analysis),
                *_sizes(row, rows),
            ),
        )
        for row in rows
    ]
    head = (*(text_cell(short[factor]) for factor in others), *_heads(analysis, rows))
    return Layout(rows=(Row(name=name_cell(short[last]), cells=head), *laid), texts=len(others))


def _by_names(
    analysis: Analysis,
    rows: Sequence[VariantRow],
    judged: Mapping[str, Answer],
    *,
    is_stacked: bool,
    has_sizes: bool = True,
) -> Layout:
    """Lay variants out by their names, with what is judged of each."""
    laid = [
        Row(
            name=name_cell(_name(row, rows[0], analysis), is_indented=not row.is_baseline),
            cells=(
                _value_cell(row.spreads.get(analysis.metric.name), analysis),
                *([_judged_cell(row, judged, is_stacked=is_stacked)] if judged else []),
                *(_sizes(row, rows) if has_sizes else ()),
            ),
        )
        for row in rows
    ]
    value, *sizes = _heads(analysis, rows)
    head = (value, *([cell("Δ")] if judged else []), *(sizes if has_sizes else ()))
    return Layout(rows=(Row(name=cell(""), cells=head), *laid))


def _heads(analysis: Analysis, rows: Sequence[VariantRow]) -> tuple[Cell, ...]:
    return (head_cell(_short(analysis.metric)), *([cell("params")] if _have_sizes(rows) else []))


def _have_sizes(rows: Sequence[VariantRow]) -> bool:
    """Whether the models were measured, and are not all as large."""
    return all(row.parameters for row in rows) and len({row.parameters for row in rows}) > 1


def _sizes(row: VariantRow, rows: Sequence[VariantRow]) -> tuple[Cell, ...]:
    return (_size_cell(row, rows[0]),) if _have_sizes(rows) else ()


def _ordered(analysis: Analysis, judged: Mapping[str, Answer]) -> list[VariantRow]:
    """Return the baseline, then the variants: as the study has them, parts left out by what that does."""
    others = [row for row in analysis.variants if not row.is_baseline]
    if analysis.design == "leave-one-out":
        others.sort(key=lambda row: -_size_of(judged.get(row.name)))
    return [*(row for row in analysis.variants if row.is_baseline), *others]


def _size_of(answer: Answer | None) -> float:
    return abs(answer.effect.mean) if answer is not None and answer.effect is not None else 0.0


def _decimals(analysis: Analysis) -> int:
    """Return the decimals of the study's metric in both tables."""
    known = [difference_decimals(each) for each in analysis.answers if each.metric == analysis.metric and each.effect]
    return max(0, *known) if known else 2


def _name(row: VariantRow, baseline: VariantRow, analysis: Analysis) -> str:
    """Return a variant as a paper names it: `Full model`, `w/o batch norm`, `norm = BN`, `depth=3, norm=BN`."""
    kind, _, settings = row.name.partition(f",{SETTINGS}=")
    after = f", {settings_text(settings)}" if settings else ""
    if kind in _NAMES:
        return f"{_NAMES[kind]}{after}"
    changed = [
        factor for factor, level in row.levels.items() if level != baseline.levels[factor] and factor != SETTINGS
    ]
    is_named_by_change = baseline.name.partition(",")[0] in (FULL, BASELINE) and analysis.design != "listed"
    if is_named_by_change and len(changed) == 1:
        return f"{_change(changed[0], row.levels[changed[0]])}{after}"
    mark = baseline_mark(row.name) if row.is_baseline else ""
    return f"{re.sub(r',(?=[^ ])', ', ', kind)}{after}{mark}"


def _change(factor: str, level: object) -> str:
    name = short_name(factor)
    if is_absent(level):
        return f"w/o {name}"
    return f"{name} replaced" if level == "replaced" else f"{name} = {level_text(level)}"


def _short(metric: MeasuredMetric) -> str:
    return metric.label.replace("accuracy", "acc.") + in_brackets(metric.unit)


def _value_cell(spread: Spread | None, analysis: Analysis) -> Cell:
    if spread is None:
        return cell(NONE)
    scale, decimals = scale_of(analysis.metric.unit), _decimals(analysis)
    mean = cell(f"{MINUS if spread.mean < 0 else ''}{magnitude(scale * spread.mean, decimals)}")
    return mean if spread.sd is None else joined(mean, small(f"±{magnitude(scale * spread.sd, decimals)}"))


def _judged_cell(row: VariantRow, judged: Mapping[str, Answer], *, is_stacked: bool) -> Cell:
    return _effect_cell(judged[row.name], is_stacked=is_stacked) if row.name in judged else cell("")


def _effect_cell(answer: Answer, *, is_stacked: bool) -> Cell:
    """Return the difference with its interval: bold where decided, marked where too small; a crossover is neither."""
    effect, scale, decimals = answer.effect, scale_of(answer.metric.unit), max(0, difference_decimals(answer))
    if effect is None:
        return small(answer.verdict.value.partition(":")[0])
    mean = cell(signed(scale * effect.mean, decimals))
    if answer.verdict is Verdict.NO_MEANINGFUL_DIFFERENCE and not answer.is_crossover:
        mean = cell(f"≈{signed(scale * effect.mean, decimals)}")
    elif answer.verdict.is_decided and not answer.is_crossover:
        mean = Cell(latex=rf"\textbf{{{mean.latex}}}", width=1.15 * mean.width)
    shown = shown_interval(answer)
    if shown is None:
        return mean
    bounds = ", ".join(signed(scale * bound, decimals) for bound in (shown.low, shown.high))
    return stacked([mean, small(f"[{bounds}]")]) if is_stacked else joined(mean, small(f"[{bounds}]"))


def _size_cell(row: VariantRow, baseline: VariantRow) -> Cell:
    if row.is_baseline:
        return cell(_count(row.parameters))
    ratio = row.parameters / baseline.parameters
    return cell("0" if ratio == 1 else ratio_text(ratio).replace(" %", "%"))


def _count(count: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}" if count / size < 999.5 else f"{count / size:.0f}{letter}"
    return str(count)


def _comparisons_table(analysis: Analysis, answers: Sequence[Answer]) -> str:
    return column_table(
        fitting(_comparisons(answers, is_stacked=is_stacked) for is_stacked in (False, True)),
        caption=comparisons_caption(answers),
        label=latex_label(f"tab:{analysis.name}-comparisons"),
    )


def _comparisons(answers: Sequence[Answer], *, is_stacked: bool) -> Layout:
    """Lay comparisons out by metric, each below its metric's name where there are several."""
    rows = [Row(name=cell(""), cells=(cell("Δ"),))]
    metrics = list(dict.fromkeys(answer.metric for answer in answers))
    for metric in metrics:
        if len(metrics) > 1:
            rows.append(Row(name=name_cell(f"{in_unit(metric)}:"), cells=(cell(""),)))
        rows += [
            Row(
                name=name_cell(_comparison(answer), is_indented=len(metrics) > 1),
                cells=(_effect_cell(answer, is_stacked=is_stacked),),
            )
            for answer in answers
            if answer.metric == metric
        ]
    return Layout(rows=tuple(rows))


def _comparison(answer: Answer) -> str:
    """Return what is compared; an average that hides two directions is said to."""
    return f"{comparison_text(answer)} ({DIFFERS})" if answer.is_crossover else comparison_text(answer)
