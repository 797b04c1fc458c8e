"""Trains runs by the fastest path that can: fused, then each as a graph, then eagerly; the slower, where it must be.

What was begun on one path is never finished on another: a run that takes a slower one begins anew, so that each was
trained by one path from its first step to its last. A run alone does not leave a path after its first epoch; those that
are trained together do, as one may have spoilt it for all.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from ablation.errors import PathUnavailable
from ablation.records import EpochMetrics, Settings
from ablation.storage.run_folder import RunFolder
from ablation.training import (
    Backend,
    Checkpoints,
    EpochsTogether,
    SnapshotMismatch,
    TrainingResult,
    choose_backend,
    free_memory,
    let_go,
    members_that_fit,
    train_eager,
    train_fused,
    train_graph,
)
from ablation.training.paths import NUMBERS
from ablation.worker.checkpoints import JobCheckpoints, Resumable
from ablation.worker.devices import computes, peak_memory_mib
from ablation.worker.failures import DeviceLost, check_is_of_the_run, is_out_of_memory
from ablation.worker.setup import Beginning

LONGEST_REASON = 300


class Run(Resumable, Protocol):
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

    def at(self, folder: Path) -> "Fusing":
        """Return the same with the file below a folder, where its path is not whole."""
        return replace(self, cache=folder / self.cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What became of a run: its result or its error, the path that it took, and a note on that.

    `path` is eager, graph or fused; the note says how it was fused, or why it was by no faster path. `seconds` and
    `peak_memory_mib` are the run's share of what those that were trained together took. An error has no traceback, as
    that holds what was trained: `error_text` has it, as Python prints it.
    """

    ended: TrainingResult | BaseException
    path: str
    note: str
    seconds: float
    peak_memory_mib: float
    error_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """How training by a path ended: results or an error, and whether any epoch was done; its seconds, its memory."""

    ended: tuple[TrainingResult, ...] | BaseException
    error_text: str
    is_begun: bool
    seconds: float
    peak_memory_mib: float

    def trained(self, path: str, note: str, *, together: int = 1) -> list[Trained]:
        return [
            Trained(
                ended=self.ended if isinstance(self.ended, BaseException) else self.ended[index],
                path=path,
                note=note,
                seconds=self.seconds / together,
                peak_memory_mib=self.peak_memory_mib / together,
                error_text=self.error_text,
            )
            for index in range(together)
        ]


def alike(settings: Settings, folder: RunFolder) -> str:
    """Return what runs must have in common to be fused: all but numbers of the optimizer, and how far they are."""
    training = {name: value for name, value in settings.training.plain().items() if name not in NUMBERS}
    kept = [(epoch, path) for epoch, path, _ in folder.kept_checkpoints()[:1]]
    return json.dumps({**settings.plain(), "training": training, "kept": kept}, sort_keys=True)


def train_alone(run: Run, device: torch.device, *, note: str = "") -> Trained:
    """Train one run, on a GPU as a graph, or eagerly where that cannot be."""

    def graph(beginnings: list[Beginning], checkpoints: Checkpoints) -> EpochsTogether:
        (one,) = beginnings
        return train_graph(one.member, study_seed=one.study_seed, loss=one.loss, checkpoints=checkpoints)

    def eager(beginnings: list[Beginning], checkpoints: Checkpoints) -> EpochsTogether:
        (one,) = beginnings
        return train_eager(one.member, study_seed=one.study_seed, loss=one.loss, checkpoints=checkpoints)

    if device.type == "cuda" and run.folder.trained_by() != "eager":
        attempt = _attempt([run], device, "graph", graph)
        if attempt.is_begun or not isinstance(attempt.ended, BaseException) or not computes(device):
            return attempt.trained("graph", note)[0]
        note = "; ".join(filter(None, [note, _reason("graph", attempt.ended)]))
    return _attempt([run], device, "eager", eager).trained("eager", note)[0]


def train_together(runs: Sequence[Run], device: torch.device, fusing: Fusing) -> Iterator[Trained]:
    """Train runs fused, as many at once as the device has room for; where that cannot be, each alone.

    Yields what became of each, in their order, as soon as it is known.

    Raises:
        DeviceLost: the device computes nothing more, and it is not known for which of them.
    """
    if runs[0].folder.trained_by() in ("eager", "graph"):  # what was begun on one path is finished on it
        yield from (train_alone(run, device) for run in runs)
        return
    backends: list[Backend] = []

    def fused(beginnings: list[Beginning], checkpoints: Checkpoints) -> EpochsTogether:
        backends.append(_backend(beginnings, fusing))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        first, members = beginnings[0], [beginning.member for beginning in beginnings]
        return train_fused(
            members, backend=backends[-1], study_seed=first.study_seed, loss=first.loss, checkpoints=checkpoints
        )

    attempt = _attempt(runs, device, "fused", fused)
    ended, is_begun = attempt.ended, attempt.is_begun
    if isinstance(ended, BaseException) and len(runs) > 1 and not computes(device):
        raise DeviceLost(_reason("fused", ended))
    if isinstance(ended, BaseException) and is_out_of_memory(ended) and len(runs) > 1:
        half = (len(runs) + 1) // 2
        for those in (runs[:half], runs[half:]):
            yield from train_together(those, device, fusing)
    elif isinstance(ended, BaseException) and (not is_begun or len(runs) > 1):
        for run in runs:
            yield train_alone(run, device, note=_reason("fused", ended))
    else:
        note = f"runs together: {len(runs)}, convolutions: {backends[-1]}"
        yield from attempt.trained("fused", note, together=len(runs))


def _attempt(
    runs: Sequence[Run],
    device: torch.device,
    name: str,
    path: Callable[[list[Beginning], Checkpoints], EpochsTogether],
) -> _Attempt:
    """Train runs by a path, from their beginning or from where it was left, to their end or an error."""
    started, is_begun, error_text = time.perf_counter(), False, ""
    checkpoints = JobCheckpoints(runs, path=name, device=device)
    ended: tuple[TrainingResult, ...] | BaseException
    try:
        epochs = path([run.begin() for run in runs], checkpoints)
        while True:
            try:
                found = next(epochs)
            except SnapshotMismatch:
                checkpoints.is_going_on = False
                for run in runs:
                    run.begin_anew()
                epochs = path([run.begin() for run in runs], checkpoints)
                continue
            except StopIteration as end:
                ended = end.value
                break
            is_begun = True
            for run, metrics in zip(runs, found, strict=True):
                if metrics is not None:
                    run.take(metrics)
    except BaseException as error:  # noqa: BLE001 - the result of these runs, or the reason to take another path
        check_is_of_the_run(error)
        error_text = "".join(traceback.format_exception(error))
        let_go(error)
        ended = error
    attempt = _Attempt(
        ended=ended,
        error_text=error_text,
        is_begun=is_begun or checkpoints.is_going_on,
        seconds=time.perf_counter() - started,
        peak_memory_mib=peak_memory_mib(device),
    )
    free_memory()
    return attempt


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


def _reason(path: str, error: BaseException) -> str:
    """Say in a line why a path was not taken."""
    what = error.reason if isinstance(error, PathUnavailable) else f"{type(error).__name__}: {error}"
    line = " ".join(what.split())
    return f"not {path}: {line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON] + '…'}"
