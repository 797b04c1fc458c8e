"""Says what two changes do beside each other."""

from ablation.analysis.answer_records import Answer, JointEffect
from ablation.report.names import change_text, place_text
from ablation.report.numbers import differences_text
from ablation.report.prose.amounts import amount, higher_or_lower, range_text
from ablation.study.spec import OTHERS


def together(answer: Answer) -> str:
    """Say what both changes of an interaction do together and each alone, and whether that is so in logits too."""
    joint = answer.joint
    if joint is None:
        return ""
    combined = _size_text(joint.combined.mean, answer)
    if joint.combined.interval is not None:
        combined += f" (95 %: {range_text(joint.combined.interval, answer, mean=joint.combined.mean)})"
    first, second = (_size_text(each.mean, answer) for each in (joint.first, joint.second))
    alone = f"{first} ({change_text(answer.changes[0])}) and {second} ({change_text(answer.changes[1])})"
    said = [f"Both together: {combined}; alone: {alone}.", _beside_others(answer), _in_logits(joint)]
    return " ".join(filter(None, said))


def _size_text(mean: float, answer: Answer) -> str:
    return f"{amount(mean, answer)} {higher_or_lower(mean, answer.metric)}" if mean else "no change"


def _beside_others(answer: Answer) -> str:
    """Say what a part does beside all others and when alone, which is what such a question asks."""
    if answer.changes[0].factor != OTHERS:
        return ""
    found = ", ".join(f"{_size_text(each.mean, answer)} {place_text(each.at)}" for each in answer.simple_effects)
    change = change_text(answer.changes[1])
    return f"{change[:1].upper()}{change[1:]}: {found}; the difference is the gap between the two."


def _in_logits(joint: JointEffect) -> str:
    found = joint.in_logits
    if not joint.depends_on_scale or found is None:
        return ""
    mean, *bounds = differences_text(
        [found.mean, *([found.interval.low, found.interval.high] if found.interval else [])], "logits"
    )
    interval = f" (95 %: {bounds[0]} to {bounds[1]})" if bounds else ""
    return f"In logits the interaction is {mean}{interval}: it depends on the scale."
