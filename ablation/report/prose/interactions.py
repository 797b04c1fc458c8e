"""Says what two changes do beside each other."""

from ablation.analysis.answer_records import Answer, SimpleEffect
from ablation.report.names import change_text, place_text
from ablation.report.prose.amounts import amount, higher_or_lower
from ablation.study.spec import OTHERS


def simple_effects(answer: Answer) -> str:
    """Say what the second change of an interaction does at either level of the first."""
    if not answer.is_interaction or not answer.simple_effects:
        return ""
    found = ", ".join(_simple_text(simple, answer) for simple in answer.simple_effects)
    change = change_text(answer.changes[1])
    if answer.changes[0].factor == OTHERS:
        return f"{change[:1].upper()}{change[1:]}: {found}; the difference is the gap between the two."
    return f"{change} alone: {found}."


def _simple_text(simple: SimpleEffect, answer: Answer) -> str:
    at = place_text(simple.at)
    if simple.mean == 0:
        return f"no change {at}"
    return f"{amount(simple.mean, answer)} {higher_or_lower(simple.mean, answer.metric)} {at}"
