"""Runs jobs on the workers of a dask cluster, each an agent with a folder of its own: they come and go as they like.

dask says who is there, carries the questions, and shows a task for each job. What a job is, where it runs, whether it
is lost and what it leaves is settled here and with the agents: dask runs nothing again. One thread does all of it.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ablation.errors import ArgumentInvalid, DiskFull, SchedulerMissing, is_no_room
from ablation.executors.addresses import Where
from ablation.executors.connection import Connection, NoAnswer
from ablation.executors.interface import Files, NodeLost, T, carried
from ablation.executors.nodes.agent import LEASE_S, Refused
from ablation.executors.nodes.delivering import Deliveries
from ablation.executors.nodes.files import CarriedWrong
from ablation.executors.nodes.home import CoordinatorFolder
from ablation.executors.nodes.jobs import packed
from ablation.executors.nodes.remote import Remote
from ablation.executors.nodes.roster import POLL_S, Node, RemoteJob, Roster
from ablation.stopping import GRACE_S, Preempted

COMES_S, COMES_BACK_S = 60.0, 3600.0
"""Seconds that a scheduler is waited for which is not there yet, and one that had been there."""
STOP_S = 1.5
"""Seconds beyond the grace in which what ended jobs left is fetched, where this process is to end."""
DEVICES = ("auto", "cpu", "cuda")


class DaskExecutor:
    """Runs jobs where the scheduler at `where` has workers, `workers` at a time at most.

    `device` is `cpu`, `cuda`, or `auto`: what the first worker has. `say` is told what is waited for before the first
    job.

    Raises:
        ArgumentInvalid: another device, as `cuda:1`: which GPU is the engine's to give.
        SchedulerMissing: no scheduler came to be there.
    """

    def __init__(
        self,
        where: Where | str,
        *,
        device: str = "auto",
        workers: int | None = None,
        say: Callable[[str], object],
    ) -> None:
        if device not in DEVICES:
            raise ArgumentInvalid("--device", device, "auto, cpu or cuda: which GPU a job gets is the engine's to give")
        self._where = where if isinstance(where, Where) else Where(text=where)
        self._most, self._say = workers, say
        self.is_here = False
        self._notes: deque[str] = deque()
        self._roster = Roster(device=device, note=self._notes.append)
        self._waiting: deque[RemoteJob] = deque()
        self._futures: set[Future[Any]] = set()
        self._homes: dict[Path, CoordinatorFolder] = {}
        self._behind: set[asyncio.Task[None]] = set()
        self._slots = 0
        self._failure: BaseException | None = None
        self._ready: Future[None] = Future()
        self._started, self._is_stopping = threading.Event(), False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), name="dask", daemon=True)
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self._close()
            raise

    # What every executor promises

    @property
    def slots(self) -> tuple[str, ...]:
        if self._failure is not None:
            raise self._failure
        return (self._roster.device,) * self._slots

    @property
    def is_on_gpu(self) -> bool:
        return self._roster.device == "cuda"

    def submit(self, function: Callable[..., T], *args: Any, files: Files | None = None) -> "Future[T]":
        future: Future[T] = Future()
        try:
            job = RemoteJob(future=future, call=packed(function, args), files=files)
        except Exception as error:  # noqa: BLE001 - pickling may raise anything
            future.set_exception(carried(error))
            return future
        self._futures.add(future)
        self._in_loop(partial(self._take, job))
        return future

    def require(self, check: Callable[[str], object]) -> None:
        self._in_loop(partial(self._roster.require, packed(check, (self._roster.device,))))

    def take_notes(self) -> list[str]:
        return [self._notes.popleft() for _ in range(len(self._notes))]

    def stop(self) -> None:
        self._in_loop(self._begin_stop)
        wait(list(self._futures), timeout=GRACE_S + STOP_S)
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()
        wait(list(self._futures))
        self._close()

    def _in_loop(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(call)

    def _close(self) -> None:
        self._started.wait()
        self._in_loop(self._tending.cancel)
        self._thread.join()

    # The one thread

    async def _work(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(_tell_unless_closed)
        self._deliveries = Deliveries(self._ask)
        self._tending = asyncio.create_task(self._tend())
        self._started.set()
        await asyncio.wait([self._tending])
        self._failure = None if self._tending.cancelled() else self._tending.exception()
        await self._end()

    async def _tend(self) -> None:
        """Look who is there and what is new, again and again."""
        self._connection = await self._connected(COMES_S, self._say)
        with contextlib.suppress(NoAnswer):
            if self._roster.device == "auto" and not await self._connection.workers():
                self._say("there is no worker now; the first one decides on which device runs are trained")
        while True:
            try:
                await self._look()
            except NoAnswer:
                await self._reconnect()
            except OSError as error:
                raise _of_this_disk(error, Path(str(error.filename))) from error
            if self._roster.device != "auto" and not self._ready.done():
                self._ready.set_result(None)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), timeout=POLL_S)
            self._woken.clear()

    async def _look(self) -> None:
        self._roster.see(await self._connection.workers(), self._connection)
        await self._roster.ask_for_news(self._connection)
        self._place_waiting()

    async def _connected(self, patience_s: float, say: Callable[[str], object]) -> Connection:
        """Return a connection to the scheduler, once it is there.

        Raises:
            SchedulerMissing: it was not there for so long.
        """
        begun, is_said = time.monotonic(), False
        while True:
            address = self._where.address()
            try:
                if address is None:
                    raise NoAnswer("there is no such file yet")
                return await Connection.to(address, is_open=self._where.is_open)
            except NoAnswer as error:
                missing = SchedulerMissing(self._where.text, str(error), patience_s)
            if not is_said:
                say(missing.waiting)
            is_said = True
            if time.monotonic() - begun > patience_s:
                raise missing
            await asyncio.sleep(POLL_S)

    async def _reconnect(self) -> None:
        """Find the scheduler again; where another one is there by then, its workers are others too."""
        before, begun = self._connection.scheduler, time.monotonic()
        await self._connection.close()
        connecting = asyncio.create_task(self._connected(COMES_BACK_S, self._notes.append))
        while not connecting.done():
            await asyncio.wait([connecting], timeout=POLL_S)
            if time.monotonic() - begun > LEASE_S:
                self._lose_all("cannot be reached, as the scheduler is silent")
        self._connection = connecting.result()
        self._notes.append(f"the scheduler at {self._where.text} answers")
        if self._connection.scheduler != before:
            self._lose_all("is gone with its scheduler")

    def _lose_all(self, how: str) -> None:
        for address in list(self._roster.nodes):
            self._deliveries.forget(address)
            self._roster.lose(address, how)
        self._slots = 0

    async def _ask(self, address: str, verb: str, **asked: Any) -> Any:
        """Ask a node until it answers, or whoever asks is told that it is lost."""
        while True:
            with contextlib.suppress(NoAnswer):
                return await self._connection.ask(address, verb, **asked)
            await asyncio.sleep(POLL_S)

    # Jobs

    def _take(self, job: RemoteJob) -> None:
        if self._is_stopping:
            self._settle(job, error=Preempted())
        else:
            self._waiting.append(job)
            self._place_waiting()

    def _place_waiting(self) -> None:
        """Have waiting jobs begun where there is room for them."""
        nodes = list(self._roster.nodes.values())
        there = sum(node.capacity for node in nodes)
        self._slots = there if self._most is None else min(there, self._most)
        running = sum(len(node.jobs) for node in nodes)
        for node in sorted(nodes, key=lambda node: -node.free):
            while self._waiting and node.free > 0 and (self._most is None or running < self._most):
                job = self._waiting.popleft()
                job.begin_try(self._roster.round)
                node.jobs[job.token] = job
                running += 1
                job.task = asyncio.create_task(self._carry_out(job, node))

    async def _carry_out(self, job: RemoteJob, node: Node) -> None:
        token = job.token
        try:
            result = await self._on_node(job, node)
        except asyncio.CancelledError:
            lost = NodeLost(node.label, job.lost) if job.lost is not None else Preempted()
            self._settle(job, error=lost)
        except Refused as refused:
            self._refuse(job, node, refused)
        except DiskFull as error:
            self._give_elsewhere(job, node, error)
        except CarriedWrong as error:
            self._roster.set_unfit(node, str(error))
            self._settle(job, error=NodeLost(node.label, f"is not to be trusted: {error}"))
        except OSError as error:
            self._settle(job, error=_of_this_disk(error, job.files.home if job.files is not None else Path()))
        except Exception as error:  # noqa: BLE001 - of the job: its future carries it
            self._settle(job, error=error)
        else:
            self._settle(job, result=result)
        finally:
            node.jobs.pop(token, None)
            self._place_waiting()

    async def _on_node(self, job: RemoteJob, node: Node) -> Any:
        """Return what a job returns, once all that it left is here; raise what it raised."""
        home = self._home(job.files.home) if job.files is not None else None
        remote = Remote(job, node, ask=self._ask, deliveries=self._deliveries, home=home, coordinator=self._roster.id)
        try:
            await remote.begin(self._roster.device)
            shown = self._connection.show(job.token, node.address, on_end=lambda: self._in_loop(self._woken.set))
            result = await remote.outcome()
            del shown
            return result
        finally:
            self._background(remote.close())

    def _home(self, folder: Path) -> CoordinatorFolder:
        if folder not in self._homes:
            self._homes[folder] = CoordinatorFolder.of(folder)
        return self._homes[folder]

    def _refuse(self, job: RemoteJob, node: Node, refused: Refused) -> None:
        """Give a job elsewhere that a node did not begin; one that it had begun is lost with it."""
        if job.is_started:
            self._settle(job, error=NodeLost(node.label, f"does not have it any more: {refused}"))
            return
        if refused.kind == "busy":
            node.others += 1
        elif refused.kind == "ending":
            node.is_ending = True
        elif refused.kind != "stale":
            self._roster.set_unfit(node, str(refused))
        self._waiting.appendleft(job)

    def _give_elsewhere(self, job: RemoteJob, node: Node, error: DiskFull) -> None:
        self._roster.set_unfit(node, f"it cannot write in {error.folder}: {error.reason}")
        self._waiting.appendleft(job)

    def _settle(self, job: RemoteJob, *, result: Any = None, error: BaseException | None = None) -> None:
        self._futures.discard(job.future)
        if job.future.done():
            return
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    # The end

    def _begin_stop(self) -> None:
        """Take no more jobs, and have those that run brought to an end."""
        self._is_stopping = True
        while self._waiting:
            self._settle(self._waiting.popleft(), error=Preempted())
        for node in self._roster.nodes.values():
            if node.jobs:
                self._background(self._connection.ask(node.address, "end", coordinator=self._roster.id))

    def _background(self, work: Coroutine[Any, Any, object]) -> None:
        """Have something done that nobody waits for: where it fails, the lease does it."""

        async def done() -> None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(work, timeout=LEASE_S)
                self._woken.set()

        task = asyncio.create_task(done())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _end(self) -> None:
        """Let go of jobs and of the cluster."""
        if self._failure is not None and not self._ready.done():
            self._ready.set_exception(self._failure)
        for job in [job for node in self._roster.nodes.values() for job in node.jobs.values()] + list(self._waiting):
            self._settle(job, error=self._failure or Preempted())
            if job.task is not None:
                job.task.cancel()
        if self._behind:
            await asyncio.wait(self._behind, timeout=1.0)
        for home in self._homes.values():
            home.leave()
        if (connection := getattr(self, "_connection", None)) is not None:
            await connection.close()


def _tell_unless_closed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of an error that nobody waited for, but not that dask's batches wait in vain once they are closed."""
    if not isinstance(context.get("exception"), TimeoutError):
        loop.default_exception_handler(context)


def _of_this_disk(error: OSError, folder: Path) -> Exception:
    """Return an error of this machine's files in the user's terms, where there is no room."""
    return DiskFull(folder, error.strerror or str(error)) if is_no_room(error) else error
