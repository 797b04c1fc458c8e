"""Writes the captions of a paper's tables: the design, the seeds, what Δ is, its interval, and what marks mean."""

from collections.abc import Sequence

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer, MeasuredMetric
from ablation.report.column_table import breaking
from ablation.report.numbers import level_percent, unit_of_differences
from ablation.report.prose.amounts import rope_text
from ablation.study.design import BASELINE, FULL

_DESIGNS = {
    "factorial": "Factorial ablation",
    "one-at-a-time": "One-at-a-time ablation",
    "leave-one-out": "Leave-one-out ablation",
    "add-one": "Add-one ablation",
    "leave-one-out+add-one": "Leave-one-out and add-one ablation",
}
_WHOLE = 12.0
"""The width in em up to which words of a caption stay whole."""


def variants_caption(analysis: Analysis, answers: Sequence[Answer]) -> str:
    """Return the caption, in LaTeX, of variants and of what these answers say of them."""
    data = f" on {analysis.data.name}" if analysis.data.name != "none" else ""
    label, kind = analysis.metric.label, analysis.baseline.partition(",")[0]
    begin = f"{_DESIGNS.get(analysis.design, 'Ablation')}{data} ({_seeds(analysis)}). "
    named = label if "_" in label else f"{label[:1].upper()}{label[1:]}"
    begin += f"{named}: mean ± SD over seeds."
    if not answers:
        return _caption(begin + ("" if kind in (FULL, BASELINE) else " The first row is the baseline."))
    unit = unit_of_differences(analysis.metric.unit)
    of = "the full model" if kind == FULL else "the baseline"
    change = f"Δ: change from {of}" + (f" in {unit}" if unit else "")
    said = ", ".join(filter(None, (change, _interval(answers))))
    return f"{_caption(f'{begin} {said};')} {_marks(answers)}"


def comparisons_caption(answers: Sequence[Answer]) -> str:
    """Return the caption, in LaTeX, of comparisons."""
    metrics = list(dict.fromkeys(answer.metric for answer in answers))
    of = f" in {in_unit(metrics[0])}" if len(metrics) == 1 else ""
    together = (
        "; of two changes (×), what both do beyond the sum" if any(each.is_interaction for each in answers) else ""
    )
    others = any(len(answer.combinations) > 1 for answer in answers)
    averaged = ", averaged over the other factors' levels" if others else ""
    text = f"What each change does{averaged}. Δ: mean difference over paired seeds{of}{together}"
    return f"{_caption('; '.join(filter(None, (text, _interval(answers)))) + ';')} {_marks(answers)}"


def in_unit(metric: MeasuredMetric) -> str:
    """Return `test accuracy, in points`."""
    unit = unit_of_differences(metric.unit)
    return f"{metric.label}, in {unit}" if unit else metric.label


def _caption(text: str) -> str:
    return breaking(text, whole=_WHOLE)


def _seeds(analysis: Analysis) -> str:
    numbers = {answer.effect.n for answer in analysis.answers if answer.effect} or {analysis.seeds}
    low, high = min(numbers), max(numbers)
    return f"{low} paired seed{'s' if low != 1 else ''}" if low == high else f"{low} to {high} paired seeds"


def _interval(answers: Sequence[Answer]) -> str:
    """Say at which level intervals are, and for how many comparisons that is adjusted; nothing where there are none."""
    levels = {level_percent(each.level) for each in answers if each.effect is not None and each.effect.interval}
    if not levels:
        return ""
    number, looks = answers[0].comparisons, len(answers[0].look.looks)
    over = [*([f"{number} comparisons"] if number > 1 else []), *([f"{looks} planned looks"] if looks > 1 else [])]
    adjusted = f", adjusted for {' and '.join(over)}" if over else ""
    return (f"{levels.pop()} interval" if len(levels) == 1 else "intervals at the level of each") + adjusted


def _marks(answers: Sequence[Answer]) -> str:
    ropes = {rope_text(answer) for answer in answers if answer.rope is not None}
    too_small = f"; {breaking('≈: too small to matter')}" if ropes else ""
    too_small += f" {breaking(f'(±{ropes.pop()})')}" if len(ropes) == 1 else ""
    return rf"\textbf{{bold}}: decided{too_small}."
