"""Runs callables and returns futures: in this process, in others of which one may be killed, or on other machines."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ablation.errors import EngineMissing, ExecutorUnknown
from ablation.executors.addresses import Where
from ablation.executors.cores import available_cores
from ablation.executors.inline import InlineExecutor
from ablation.executors.interface import Executor, Files, JobExited, Needed, NodeLost, Place, TakenSlots, WorkerLost
from ablation.executors.processes import ProcessExecutor
from ablation.output import remark


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wished of an executor.

    `devices` are what jobs may run on; workers take turns on them. An engine has its own: of it, they are the one kind
    that is wished, `auto`, `cpu` or `cuda`. `workers` are jobs at a time, an engine's at most; by default one per GPU,
    or one per `threads` cores. `where` is an engine's scheduler; `say` is told what is waited for.
    """

    devices: tuple[str, ...]
    workers: int | None
    threads: int
    where: Where | None = None
    say: Callable[[str], object] = remark

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots of an executor on this machine."""
        on_gpu = self.devices[0] != "cpu"
        count = self.workers or (len(self.devices) if on_gpu else max(1, available_cores() // self.threads))
        return tuple(self.devices[index % len(self.devices)] for index in range(count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of executor; `package` is that of the engine which starts its workers, elsewhere too."""

    make: Callable[[Wish], Executor]
    package: str | None = None


def make_executor(
    kind: str,
    *,
    devices: tuple[str, ...],
    workers: int | None,
    threads: int,
    where: Where | None = None,
    say: Callable[[str], object] = remark,
) -> Executor:
    """Return an executor of a kind in EXECUTORS; see Wish."""
    return EXECUTORS[kind].make(Wish(devices=devices, workers=workers, threads=threads, where=where, say=say))


def kind_and_where(executor: str, *, is_open: bool = False) -> tuple[str, Where | None]:
    """Return which executor an option asks for, `processes` or `dask:scheduler.json`, and its engine's scheduler.

    `is_open` accepts a scheduler that others may reach.

    Raises:
        ExecutorUnknown: there is none of that kind, or where its scheduler is was left out.
        ClusterInvalid, NetworkOpen: no scheduler can be there, or others may reach it.
        EngineMissing: its engine is not installed.
    """
    name, colon, where = executor.partition(":")
    kind = EXECUTORS.get(name)
    if kind is None or bool(colon) != (kind.package is not None):
        raise ExecutorUnknown(executor, [_form(one) for one in EXECUTORS])
    if kind.package is None:
        return name, None
    found = Where(text=where, is_open=is_open)
    if importlib.util.find_spec(kind.package) is None:
        raise EngineMissing(name, kind.package)
    return name, found


def _form(name: str) -> str:
    return name if EXECUTORS[name].package is None else f"{name}:WHERE"


def _dask(wish: Wish) -> Executor:
    from ablation.executors.dask import DaskExecutor

    assert wish.where is not None
    return DaskExecutor(wish.where, device=wish.devices[0], workers=wish.workers, say=wish.say)


EXECUTORS: Mapping[str, Kind] = {
    "auto": Kind(make=lambda wish: ProcessExecutor(slots=wish.slots)),
    "inline": Kind(make=lambda wish: InlineExecutor(device=wish.slots[0])),
    "processes": Kind(make=lambda wish: ProcessExecutor(slots=wish.slots)),
    "dask": Kind(make=_dask, package="distributed"),
}
"""By name; `auto` is `processes`."""

__all__ = [
    "EXECUTORS",
    "Executor",
    "Files",
    "InlineExecutor",
    "JobExited",
    "Kind",
    "Needed",
    "NodeLost",
    "Place",
    "ProcessExecutor",
    "TakenSlots",
    "Where",
    "Wish",
    "WorkerLost",
    "kind_and_where",
    "make_executor",
]
