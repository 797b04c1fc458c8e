"""Writes numbers as a reader wants them: accuracies in percent and points, losses in nats, times in s, min and h."""

import math
from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
_SCALES = {
    "fraction": (100.0, "points"),
    "percent": (1.0, "points"),
    "nats": (1.0, "nats"),
    "bits": (1.0, "bits"),
    "score": (1.0, ""),
    "target": (1.0, ""),
    "seconds": (1.0, "s"),
    "epochs": (1.0, "epochs"),
    "logits": (1.0, ""),
}
"""What a value is multiplied with, and the unit of a difference; of a metric's own unit, 1 and that unit."""
_VALUES = {
    "fraction": (2, " %"),
    "percent": (2, " %"),
    "nats": (4, ""),
    "bits": (4, ""),
    "score": (4, ""),
    "target": (4, ""),
}
"""The decimals of a value, and what follows it; of a metric's own unit, 4 and that unit."""
_IN_BRACKETS = {
    "fraction": " (%)",
    "percent": " (%)",
    "nats": " (nats)",
    "bits": " (bits)",
    "score": "",
    "target": "",
    "seconds": " (s)",
}
"""What follows a metric's name at an axis or a column; of a metric's own unit, that unit."""
_DIGITS_OF_TARGETS = 5
"""Of a value in the unit of a regression's targets, which are of any size."""
_SMALLEST, _LARGEST = 1e-5, 1e15
"""Between these a number is written out, and beyond them as `1.2e-9`."""
_MOST_DECIMALS = 6
"""To which a column's decimals are raised for its smallest number, which has more of its own where it needs them."""
_DIGITS = 17
"""That tell any number from every other."""
_LARGE_RATIO = 10
"""From here on a reader takes in a factor better than a change in percent."""


def scale_of(unit: str) -> float:
    """Return what a metric's value is multiplied with to be shown."""
    return _SCALES[unit][0] if unit in _SCALES else 1.0


def unit_of_differences(unit: str) -> str:
    return _SCALES[unit][1] if unit in _SCALES else unit


def in_brackets(unit: str) -> str:
    """Return what follows a metric's name where only numbers stand: ` (%)`, ` (nats)`, nothing without a unit."""
    return _IN_BRACKETS.get(unit, f" ({unit})")


def decimals_for(scale: float | None, shown: Sequence[float]) -> int:
    """Return the decimals that show two digits of `scale`, and more for the numbers that they would show as zero.

    They are negative for a scale that numbers which are not written out have: `magnitude` takes them so.
    """
    decimals = 1 - _exponent(scale) if scale else 2
    if scale and scale >= _LARGEST:
        return decimals
    smallest = min((abs(value) for value in shown if value), default=1.0)
    decimals = max(0, decimals)
    while decimals < _MOST_DECIMALS and float(f"{smallest:.{decimals}f}") == 0:
        decimals += 1
    return decimals


def magnitude(value: float, decimals: int) -> str:
    """Return a number without its sign, never zero unless it is: `1,234.50`, `0.0004`, `1.2e-9`, `3e300`."""
    size = abs(value)
    if size == 0:
        return f"{size:.{min(max(decimals, 0), _MOST_DECIMALS)}f}"
    own = -_exponent(size)
    if _SMALLEST <= size < _LARGEST:
        shown = max(0, min(decimals, own + _DIGITS - 1))
        text = f"{size:,.{shown}f}"
        return text if float(text.replace(",", "")) else f"{size:.{own}f}"
    digits, exponent = f"{size:.{min(max(decimals - own, 0), _DIGITS - 1)}e}".split("e")
    return f"{digits}e{int(exponent)}".replace("-", MINUS)


def brief(value: float) -> str:
    """Return a number with at most four digits, as one that somebody gave: `0.5`, `1e-9`."""
    digits, _, exponent = f"{value:.4g}".partition("e")
    return f"{digits}e{int(exponent)}".replace("-", MINUS) if exponent else digits


