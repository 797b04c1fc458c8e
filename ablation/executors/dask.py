"""Runs jobs on the workers of a dask cluster, each an agent with a folder of its own: they come and go as they like.

dask says who is there, carries the questions, and shows a task for each job. What a job is, where it runs, whether it
is lost and what it leaves is settled here and with the agents: dask runs nothing again. One thread does all of it.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ablation.errors import ArgumentInvalid, SchedulerMissing
from ablation.executors.addresses import Where
from ablation.executors.connection import Connection, NoAnswer
from ablation.executors.interface import Files, T, carried
from ablation.executors.nodes.agent import LEASE_S
from ablation.executors.nodes.home import of_this_disk
from ablation.executors.nodes.jobs import packed
from ablation.executors.nodes.placing import Placing
from ablation.executors.nodes.roster import POLL_S, RemoteJob, Roster
from ablation.stopping import GRACE_S

COMES_S, COMES_BACK_S = 60.0, 3600.0
"""Seconds that a scheduler is waited for which is not there yet, and one that had been there."""
STOP_S = 1.5
"""Seconds beyond the grace in which what ended jobs left is fetched, where this process is to end."""
DEVICES = ("auto", "cpu", "cuda")
NO_FIRST_WORKER = "there is no worker now that is fit; the first one decides on which device runs are trained"


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
        self._roster = Roster(device=device, note=self._note)
        self._futures: set[Future[Any]] = set()
        self._slots = 0
        self._failure: BaseException | None = None
        self._ready: Future[None] = Future()
        self._started = threading.Event()
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
        future.add_done_callback(self._futures.discard)
        self._in_loop(partial(self._placing.take, job))
        return future

    def require(self, check: Callable[[str], object]) -> None:
        self._in_loop(partial(self._roster.require, packed(check, (self._roster.device,))))

    def take_notes(self) -> list[str]:
        return [self._notes.popleft() for _ in range(len(self._notes))]

    def stop(self) -> None:
        self._in_loop(self._placing.begin_stop)
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

    def _note(self, text: str) -> None:
        """Tell the user: by `say` as long as nobody can take notes."""
        (self._notes.append if self._ready.done() else self._say)(text)

    # The one thread

    async def _work(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(_tell_unless_closed)
        self._connection: Connection | None = None
        self._placing = Placing(self._roster, ask=self._ask, show=self._show, wake=self._woken.set, most=self._most)
        self._tending = asyncio.create_task(self._tend())
        self._started.set()
        await asyncio.wait([self._tending])
        self._failure = None if self._tending.cancelled() else self._tending.exception()
        if self._failure is not None and not self._ready.done():
            self._ready.set_exception(self._failure)
        await self._placing.end(self._failure)
        if self._connection is not None:
            await self._connection.close()

    async def _tend(self) -> None:
        """Look who is there and what is new, again and again."""
        self._connection = connection = await self._connected(COMES_S)
        is_said = False
        while True:
            try:
                await self._look(connection)
            except NoAnswer:
                self._connection = connection = await self._connected_again(connection)
            except OSError as error:
                raise of_this_disk(error, Path(str(error.filename))) from error
            if self._roster.device != "auto" and not self._ready.done():
                self._ready.set_result(None)
            if not (self._ready.done() or is_said) and all(node.is_unfit for node in self._roster.nodes.values()):
                self._note(NO_FIRST_WORKER)
                is_said = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            self._woken.clear()

    async def _look(self, connection: Connection) -> None:
        self._roster.see(await connection.workers(), connection)
        await self._roster.ask_for_news(connection)
        self._placing.place()
        self._slots = self._placing.slots

    async def _connected(self, patience_s: float) -> Connection:
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
                self._note(missing.waiting)
            is_said = True
            if time.monotonic() - begun > patience_s:
                raise missing
            await asyncio.sleep(POLL_S)

    async def _connected_again(self, lost: Connection) -> Connection:
        """Find the scheduler again; where another one is there by then, its workers are others too."""
        begun = time.monotonic()
        await lost.close()
        connecting = asyncio.create_task(self._connected(COMES_BACK_S))
        while not connecting.done():
            await asyncio.wait([connecting], timeout=POLL_S)
            if time.monotonic() - begun > LEASE_S:
                self._lose_all("cannot be reached, as the scheduler is silent")
        connection = connecting.result()
        self._note(f"the scheduler at {self._where.text} answers")
        if connection.scheduler != lost.scheduler:
            self._lose_all("is gone with its scheduler")
        return connection

    def _lose_all(self, how: str) -> None:
        for address in list(self._roster.nodes):
            self._roster.lose(address, how)
        self._slots = 0

    async def _ask(self, address: str, verb: str, **asked: Any) -> Any:
        """Ask a node until it answers, or whoever asks is told that it is lost."""
        while True:
            assert self._connection is not None  # there is a node to be asked
            with contextlib.suppress(NoAnswer):
                return await self._connection.ask(address, verb, **asked)
            await asyncio.sleep(POLL_S)

    def _show(self, token: str, address: str) -> object:
        assert self._connection is not None
        with contextlib.suppress(Exception):  # it is only shown
            return self._connection.show(token, address, on_end=lambda: self._in_loop(self._woken.set))
        return None


def _tell_unless_closed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of an error that nobody waited for, but not that dask's batches wait in vain once they are closed."""
    if not isinstance(context.get("exception"), TimeoutError):
        loop.default_exception_handler(context)
