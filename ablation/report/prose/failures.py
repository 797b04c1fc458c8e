"""Says why an answer has no difference: runs that failed, or that diverged or collapsed."""

from collections.abc import Sequence

from ablation.analysis.answer_records import FAILED, NOT_ENDED, Answer, MissingRun
from ablation.output import last_line
from ablation.report.names import levels_text
from ablation.report.numbers import count_text
from ablation.report.prose.amounts import MOST_NAMED

_LONGEST_ERROR = 160


def incomplete(answer: Answer) -> str:
    missing = answer.missing
    named = "; ".join(map(_missing_text, missing[:MOST_NAMED]))
    more = f"; and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    besides = f" Besides, {len(answer.instability.runs)} diverged or collapsed." if answer.instability else ""
    which = "a run it needs has" if len(missing) == 1 else f"{count_text(len(missing))} runs it needs have"
    return f"{which} no result ({named}{more}), so no difference is given.{besides} Next: {_mending(missing)}."


def _missing_text(run: MissingRun) -> str:
    """Name a run and why it has no result, with the last line of its error."""
    error = last_line(run.error, longest=_LONGEST_ERROR)
    return f"{run.variant}/seed-{run.seed} {run.reason}" + (f": {error}" if error else "")


def _mending(missing: Sequence[MissingRun]) -> str:
    """Say what brings the results: each kind of lack has a way of its own."""
    reasons = [run.reason for run in missing]
    failed, not_ended = reasons.count(FAILED), reasons.count(NOT_ENDED)
    steps = []
    if failed:
        steps.append("fix what failed; the same command with --retry-failed trains it again")
    if failed + not_ended < len(reasons):
        steps.append("delete in MLflow the runs that lack the metric; the same command records them again")
    if not_ended:
        steps.append("the same command trains what has not ended")
    return "; ".join(steps)


def unstable(answer: Answer) -> str:
    return f"{_rates(answer)}. Means are not compared. Next: see why these runs ended so before comparing the rest."


def _rates(answer: Answer) -> str:
    instability = answer.instability
    assert instability is not None
    rates = " and ".join(
        f"{rate.unstable} of {rate.n} runs with {levels_text(rate.levels)} "
        f"({100 * rate.share.low:.0f} to {100 * rate.share.high:.0f} %)"
        for rate in instability.rates
    )
    test = f"95 % intervals of the rates; exact sign test over seeds p = {instability.p_value:.2g}"
    return f"{rates} diverged or collapsed ({test})"
