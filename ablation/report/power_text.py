"""Says what a design can find before it costs anything, in SDs, and in the metric's unit where the noise is known."""

import re
from collections.abc import Sequence

from ablation.analysis.power import FAR, LookPower, QuestionPower
from ablation.analysis.sequential import FEWEST_FOR_A_FLOOR, FRAGILE_BELOW
from ablation.lookup import few
from ablation.report.numbers import decimals_for, given_difference, magnitude, scale_of, unit_of_differences

_SD = "SD: standard deviation of a comparison's paired differences over seeds"
_INDEPENDENT = ", here worked out from that of one variant's runs as if runs were independent"


def power_lines(power: Sequence[QuestionPower], *, questions: int, is_folded: bool = False) -> list[str]:
    """Return what each look finds, comparisons that find the same on one line, and a warning where that is nothing."""
    return [_of_folds(line) if is_folded else line for line in _lines(power, questions=questions)]


def _of_folds(line: str) -> str:
    """Return a line with the word for what takes the place of seeds."""
    return re.sub(r"\bseed(s?)\b", r"fold\1", line).replace(
        "more folds or fewer questions find smaller ones", "fewer questions or more examples find smaller ones"
    )


def _lines(power: Sequence[QuestionPower], *, questions: int) -> list[str]:
    alike: dict[str, list[str]] = {}
    for each in power:
        alike.setdefault(_found(each), []).append(each.label)
    about = f"{_SD}{_INDEPENDENT if any(each.sd is not None for each in power) else ''}."
    if len(alike) == 1:
        lines = [f"Found with 80 % power: {next(iter(alike))}.", about]
    else:
        lines = [
            "Found with 80 % power:",
            *(f"  {few(names, joined='; ')}: {text}" for text, names in alike.items()),
            about,
        ]
    warned = warning(power, questions=questions)
    return lines if warned is None else [*lines, f"Warning: {warned}."]


def warning(power: Sequence[QuestionPower], *, questions: int) -> str | None:
    """Say that a design of so many questions can decide nothing of interest, as far as that is so."""
    last = [each.looks[-1].detectable_sd for each in power]
    blind = [found for found in last if found is None or found > FAR]
    if not blind:
        return None
    seeds, found = power[0].looks[-1].seeds, [each for each in blind if each is not None]
    design = f"{_count(seeds, 'seed')}, {_count(questions, 'question')}"
    design += f" ({_count(len(power), 'comparison')})" if len(power) != questions else ""
    some = f"in {len(blind)} of {len(power)} comparisons " if len(blind) < len(power) else ""
    only = f"only differences above {min(found):.1f} SD would be found" if found else "no difference would be found"
    return f"{design}: {some}{only}; {_advice(seeds, is_fragile=not found)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _advice(seeds: int, *, is_fragile: bool) -> str:
    if seeds == 1:
        return "with one run per variant, noise cannot be estimated"
    if is_fragile:
        return (
            f"below {FRAGILE_BELOW} seeds, fewer than {FEWEST_FOR_A_FLOOR} comparisons on a metric cannot tell luck "
            "from effect"
        )
    return "more seeds or fewer questions find smaller ones"


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
    if power.is_folded:
        these = "these folds find it" if reached is not None else "these folds do not find it"
        return f"{given_difference(meaningful, power.metric.unit)} (meaningful): {these}"
    found = f"the look at {reached} finds it" if reached is not None else "no planned look finds it"
    number = given_difference(meaningful, power.metric.unit)
    return f"{number} (meaningful): {needed} seeds with one look; {found}"
