"""Says what was added after the plan was locked, and how that is judged."""

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.sequential import GROWTH_SHARE
from ablation.report.numbers import level_percent


def extension_text(analysis: Analysis) -> str:
    """Return a paragraph on added seeds or comparisons; nothing where the plan is as it was locked."""
    if not analysis.is_extended:
        return ""
    added = "Comparisons were added after the plan was locked. What the plan had decided stands. What was added"
    if analysis.is_grown:
        added = (
            f"Seeds were added after the plan was locked ({analysis.locked_seeds} then, {analysis.seeds} now). "
            "What the plan had decided stands. What it had left open"
        )
    planned, share = level_percent(analysis.alpha), level_percent(analysis.alpha * GROWTH_SHARE)
    most = level_percent(analysis.alpha * (1 + GROWTH_SHARE))
    judge = "an e-value and its confidence sequence" if analysis.folds is None else "a corrected interval of its own"
    return (
        f"{added} is judged by {judge}. The family-wise error rate is at most {most}: "
        f"{planned} as planned, {share} for what was added."
    )
