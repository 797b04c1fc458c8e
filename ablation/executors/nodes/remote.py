"""A job on a node, from the slot that is kept for it to what it left: the coordinator's side."""

import asyncio
import contextlib
import os
import pickle
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ablation.executors.interface import JobExited
from ablation.executors.nodes.delivering import (
    Asking,
    Deliveries,
    fetch_leaves,
    give_leave,
    place_checkpoints,
    place_ended,
)
from ablation.executors.nodes.files import Incoming
from ablation.executors.nodes.home import CoordinatorFolder
from ablation.executors.nodes.roster import Node, RemoteJob
from ablation.stopping import Preempted

CARRY_EVERY_S = float(os.environ.get("ABLATION_CARRY_SECONDS", "60"))
"""Seconds from one carried checkpoint of a job to the next, at least."""
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
        said = await self._ask(
            "reserve",
            coordinator=self._coordinator,
            round=job.round,
            device=device,
            of=self._home.id if self._home is not None else "0" * 32,
            leaves=list(job.leaves),
            needs=[need.name for need in needs],
        )
        for need in needs:
            if need.name in said["missing"]:
                assert self._home is not None
                await self._deliveries.bring(
                    need,
                    address=self._node.address,
                    folder=self._node.folder,
                    token=job.token,
                    nonce=self._home.nonce,
                )
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
        said = await self._ask("offer_ended")
        await self._take_ended(said["left"])
        return _outcome(said)

    async def close(self) -> None:
        """Have the node forget the job, and what it left there; one that was lost forgets it when it is asked again."""
        await self._stop_carrying()
        if self._job.lost is None:
            await self._ask("release")

    async def _stop_carrying(self) -> None:
        self._job.on_kept = lambda: None
        if self._carrying is not None:
            self._carrying.cancel()
            await asyncio.wait([self._carrying])

    # What comes from there

    def _carry_when_due(self) -> None:
        """Fetch the latest checkpoint, where the one before is old enough; called once in each answer of the node."""
        every_s = max(CARRY_EVERY_S, CARRY_SHARE * self._carrying_s)
        is_idle = self._carrying is None or self._carrying.done()
        if is_idle and self._job.kept > self._carried and time.monotonic() - self._carried_at >= every_s:
            self._carrying = asyncio.create_task(self._carry_checkpoints())

    async def _carry_checkpoints(self) -> None:
        begun, epoch = time.monotonic(), self._job.kept
        with contextlib.suppress(OSError):  # it was replaced meanwhile, or there is no room: the next one is soon due
            incoming = await self._fetched(await self._ask("offer_checkpoint"))
            if incoming:
                await asyncio.to_thread(place_checkpoints, incoming)
                self._carried = epoch
                self._tell(list(self._job.leaves))
        self._carried_at = time.monotonic()
        self._carrying_s = self._carried_at - begun

    async def _take_ended(self, left: Mapping[str, Any]) -> None:
        job = self._job
        if job.files is None:
            return
        news = {leave: plain for leave, plain in left.items() if not self._is_as_given(leave, plain)}
        incoming = await self._fetched(news)
        for folder, one in incoming.items():
            await asyncio.to_thread(place_ended, folder, one)
        self._tell(list(news))

    async def _fetched(self, offered: Mapping[str, Any]) -> dict[Path, Incoming]:
        """Return what is offered of the job's folders, fetched and checked, by where it belongs."""
        assert self._home is not None
        assert self._job.files is not None
        beside = self._home.beside()
        incoming = await fetch_leaves(self._ask, offered, self._job.leaves, beside)
        return {self._job.files.home / leave: one for leave, one in incoming.items()}

    def _is_as_given(self, leave: str, plain: Any) -> bool:
        given = [file.plain() for file in self._job.given.get(leave, ())]
        return sorted(given, key=lambda one: str(one["name"])) == sorted(plain, key=lambda one: str(one.get("name")))

    def _tell(self, leaves: list[str]) -> None:
        assert self._job.files is not None
        for leave in leaves:
            self._job.files.on_change(leave)


def _outcome(said: Mapping[str, Any]) -> Any:
    """Return a job's result, or raise its error."""
    try:
        value = pickle.loads(said["value"])  # noqa: S301 - of a worker that dask trusts as much
    except Exception as error:
        raise JobExited(f"what it returned cannot be read here: {type(error).__name__}: {error}") from error
    if said["kind"] == "result":
        return value
    raise value if isinstance(value, Exception) else Preempted
