"""The agent within a worker of dask: questions come as calls of an operation that a plugin adds to the worker.

A worker that is asked to end is kept until the agent's coordinators have fetched what its jobs left.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from distributed import Worker, WorkerPlugin, get_worker
from distributed.core import Status
from distributed.worker import secede

from ablation.executors.nodes.agent import Agent
from ablation.executors.nodes.files import CarriedFile, CarriedWrong
from ablation.executors.nodes.folder import NodeFolder, folder_unusable
from ablation.executors.nodes.refusing import Refused
from ablation.executors.nodes.slots import Slots

NAME = "ablation"
"""Of the operation that is added to a worker."""
ASKED = (signal.SIGTERM, signal.SIGINT)
LOOK_S = 1.0
ENDS_S = 30.0
"""Seconds that dask has to end a worker, once its agent has ended: it hangs where its scheduler ends at that moment."""
OF_AGENT = frozenset(
    {
        "ask", "check", "end", "expect_leave", "find_shared", "has", "hello", "offer_checkpoint", "offer_ended",
        "pieces", "put_leave", "release", "reserve", "sees", "start",
    }
)  # fmt: skip
OF_ARRIVALS = frozenset({"complete", "expect", "piece_of_need", "put"})
"""What coordinators and other nodes may ask of an agent, and of what arrives there."""


class AgentPlugin(WorkerPlugin):
    """Has an agent answer for the worker; the first coordinator's plugin starts it, and all share it."""

    async def setup(self, worker: Worker) -> None:
        if NAME not in worker.extensions:
            try:
                agent = Agent(NodeFolder.of_this_process(), slots=Slots(worker.state.nthreads))
            except OSError as error:
                raise Refused("wrong", folder_unusable(error)) from error
            worker.extensions[NAME] = AgentService(worker, agent)


class AgentService:
    """What answers for a worker, as long as that lives; dask closes it with the worker."""

    def __init__(self, worker: Worker, agent: Agent) -> None:
        """Add the operation; the event loop runs."""
        self.agent = agent
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None
        self._before: dict[int, Any] = {}
        worker.handlers[NAME] = self.ablation
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._asked_to_end) for number in ASKED}
        self._watching = asyncio.create_task(self._watch())

    async def ablation(self, verb: str, **asked: Any) -> dict[str, Any]:
        """Answer a question of a coordinator, or of another node."""
        try:
            if verb == "fetch":
                await self._fetch(**asked)
                return {"answer": None}
            return {"answer": await asyncio.to_thread(self._asked_for(verb), **asked)}
        except Refused as refused:
            return {"refused": refused.kind, "text": str(refused)}
        except CarriedWrong as error:
            return {"refused": "wrong", "text": str(error)}
        except OSError as error:
            return {"refused": "stale", "text": f"{type(error).__name__}: {error}"}

    def _asked_for(self, verb: str) -> Callable[..., Any]:
        if verb in OF_AGENT:
            return cast("Callable[..., Any]", getattr(self.agent, verb))
        if verb in OF_ARRIVALS:
            return cast("Callable[..., Any]", getattr(self.agent.arrivals, verb))
        raise Refused("wrong", f"it cannot {verb!r}")

    async def close(self) -> None:
        """Bring the agent's jobs to an end, and wait until their coordinators have what they left."""
        if self._ending is None:
            self._ending = asyncio.create_task(asyncio.to_thread(self.agent.end_all))
        await asyncio.shield(self._ending)
        self._watching.cancel()

    async def _watch(self) -> None:
        """See to the leases of coordinators."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.agent.see_leases)

    def _asked_to_end(self, number: int, _frame: FrameType | None) -> None:
        """End the agent's jobs first, then the worker as it would have ended; at once where asked again."""
        before = self._before[number]
        signal.signal(number, before)
        self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._close_then(number, before)))

    async def _close_then(self, number: int, before: Any) -> None:
        await self.close()
        _end_at_last(number)
        if self._worker.status in (Status.closing, Status.closed):
            return  # it ends already; dask hangs where it is interrupted in that
        if callable(before):
            before(number, None)
        else:
            os.kill(os.getpid(), number)

    async def _fetch(self, *, need: str, peer: str, files: list[Any]) -> None:
        """Bring what jobs need from another node."""
        delivery = await asyncio.to_thread(self.agent.arrivals.expect, files=files)
        for file in map(CarriedFile.from_plain, files):
            offset = 0
            while offset < file.size:
                asked = {"verb": "piece_of_need", "need": need, "name": file.name, "offset": offset}
                said = await getattr(self._worker.rpc(peer), NAME)(**asked)
                data = said.get("answer")
                if not data:
                    raise Refused("stale", f"{peer} does not have it: {said.get('text', '')}")
                await asyncio.to_thread(
                    self.agent.arrivals.put, delivery=delivery, name=file.name, offset=offset, data=data
                )
                offset += len(data)
        await asyncio.to_thread(self.agent.arrivals.complete, delivery=delivery, need=need)


def _end_at_last(number: int) -> None:
    """End this process after a while, whatever dask does."""
    timer = threading.Timer(ENDS_S, os._exit, [128 + number])
    timer.daemon = True
    timer.start()


def hold(token: str) -> None:
    """Be a task for as long as a job runs, so that whoever looks at the cluster or scales it sees the work."""
    worker = get_worker()
    service = worker.extensions.get(NAME)
    if not isinstance(service, AgentService):
        return
    if service.agent.slots.most() > worker.state.nthreads:
        secede()  # type: ignore[no-untyped-call] # or the next job's task would wait for this one
    service.agent.wait(token)
