"""A job on a node, from the slot that is kept for it to what it left: the coordinator's side."""

import asyncio
import contextlib
import os
import pickle
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ablation.executors.interface import JobExited
from ablation.executors.nodes.delivering import (
    Asking,
    Deliveries,
    fetch_leaves,
    give_leave,
    offers,
    place_checkpoints,
    place_ended,
)
from ablation.executors.nodes.files import CarriedFile, CarriedWrong, Incoming, reading
from ablation.executors.nodes.home import CoordinatorFolder
from ablation.executors.nodes.refusing import Refused
from ablation.executors.nodes.roster import Node, RemoteJob
from ablation.stopping import Preempted

T = TypeVar("T")
CARRY_EVERY_S = float(os.environ.get("ABLATION_CARRY_SECONDS", "60"))
"""Seconds from one carried checkpoint of a job to the next, at least."""
TAKES = 3
"""Times that what a job left is fetched, where it is not what was announced."""
CARRY_SHARE = 20
"""The same, in times that it took to carry one."""


class Remote:
    """One try of a job on one node."""

    def __init__(
        self,
        job: RemoteJob,
        node: Node,
        *,
        ask: Asking,
        deliveries: Deliveries,
        home: CoordinatorFolder | None,
        coordinator: str,
    ) -> None:
        """Know what it is of; `home` is of the job's files, None where it has none."""
        self._job, self._node, self._home, self._coordinator = job, node, home, coordinator
        self._deliveries, self._asking = deliveries, ask
        self._token = job.token
        self._ask = partial(ask, node.address, token=job.token)
        self._carrying: asyncio.Task[None] | None = None
        self._carried, self._carried_at, self._carrying_s = 0, 0.0, 0.0

    async def begin(self, device: str) -> None:
        """Have the job run there.

        Raises:
            Refused: the node has no slot for it.
        """
        job = self._job
        needs = job.files.needs if job.files is not None else ()
        await self._ask(
            "reserve",
            coordinator=self._coordinator,
            asked_in=job.round,
            device=device,
            of=self._home.id if self._home is not None else "0" * 32,
            leaves=list(job.leaves),
        )
        for need in needs:
            assert self._home is not None
            await self._deliveries.bring(need, node=self._node, token=job.token, home=self._home)
        for leave in job.leaves:
            assert job.files is not None
            job.given[leave] = await give_leave(self._ask, leave, job.files.home / leave)
        job.on_kept = self._carry_when_due
        self._carried_at = time.monotonic()
        await self._ask("start", call=job.call, has_files=job.files is not None)
        job.is_started = True

    async def outcome(self) -> Any:
        """Wait for the end of the job, and return its result once all that it left is here.

        Raises:
            Exception: what the job raised.
        """
        await self._job.ended.wait()
        await self._stop_carrying()
        for attempt in range(TAKES):
            said = await self._ask("offer_ended")
            with reading():
                left, kind, value = said["left"], str(said["kind"]), bytes(said["value"])
            try:
                await self._take_ended(left)
                break
            except CarriedWrong:  # what its code has left behind may still write
                if attempt == TAKES - 1:
                    raise
        return _outcome(kind, value)

    async def close(self) -> None:
        """Have the node forget the job, and what it left there; one that was lost forgets it when it is asked again."""
        await self._stop_carrying()
        if self._job.lost is None:
            await self._ask("release")

    async def _stop_carrying(self) -> None:
        """Fetch no more checkpoints.

        Raises:
            CarriedWrong: what was sent as one was none.
        """
        self._job.on_kept = lambda: None
        carrying, self._carrying = self._carrying, None
        if carrying is not None:
            carrying.cancel()
            await asyncio.wait([carrying])
            if not carrying.cancelled() and (error := carrying.exception()) is not None:
                raise error

    # What comes from there

    def _carry_when_due(self) -> None:
        """Fetch the latest checkpoint, where the one before is old enough; called once in each answer of the node."""
        every_s = max(CARRY_EVERY_S, CARRY_SHARE * self._carrying_s)
        is_idle = self._carrying is None or self._carrying.done()
        if is_idle and self._job.kept > self._carried and time.monotonic() - self._carried_at >= every_s:
            self._carrying = asyncio.create_task(self._carry_checkpoints())

    async def _carry_checkpoints(self) -> None:
        begun, epoch = time.monotonic(), self._job.kept
        with contextlib.suppress(OSError, Refused):  # it was replaced meanwhile, or there is no room now
            offered = offers(await self._ask("offer_checkpoint"), self._job.leaves)
            if offered:
                await self._fetch(offered, place_checkpoints)
                self._carried = epoch
                self._tell(list(self._job.leaves))
        self._carried_at = time.monotonic()
        self._carrying_s = self._carried_at - begun

    async def _take_ended(self, left: object) -> None:
        job = self._job
        if job.files is None:
            return
        offered = offers(left, job.leaves)
        news = {leave: files for leave, files in offered.items() if set(files) != set(job.given.get(leave, ()))}
        await self._fetch(news, _place_all_ended)
        self._tell(list(news))

    async def _fetch(
        self, offered: Mapping[str, Sequence[CarriedFile]], place: Callable[[Mapping[Path, Incoming]], object]
    ) -> None:
        """Fetch what is offered of the job's folders, check it, and put it in place, by where it belongs."""
        assert self._home is not None
        assert self._job.files is not None
        home, beside = self._job.files.home, self._home.beside()
        try:
            incoming = await fetch_leaves(self._ask, offered, beside)
            await _to_its_end(place, {home / leave: one for leave, one in incoming.items()})
        finally:
            await asyncio.to_thread(shutil.rmtree, beside, ignore_errors=True)

    def _tell(self, leaves: list[str]) -> None:
        assert self._job.files is not None
        for leave in leaves:
            self._job.files.on_change(leave)


def _place_all_ended(incoming: Mapping[Path, Incoming]) -> None:
    for folder, one in incoming.items():
        place_ended(folder, one)


async def _to_its_end(function: Callable[[T], object], given: T) -> None:
    """Call a function in a thread, and wait for its end also where this job is given up meanwhile.

    Or it would go on to write when the run has begun elsewhere.
    """
    calling = asyncio.create_task(asyncio.to_thread(function, given))
    try:
        await asyncio.shield(calling)
    except asyncio.CancelledError:
        await calling
        raise


def _outcome(kind: str, pickled: bytes) -> Any:
    """Return a job's result, or raise its error."""
    try:
        value = pickle.loads(pickled)  # noqa: S301 - of a worker that dask trusts as much
    except Exception as error:
        raise JobExited(f"what it returned cannot be read here: {type(error).__name__}: {error}") from error
    if kind == "result":
        return value
    raise value if isinstance(value, Exception) else Preempted
