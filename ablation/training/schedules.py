"""Gives the learning rate of each training step: by a formula, or as a scheduler of PyTorch's gives it."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from ablation.errors import SettingInvalid
from ablation.training.settings import TrainingSettings

ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 25.0
ONE_CYCLE_END = 1e4
PATH = "training.schedule_arguments"


def learning_rates(settings: TrainingSettings, steps_per_epoch: int) -> list[float]:
    """Return the learning rate of every step of a training.

    cosine falls from the peak to 0 (Loshchilov & Hutter 2017, without restarts); one-cycle rises from peak/25 over
    the first 30 % of the steps and falls to peak/250,000, both along a cosine (Smith & Topin 2018, as
    torch.optim.lr_scheduler.OneCycleLR does it). Of the steps of a warm-up of W, step i, counted from 1, has i/W of
    what the schedule says.

    Raises:
        SettingInvalid: PyTorch refuses the schedule, or it gives a rate that is none.
    """
    total = steps_per_epoch * settings.epochs
    formula = SCHEDULES.get(settings.schedule)
    if formula is not None:
        rates = [formula(step, total, settings.learning_rate) for step in range(total)]
    else:
        each = UNITS[settings.schedule_unit](steps_per_epoch)
        rates = [rate for rate in _rates_of_torch(settings, total // each) for _ in range(each)]
    rising = settings.warmup * steps_per_epoch
    return [rate * (step / rising) if step < rising else rate for step, rate in enumerate(rates, start=1)]


def _rates_of_torch(settings: TrainingSettings, count: int) -> list[float]:
    """Step a scheduler over an optimizer of one parameter that is never changed."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=settings.learning_rate)
    rates: list[float] = []
    try:
        scheduler = _scheduler(settings, optimizer, count)
        for number in range(count):
            if number:
                optimizer.step()  # which warns where it comes after its schedule's
                scheduler.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        said = f"{settings.schedule} refuses {_shown(settings)} for {count} {settings.schedule_unit}s"
        raise SettingInvalid(f"{said}: {error}", path=PATH) from error
    wrong = next((number for number, rate in enumerate(rates) if not 0 <= rate < math.inf), None)
    if wrong is not None:
        where = f"{rates[wrong]:g} in {settings.schedule_unit} {wrong + 1}"
        raise SettingInvalid(f"{settings.schedule} with {_shown(settings)} gives the learning rate {where}", path=PATH)
    return rates


def _scheduler(settings: TrainingSettings, optimizer: SGD, count: int) -> LRScheduler:
    kind = getattr(torch.optim.lr_scheduler, settings.schedule, None)
    if not isinstance(kind, type) or not issubclass(kind, LRScheduler):
        what = f"PyTorch {torch.__version__} has no schedule {settings.schedule!r}"
        raise SettingInvalid(what, path="training.schedule")
    own: dict[str, Any] = {"max_lr": settings.learning_rate, "base_lr": settings.learning_rate, "total_steps": count}
    # CyclicLR begins at its `base_lr` and is given its `max_lr`, OneCycleLR has its `max_lr` alone.
    own = {name: own[name] for name in GIVEN.get(settings.schedule, ())}
    own |= {"cycle_momentum": False} if "cycle_momentum" in inspect.signature(kind).parameters else {}
    scheduler: LRScheduler = kind(optimizer, **settings.schedule_arguments, **own)
    return scheduler


def _shown(settings: TrainingSettings) -> str:
    given = ", ".join(f"{name}: {value}" for name, value in settings.schedule_arguments.items())
    return f"{{{given}}}"


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
"""By name: (step, steps in all, peak) to a learning rate. Any other is a class of `torch.optim.lr_scheduler`."""
UNITS: Mapping[str, Callable[[int], int]] = {"epoch": lambda steps: steps, "step": lambda _steps: 1}
"""By what a scheduler counts: (steps per epoch) to the steps that one rate is for."""
GIVEN: Mapping[str, tuple[str, ...]] = {"CyclicLR": ("base_lr",), "OneCycleLR": ("max_lr", "total_steps")}
"""What schedulers are given beside their arguments: the rate of the settings, and how long the training is."""


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * share))
