"""Gives the learning rate of each training step."""

import math
from collections.abc import Callable, Mapping

ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 25.0
ONE_CYCLE_END = 1e4


def learning_rate_at(step: int, total_steps: int, *, schedule: str, peak: float) -> float:
    """Return the learning rate of step `step`, counted from 0.

    cosine falls from the peak to 0 (Loshchilov & Hutter 2017, without restarts); one-cycle rises from peak/25 over
    the first 30 % of the steps and falls to peak/250,000, both along a cosine (Smith & Topin 2018, as
    torch.optim.lr_scheduler.OneCycleLR does it).
    """
    return SCHEDULES[schedule](step, total_steps, peak)


def _constant(_step: int, _total_steps: int, peak: float) -> float:
    return peak


def _to_zero(step: int, total_steps: int, peak: float) -> float:
    return _cosine(peak, 0.0, step / total_steps)


def _one_cycle(step: int, total_steps: int, peak: float) -> float:
    start = peak / ONE_CYCLE_START
    top = ONE_CYCLE_RISE * total_steps - 1
    if step <= top:
        return _cosine(start, peak, step / top)
    return _cosine(peak, start / ONE_CYCLE_END, (step - top) / (total_steps - 1 - top))


SCHEDULES: Mapping[str, Callable[[int, int, float], float]] = {
    "constant": _constant,
    "cosine": _to_zero,
    "one-cycle": _one_cycle,
}
"""By name: (step, steps in all, peak) to a learning rate."""


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * share))
