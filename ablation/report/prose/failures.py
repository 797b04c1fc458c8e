"""Says why an answer has no difference: runs that failed, or that diverged or collapsed."""

from collections.abc import Sequence

from ablation.analysis.answer_records import FAILED, NOT_ENDED, Answer, Instability, MissingRun, UnstableRate
from ablation.output import last_line
from ablation.report.names import with_text
from ablation.report.numbers import count_text
from ablation.report.prose.amounts import MOST_NAMED
from ablation.study.comparisons import LISTED

_LONGEST_ERROR = 160


def incomplete(answer: Answer) -> str:
    missing = answer.missing
    named = "; ".join(map(_missing_text, missing[:MOST_NAMED]))
    more = f"; and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    besides = f" Besides, {len(answer.instability.runs)} {_kinds(answer.instability)}." if answer.instability else ""
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


def unstable_runs(answer: Answer) -> str:
    """Return which runs diverged or collapsed: `all 3 runs without norm diverged, none of 3 with it`."""
    instability = answer.instability
    assert instability is not None
    return _by_levels(instability) if _levels_say_all(answer, instability) else _by_variants(instability)


def unstable(answer: Answer) -> str:
    instability = answer.instability
    assert instability is not None
    named = unstable_runs(answer)
    shares = ", ".join(
        f"{100 * rate.share.low:.0f} to {100 * rate.share.high:.0f} % {with_text(rate.levels)}"
        for rate in _worst_first(instability)
    )
    test = f"exact sign test over seeds p = {instability.p_value:.2g}"
    rates = f"95 % intervals of the rates: {shares}; {test}"
    return f"{named} ({rates}). Means are not compared. Next: see why these runs ended so before comparing the rest."


def _levels_say_all(answer: Answer, instability: Instability) -> bool:
    """Whether the levels that were compared tell which runs these are: all or none at a level, or one variant's."""
    if answer.changes[0].factor == LISTED:
        return False
    is_sharp = all(rate.unstable in (0, rate.n) for rate in instability.rates)
    return is_sharp or len(instability.variants) == len(instability.rates)


def _by_levels(instability: Instability) -> str:
    first, *others = _worst_first(instability)
    begun = f"{_runs(first.unstable, first.n)} {with_text(first.levels)} {_kinds(instability)}"
    return ", ".join([begun, *(f"{_count(each.unstable, each.n)} {_other(each, first)}" for each in others)])


def _worst_first(instability: Instability) -> list[UnstableRate]:
    return sorted(instability.rates, key=lambda rate: -rate.unstable / rate.n)


def _other(rate: UnstableRate, first: UnstableRate) -> str:
    """Return the words for another side: of a part that is there or not, `with it` is enough."""
    own, other = with_text(rate.levels), with_text(first.levels)
    is_same_part = own.removeprefix("with ") == other.removeprefix("without ") or (
        own.removeprefix("without ") == other.removeprefix("with ")
    )
    return f"{own.partition(' ')[0]} it" if is_same_part else own


def _by_variants(instability: Instability) -> str:
    """Return `all 3 runs of depth=3,norm=none diverged, 1 of 3 of depth=2,norm=none; none of the other 6`."""
    found = sorted((each for each in instability.variants if each.unstable), key=lambda each: -each.unstable / each.n)
    named = found if len(found) == MOST_NAMED + 1 else found[:MOST_NAMED]
    first, *others = named
    parts = [f"{_runs(first.unstable, first.n)} of {first.variant} {_kinds(instability)}"]
    parts += [f"{_count(each.unstable, each.n)} of {each.variant}" for each in others]
    hidden = found[len(named) :]
    if hidden:
        runs = sum(each.n for each in hidden)
        parts.append(f"{sum(each.unstable for each in hidden)} of {runs} of {len(hidden)} more variants")
    left = sum(each.n for each in instability.variants if not each.unstable)
    return ", ".join(parts) + (f"; none of the other {left}" if left else "")


def _runs(count: int, n: int) -> str:
    """Return `all 3 runs`, `2 of 3 runs`, and `the one run`."""
    return f"{_count(count, n)} runs" if n > 1 else "the one run"


def _count(count: int, n: int) -> str:
    return f"all {n}" if count == n else f"{count or 'none'} of {n}"


def _kinds(instability: Instability) -> str:
    kinds = ("diverged", "collapsed")
    return " or ".join(kind for kind in kinds if any(getattr(each, kind) for each in instability.variants))
