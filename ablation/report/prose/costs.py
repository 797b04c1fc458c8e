"""Says what a change costs."""

from ablation.analysis.answer_records import Answer
from ablation.report.numbers import ratio_text


def timing(answer: Answer) -> str:
    if answer.metric.unit != "seconds" or not answer.is_timed_apart:
        return ""
    return "The runs were timed on different hosts or devices, which this difference may come from."


def cost_text(answer: Answer) -> str:
    changes = cost_changes(answer)
    return f"Cost: {changes}." if changes else ""


def cost_changes(answer: Answer) -> str:
    """Return `parameters +1 %, training time +55 %`, nothing where no cost is known."""
    cost = answer.cost
    if cost is None:
        return ""
    ratios = (("parameters", cost.parameters), ("FLOPs", cost.flops), ("training time", cost.seconds))
    known = [f"{what} {ratio_text(ratio)}" for what, ratio in ratios if ratio is not None]
    if cost.is_time_unclear:
        known.append("training time differs less than it varies")
    return ", ".join(known)
