"""Writes numbers as a reader wants them: accuracies in percent and points, losses in nats, times in s, min and h."""

import math
from collections.abc import Callable, Mapping, Sequence

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
_SCALES = {
    "fraction": (100.0, "points"),
    "nats": (1.0, "nats"),
    "score": (1.0, ""),
    "seconds": (1.0, "s"),
    "epochs": (1.0, "epochs"),
    "logits": (1.0, ""),
}
_MOST_DECIMALS = 15
_LARGE_RATIO = 10
"""From here on a reader takes in a factor better than a change in percent."""


def _four_decimals(value: float) -> str:
    return f"{value:.4f}".replace("-", MINUS)


_VALUES: Mapping[str, Callable[[float], str]] = {
    "fraction": lambda value: f"{100 * value:.2f} %",
    "nats": _four_decimals,
    "score": _four_decimals,
    "seconds": lambda value: f"{value:,.3g} s" if value < 10 else f"{value:,.1f} s",
}


def scale_of(unit: str) -> float:
    """Return what a metric's value is multiplied with to be shown."""
    return _SCALES[unit][0]


def unit_of_differences(unit: str) -> str:
    return _SCALES[unit][1]


def decimals_for(scale: float | None, shown: Sequence[float]) -> int:
    """Return the decimals that show two digits of `scale`, and no number but zero as zero."""
    decimals = max(0, 1 - math.floor(math.log10(scale))) if scale else 2
    smallest = min((abs(value) for value in shown if value), default=1.0)
    while decimals < _MOST_DECIMALS and float(f"{smallest:.{decimals}f}") == 0:
        decimals += 1
    return min(decimals, _MOST_DECIMALS)


def magnitude(value: float, decimals: int) -> str:
    return f"{abs(value):,.{decimals}f}"


def signed(value: float, decimals: int) -> str:
    """Return `+1.20`, `−0.30`, or a zero without sign."""
    text = magnitude(value, decimals)
    if float(text.replace(",", "")) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def differences_text(values: Sequence[float], unit: str) -> list[str]:
    """Return a mean and its interval's bounds, signed and scaled, with decimals that fit the interval's width."""
    scaled = [scale_of(unit) * value for value in values]
    width = (scaled[2] - scaled[1]) / 2 if len(scaled) == 3 else None
    return [signed(value, decimals_for(width, scaled[:1])) for value in scaled]


def value_text(value: float, unit: str) -> str:
    """Return a metric's value: `82.83 %`, `0.5412`, `8.4 s`."""
    return _VALUES[unit](value)


def level_percent(level: float) -> str:
    """Return a confidence level or a rate: `98.75 %`."""
    return f"{100 * level:.4g} %"


def ratio_text(ratio: float) -> str:
    """Return a ratio as a change: `+8 %`, `−0.4 %`, `unchanged`, and a large one as it is: `×31,000`."""
    if ratio >= _LARGE_RATIO:
        return f"×{ratio:,.0f}"
    change = 100 * (ratio - 1)
    if abs(change) < 0.005:
        return "unchanged"
    decimals = 0 if abs(change) >= 10 else 1 if abs(change) >= 0.1 else 2
    return f"{signed(change, decimals)} %"


def duration_text(seconds: float) -> str:
    """Return `0.8 s`, `45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:,.1f} h"


def share_of_time_text(part_s: float, whole_s: float) -> str:
    """Return `9 of 45 s`, `41 of 60 min` or `1.4 of 3.0 h`."""
    if whole_s < 90:
        return f"{part_s:.0f} of {whole_s:.0f} s"
    if whole_s < 90 * 60:
        return f"{part_s / 60:.0f} of {whole_s / 60:.0f} min"
    return f"{part_s / 3600:,.1f} of {whole_s / 3600:,.1f} h"


def count_text(count: float) -> str:
    """Return a large count: `63,120`, `12.3 million`, `1.8 billion`."""
    if count < 1e6:
        return f"{count:,.0f}"
    return f"{count / 1e6:,.3g} million" if count < 1e9 else f"{count / 1e9:,.3g} billion"