def reported(value: float) -> str:
    """Return a metric's value as a training reports it, of whatever size: `0.9493`, `9.1e−12`, `8.62e300`."""
    return f"{value:.4f}" if not value or 1e-3 <= abs(value) < 1e9 else brief(value)


def signed(value: float, decimals: int) -> str:
    """Return `+1.20`, `−0.30`, or a zero without sign."""
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    return sign + magnitude(value, decimals)


def _exponent(size: float) -> int:
    """Return the power of ten of a number's first digit."""
    return math.floor(math.log10(size))


def differences_text(values: Sequence[float], unit: str, *, decimals: int | None = None) -> list[str]:
    """Return a mean and its interval's bounds, signed and scaled, with `decimals` or such as fit the interval."""
    scaled = [scale_of(unit) * value for value in values]
    if decimals is None:
        decimals = decimals_for(scaled[2] / 2 - scaled[1] / 2 if len(scaled) == 3 else None, scaled[:1])
    return [signed(value, decimals) for value in scaled]


def given_difference(value: float, unit: str) -> str:
    """Return a difference that somebody gave: `0.5 points`, `1 point`, `2 s`."""
    number, noun = brief(scale_of(unit) * value), unit_of_differences(unit)
    is_plural = number != "1" or unit not in ("fraction", "percent", "nats", "bits", "epochs")
    return f"{number} {noun if is_plural else noun.removesuffix('s')}".rstrip()


def value_text(value: float, unit: str) -> str:
    """Return a metric's value: `82.83 %`, `0.5412`, `8.4 s`."""
    if unit == "seconds":
        return f"{value:,.3g} s" if value < 10 else f"{value:,.1f} s"
    return _value(value, unit, 0)


def ends_text(low: float, high: float, unit: str) -> str:
    """Return `82.78 % to 82.83 %`, with the decimals that tell two values apart."""
    for more in range(_DIGITS):
        ends = [_value(end, unit, more) if unit != "seconds" else value_text(end, unit) for end in (low, high)]
        if ends[0] != ends[1] or low == high:
            break
    return " to ".join(ends)


def _value(value: float, unit: str, more: int) -> str:
    """Return a value with as many more decimals than usual, and at least two digits of a small one."""
    decimals, ending = _VALUES.get(unit, (4, f" {unit}"))
    scaled = scale_of(unit) * value
    if unit == "target" and 1 <= abs(scaled) < _LARGEST:
        decimals = max(0, min(decimals, _DIGITS_OF_TARGETS - 1 - _exponent(abs(scaled))))
    if scaled and abs(scaled) < 10**-decimals:
        decimals = 1 - _exponent(abs(scaled))
    if abs(scaled) >= _LARGEST:
        decimals = 2 - _exponent(abs(scaled))
    text = magnitude(scaled, decimals + more).replace(",", "")
    return f"{MINUS if value < 0 else ''}{text}{ending}"


def level_percent(level: float) -> str:
    """Return a confidence level or a rate: `98.75 %`, and `99.99999 %` for what is not quite all."""
    digits = 4
    while digits < _DIGITS and level < 1 and float(f"{100 * level:.{digits}g}") >= 100:
        digits += 1
    return f"{100 * level:.{digits}g} %"


def ratio_text(ratio: float) -> str:
    """Return a ratio as a change: `+8 %`, `−0.4 %`, `unchanged`, and a large one as it is: `×31,000`."""
    if ratio >= _LARGE_RATIO:
        return f"×{magnitude(ratio, 0)}"
    change = 100 * (ratio - 1)
    if change == 0:
        return "unchanged"
    decimals = 0 if abs(change) >= 10 else 1 if abs(change) >= 0.1 else 2
    while ratio > 0 and float(f"{-change:.{decimals}f}") >= 100:  # what is left of it is not nothing
        decimals += 1
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
