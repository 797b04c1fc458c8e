"""Gives jobs to the nodes that have room, again where they were not begun, and their futures what became of them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ablation.errors import DiskFull
from ablation.executors.interface import NodeLost
from ablation.executors.nodes.agent import LEASE_S
from ablation.executors.nodes.delivering import Asking, Deliveries
from ablation.executors.nodes.files import CarriedWrong
from ablation.executors.nodes.home import CoordinatorFolder, of_this_disk
from ablation.executors.nodes.refusing import Refused
from ablation.executors.nodes.remote import Remote
from ablation.executors.nodes.roster import Node, RemoteJob, Roster
from ablation.stopping import Preempted

BEHIND_S = 1.0
"""Seconds in which nodes are told at the end what is wanted no more; their leases tell them too."""


class Showing(Protocol):
    """Shows a job to whoever looks at the cluster, as long as what is returned is kept."""

    def __call__(self, token: str, address: str) -> object: ...


class Placing:
    """The jobs of one coordinator, `most` at a time; to be used in one event loop.

    `wake` is called when something has ended that makes another look at the nodes worth while.
    """

    def __init__(
        self, roster: Roster, *, ask: Asking, show: Showing, wake: Callable[[], object], most: int | None
    ) -> None:
        self._roster, self._ask, self._show, self._wake, self._most = roster, ask, show, wake, most
        self._deliveries = Deliveries(ask)
        roster.on_lost = self._deliveries.forget
        self._waiting: deque[RemoteJob] = deque()
        self._homes: dict[Path, CoordinatorFolder] = {}
        self._behind: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    @property
    def slots(self) -> int:
        """How many jobs may run now, those that do included."""
        there = sum(node.capacity for node in self._roster.nodes.values())
        return there if self._most is None else min(there, self._most)

    def take(self, job: RemoteJob) -> None:
        """Have a job run, as soon as there is room for it."""
        if self._is_stopping:
            settle(job.future, error=Preempted())
        else:
            self._waiting.append(job)
            self.place()

    def place(self) -> None:
        """Have waiting jobs begun where there is room for them."""
        nodes = list(self._roster.nodes.values())
        running = sum(len(node.jobs) for node in nodes)
        for node in sorted(nodes, key=lambda node: -node.free):
            while self._waiting and node.free > 0 and (self._most is None or running < self._most):
                job = self._waiting.popleft()
                job.begin_try(self._roster.round)
                node.jobs[job.token] = job
                running += 1
                job.task = asyncio.create_task(self._carry_out(job, node))

    def begin_stop(self) -> None:
        """Take no more jobs, and have those that run brought to an end."""
        self._is_stopping = True
        while self._waiting:
            settle(self._waiting.popleft().future, error=Preempted())
        for node in self._roster.nodes.values():
            if node.jobs:
                self._behind_it(partial(self._ask, node.address, "end", coordinator=self._roster.id))

    async def end(self, failure: BaseException | None) -> None:
        """Let go of all jobs; what has not ended fails, or was asked to end."""
        self._is_stopping = True
        running = [job for node in self._roster.nodes.values() for job in node.jobs.values()]
        for job in (*running, *self._waiting):
            settle(job.future, error=failure or Preempted())
        tasks = [job.task for job in running if job.task is not None]
        for task in tasks:
            task.cancel()
        for under_way in (tasks, self._behind):
            if under_way:
                await asyncio.wait(under_way, timeout=BEHIND_S)
        for home in self._homes.values():
            home.leave()

    async def _carry_out(self, job: RemoteJob, node: Node) -> None:
        token = job.token
        try:
            result = await self._on_node(job, node)
        except asyncio.CancelledError:
            settle(job.future, error=NodeLost(node.label, job.lost) if job.lost is not None else Preempted())
        except Refused as refused:
            self._refuse(job, node, refused)
        except DiskFull as error:
            self._roster.set_unfit(node, f"it cannot write in {error.folder}: {error.reason}")
            self._again(job)
        except CarriedWrong as error:
            self._roster.set_unfit(node, str(error))
            settle(job.future, error=NodeLost(node.label, f"is not to be trusted: {error}"))
        except OSError as error:
            settle(job.future, error=of_this_disk(error, job.files.home if job.files is not None else Path()))
        except Exception as error:  # noqa: BLE001 - of the job: its future carries it
            settle(job.future, error=error)
        else:
            settle(job.future, result=result)
        finally:
            node.jobs.pop(token, None)
            self.place()

    async def _on_node(self, job: RemoteJob, node: Node) -> Any:
        """Return what a job returns, once all that it left is here; raise what it raised."""
        home = self._home(job.files.home) if job.files is not None else None
        remote = Remote(job, node, ask=self._ask, deliveries=self._deliveries, home=home, coordinator=self._roster.id)
        try:
            await remote.begin(self._roster.device)
            shown = self._show(job.token, node.address)
            result = await remote.outcome()
            del shown
            return result
        finally:
            self._behind_it(remote.close)

    def _home(self, folder: Path) -> CoordinatorFolder:
        if folder not in self._homes:
            self._homes[folder] = CoordinatorFolder.of(folder)
        return self._homes[folder]

    def _refuse(self, job: RemoteJob, node: Node, refused: Refused) -> None:
        """Give a job elsewhere that a node did not begin; one that it had begun is lost with it."""
        if job.is_started:
            settle(job.future, error=NodeLost(node.label, f"does not have it any more: {refused}"))
            return
        if refused.kind == "busy":
            node.others += 1
        elif refused.kind == "ending":
            node.is_ending = True
        elif refused.kind != "stale":
            self._roster.set_unfit(node, str(refused))
        self._again(job)

    def _again(self, job: RemoteJob) -> None:
        """Have a job run before all that wait."""
        if self._is_stopping:
            settle(job.future, error=Preempted())
        else:
            self._waiting.appendleft(job)

    def _behind_it(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have something done that nobody waits for: where it fails, the lease does it."""

        async def done() -> None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(LEASE_S):
                    await work()
                self._wake()

        task = asyncio.create_task(done())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)


def settle(future: "Future[Any]", *, result: Any = None, error: BaseException | None = None) -> None:
    """Complete a job's future, unless that was done."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
