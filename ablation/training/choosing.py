"""Chooses how fused convolutions are computed, by timing each way, and how many members fit into a device's memory."""

import contextlib
import copy
import dataclasses
import gc
import hashlib
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ablation.errors import PathUnavailable
from ablation.storage.permissions import make_folder
from ablation.training.paths import BACKENDS, Backend, fused_steps
from ablation.training.settings import Loss, Member
from ablation.training.together.replay import release_pools

TIMED_STEPS = 10
USED_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTimes:
    """Seconds per step of each backend that could train some members together, and of a member `alone` as a graph."""

    together: Mapping[Backend, float]
    alone: float

    @property
    def fastest(self) -> Backend:
        return min(self.together, key=lambda backend: self.together[backend])


def choose_backend(
    members: Sequence[Member],
    *,
    loss: Loss | None = None,
    cache: Path | None,
    must_gain: bool = False,
) -> Backend:
    """Return the fastest backend for members like these on their device, measured once and kept in the file `cache`.

    Args:
        must_gain: whether it must be faster than training the members one after another.

    Raises:
        PathUnavailable: none can train them together, or none gains by it.
        torch.OutOfMemoryError: so many do not fit.
    """
    key = measurement_key(members, loss)
    known = _read(cache)
    if key not in known:
        known[key] = measure_backends(members, loss=loss)
        _write(cache, {**_read(cache), **known})
    times = known[key]
    fused, apart = times.together[times.fastest], len(members) * times.alone
    if must_gain and len(members) > 1 and fused >= apart:
        said = f"a step of {len(members)} runs takes {1000 * fused:.3g} ms, and {1000 * apart:.3g} ms one by one"
        raise PathUnavailable("fused", said)
    return times.fastest


def measure_backends(members: Sequence[Member], *, loss: Loss | None = None) -> BackendTimes:
    """Time the step of every backend on copies of the members, which stay as they are.

    Raises:
        PathUnavailable: none can train them together, and why the last could not.
        torch.OutOfMemoryError: none had enough memory.
    """
    seconds: dict[Backend, float] = {}
    error: Exception | None = None
    for backend in BACKENDS:
        try:
            seconds[backend] = _seconds(members, backend, loss)
        except (RuntimeError, PathUnavailable) as raised:
            error = error if isinstance(error, torch.OutOfMemoryError) else raised
            let_go(raised)
        free_memory()
    if seconds:
        return BackendTimes(together=seconds, alone=_seconds(members[:1], "streams", loss))
    if isinstance(error, torch.OutOfMemoryError | PathUnavailable):
        raise error
    raise PathUnavailable("fused", str(error)) from error


def measurement_key(members: Sequence[Member], loss: Loss | None) -> str:
    """Return what a measurement holds for: device, versions, model, data, batch, optimizer, precision, how many.

    It holds for one way to choose cuDNN's algorithms too.
    """
    first = members[0]
    settings, data = first.settings, first.data
    device = data.images.device
    described = [
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        torch.__version__,
        torch.backends.cudnn.version() if device.type == "cuda" else None,  # type: ignore[no-untyped-call]
        str(first.model),
        [list(parameter.shape) for parameter in first.model.parameters()],
        list(data.images.shape[1:]),
        [settings.batch_size, settings.optimizer, settings.precision, settings.augmentation],
        _loss_name(first, loss),
        len(members),
        *(["cudnn.benchmark"] if first.cudnn_benchmark else []),
        *(["clipped"] if any(member.settings.gradient_clipping is not None for member in members) else []),
        *([dict(settings.optimizer_arguments)] if settings.optimizer_arguments else []),
        *(["weighted"] if first.class_weights is not None else []),
        *(["smoothed"] if settings.label_smoothing else []),
        *(["averaged"] if settings.ema is not None else []),
        *(["frozen"] if any(not parameter.requires_grad for parameter in first.model.parameters()) else []),
        *([list(data.labels.shape[1:])] if data.labels.dim() > 1 else []),
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _loss_name(member: Member, loss: Loss | None) -> str:
    if loss is None:
        # What was measured before there were tasks keeps its key.
        return "cross_entropy" if member.objective.task == "classification" else member.objective.task
    return str(getattr(loss, "__qualname__", repr(type(loss))))


def members_that_fit(member: Member, *, loss: Loss | None = None) -> int | None:
    """Return how many members like this one fit into its device's free memory together; None on a CPU.

    It is estimated from one step and the evaluations of a copy on its own, by what the allocator keeps for them: the
    pool of the graphs beside what their first calls took. Four fifths of what is free are used.
    """
    device = member.data.images.device
    if device.type != "cuda":
        return None
    if member.cudnn_benchmark:
        _bytes_taken(member, loss, device)  # what trying algorithms takes, those that are chosen do not
    taken = _bytes_taken(member, loss, device)
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(USED_SHARE * free / max(taken, 1)))


def _bytes_taken(member: Member, loss: Loss | None, device: torch.device) -> int:
    free_memory()
    before = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    model = copy.deepcopy(member.model)
    steps = fused_steps([replace(member, model=model)], backend="streams", study_seed=0, loss=loss)
    steps.seconds_per_step(1)
    steps.evaluate("sample")
    steps.evaluate("heldout")
    taken = torch.cuda.max_memory_reserved(device) - before
    del steps, model
    free_memory()
    return taken


def let_go(error: BaseException | None) -> None:
    """Let go of what an error holds, which may be most of a device's memory: its traceback, and autograd's queue.

    Cleared frames would not do: each has its function still, with what that closes over.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    # A backward pass that failed leaves what it had yet to do, with its tensors, to the thread's next one.
    with contextlib.suppress(RuntimeError):  # a device that is lost is told by `worker.devices`
        torch.zeros((), device="cpu", requires_grad=True).backward()  # type: ignore[no-untyped-call]


def free_memory() -> None:
    """Give up what a training that is over held on a GPU: its graphs refer to themselves, so wait for the collector."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        with contextlib.suppress(RuntimeError):  # `worker.devices` asks a device whether it can go on
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            release_pools()
            torch.cuda.empty_cache()


def _seconds(members: Sequence[Member], backend: Backend, loss: Loss | None) -> float:
    copies = [replace(member, model=copy.deepcopy(member.model)) for member in members]
    return fused_steps(copies, backend=backend, study_seed=0, loss=loss).seconds_per_step(TIMED_STEPS)


def _read(cache: Path | None) -> dict[str, BackendTimes]:
    """Return what was measured before; nothing where the file is missing or damaged, as it can be measured again."""
    if cache is None:
        return {}
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads(cache.read_text(encoding="utf-8"))
        return {key: BackendTimes(**times) for key, times in found.items()}
    return {}


def _write(cache: Path | None, measured: Mapping[str, BackendTimes]) -> None:
    if cache is not None:
        make_folder(cache.parent)
        beside = cache.with_name(f"{cache.name}.{os.getpid()}")
        text = json.dumps({key: dataclasses.asdict(times) for key, times in measured.items()}, indent=1)
        beside.write_text(text, encoding="utf-8")
        beside.replace(cache)
