"""Says what a design can find before it costs anything, in SDs, and in the metric's unit where the noise is known."""

from collections.abc import Sequence

from ablation.analysis.power import LookPower, QuestionPower, warning
from ablation.report.numbers import decimals_for, given_difference, magnitude, scale_of, unit_of_differences

_MOST_NAMED = 3
_SD = "SD: standard deviation of a comparison's paired differences over seeds"
_INDEPENDENT = ", here worked out from that of one variant's runs as if runs were independent"


def power_lines(power: Sequence[QuestionPower], *, questions: int) -> list[str]:
    """Return what each look finds, comparisons that find the same on one line, and a warning where that is nothing."""
    alike: dict[str, list[str]] = {}
    for each in power:
        alike.setdefault(_found(each), []).append(each.question)
    about = f"{_SD}{_INDEPENDENT if any(each.sd is not None for each in power) else ''}."
    if len(alike) == 1:
        lines = [f"Found with 80 % power: {next(iter(alike))}.", about]
    else:
        lines = ["Found with 80 % power:", *(f"  {_named(names)}: {text}" for text, names in alike.items()), about]
    warned = warning(power, questions=questions)
    return lines if warned is None else [*lines, f"Warning: {warned}."]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return "; ".join(names[:_MOST_NAMED]) + more


def _found(power: QuestionPower) -> str:
    """Return `differences above 1.9 SD at 5 seeds, 1.2 at 8`, and where nothing is found."""
    seen = [look for look in power.looks if look.detectable_sd is not None]
    blind = [str(look.seeds) for look in power.looks if look.detectable_sd is None]
    parts = []
    if seen:
        others = [f"{_least(look, power, is_first=False)} at {look.seeds}" for look in seen[1:]]
        first = f"differences above {_least(seen[0], power, is_first=True)} at {seen[0].seeds} seeds"
        parts.append(", ".join([first, *others]))
    if blind:
        parts.append(f"nothing at {', '.join(blind)} seed{'s' if blind != ['1'] else ''}")
    if power.sd is not None and power.meaningful is not None:
        parts.append(_meaningful(power, power.meaningful))
    return "; ".join(parts)


def _least(look: LookPower, power: QuestionPower, *, is_first: bool) -> str:
    found = look.detectable_sd or 0.0
    in_sds = magnitude(found, 1 if found >= 1 else 2)
    if power.sd is None:
        return f"{in_sds} SD" if is_first else in_sds
    return f"{_amount(found * power.sd, power)} ({in_sds} SD)"


def _amount(value: float, power: QuestionPower) -> str:
    shown = scale_of(power.metric.unit) * value
    number = magnitude(shown, decimals_for(shown, [shown]))
    return f"{number} {unit_of_differences(power.metric.unit)}".rstrip()


def _meaningful(power: QuestionPower, meaningful: float) -> str:
    """Return `0.5 points (meaningful): 26 seeds with one look; the look at 20 finds it`."""
    seeds = power.seeds_for_meaningful
    needed = f"{seeds:,}" if seeds is not None else "more than 10,000"
    reached = power.reaches_meaningful
    found = f"the look at {reached} finds it" if reached is not None else "no planned look finds it"
    number = given_difference(meaningful, power.metric.unit)
    return f"{number} (meaningful): {needed} seeds with one look; {found}"
