"""Trains runs by the fastest path that can: fused, then each as a graph, then eagerly; the slower, where it must be.

A path is left before its first epoch is done, or not at all: what was begun on one is never finished on another. A run
that takes a slower path begins anew, so that each run was trained by one path from its first step to its last.
"""

import gc
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ablation.errors import PathUnavailable
from ablation.results import EpochMetrics
from ablation.training import (
    Backend,
    EpochsTogether,
    TrainingResult,
    choose_backend,
    members_that_fit,
    train_eager,
    train_fused,
    train_graph,
)
from ablation.worker.beginning import Beginning

LONGEST_REASON = 300


class Run(Protocol):
    """A run to be trained: begins as often as it is asked to, and takes the epochs of the path that trains it."""

    def begin(self) -> Beginning: ...

    def take(self, metrics: EpochMetrics) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusing:
    """How runs are fused: `cache` is the file that backends' times are kept in.

    With `must_gain`, only where that is faster than one after another.
    """

    cache: Path
    must_gain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What became of a run: its result or its error, the path that it took, and a note on that.

    `path` is eager, graph or fused, with as many runs `together`; the note says how it was fused, or why it was by no
    faster path.
    """

    ended: TrainingResult | Exception
    path: str
    note: str = ""
    together: int = 1


def train_alone(run: Run, device: torch.device, *, note: str = "") -> Trained:
    """Train one run, on a GPU as a graph, or eagerly where that cannot be."""
    if device.type == "cuda":
        begun, ended = _attempt([run], device, lambda beginnings: _graph(beginnings[0]))
        if not isinstance(ended, Exception):
            return Trained(ended=ended[0], path="graph", note=note)
        if begun:
            return Trained(ended=ended, path="graph", note=note)
        note = "; ".join(filter(None, [note, _reason("graph", ended)]))
    _, ended = _attempt([run], device, lambda beginnings: _eager(beginnings[0]))
    return Trained(ended=ended if isinstance(ended, Exception) else ended[0], path="eager", note=note)


def train_together(runs: Sequence[Run], device: torch.device, fusing: Fusing) -> list[Trained]:
    """Train runs fused, as many at once as the device has room for; where that cannot be, each alone."""
    backends: list[Backend] = []

    def fused(beginnings: list[Beginning]) -> EpochsTogether:
        backends.append(_backend(beginnings, fusing))
        first, members = beginnings[0], [beginning.member for beginning in beginnings]
        return train_fused(members, backend=backends[-1], study_seed=first.study_seed, loss=first.loss)

    begun, ended = _attempt(runs, device, fused)
    if isinstance(ended, torch.OutOfMemoryError) and not begun and len(runs) > 1:
        half = (len(runs) + 1) // 2
        return [part for those in (runs[:half], runs[half:]) for part in train_together(those, device, fusing)]
    if isinstance(ended, Exception) and not begun:
        return [train_alone(run, device, note=_reason("fused", ended)) for run in runs]
    note = f"runs together: {len(runs)}, convolutions: {backends[-1]}"
    each = [ended for _ in runs] if isinstance(ended, Exception) else ended
    return [Trained(ended=one, path="fused", note=note, together=len(runs)) for one in each]


def _attempt(
    runs: Sequence[Run], device: torch.device, path: Callable[[list[Beginning]], EpochsTogether]
) -> tuple[bool, tuple[TrainingResult, ...] | Exception]:
    """Train runs by a path; return whether any epoch was done, and the results or the error that ended it."""
    is_begun = False
    try:
        epochs = path([run.begin() for run in runs])
        while True:
            try:
                found = next(epochs)
            except StopIteration as end:
                results: tuple[TrainingResult, ...] = end.value
                return True, results
            is_begun = True
            for run, metrics in zip(runs, found, strict=True):
                if metrics is not None:
                    run.take(metrics)
    except Exception as error:  # noqa: BLE001 - the result of these runs, or the reason to take another path
        _let_go(error)
        return is_begun, error
    finally:
        if device.type == "cuda":  # where graphs, which refer to themselves, hold memory until they are collected
            gc.collect()
            torch.cuda.empty_cache()


def _backend(beginnings: Sequence[Beginning], fusing: Fusing) -> Backend:
    """Return the fastest way to compute the convolutions of runs together.

    Raises:
        torch.OutOfMemoryError: there is no room for so many.
        PathUnavailable: there is none, or none that gains where it must.
    """
    loss, members = beginnings[0].loss, [beginning.member for beginning in beginnings]
    room = members_that_fit(members[0], loss=loss)
    if room is not None and room < len(members):
        raise torch.OutOfMemoryError(f"{len(members)} runs at once, and there is room for {room}")
    return choose_backend(members, loss=loss, cache=fusing.cache, must_gain=fusing.must_gain)


def _graph(beginning: Beginning) -> EpochsTogether:
    return train_graph(beginning.member, study_seed=beginning.study_seed, loss=beginning.loss)


def _eager(beginning: Beginning) -> EpochsTogether:
    return train_eager(beginning.member, study_seed=beginning.study_seed, loss=beginning.loss)


def _reason(path: str, error: Exception) -> str:
    """Say in a line why a path was not taken."""
    what = error.reason if isinstance(error, PathUnavailable) else f"{type(error).__name__}: {error}"
    line = " ".join(what.split())
    return f"not {path}: {line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON] + '…'}"


def _let_go(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold, which may be most of a device's memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
