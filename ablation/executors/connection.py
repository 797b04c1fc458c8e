"""The connection to dask's scheduler: who works there, and questions to their agents, all by way of it."""

import asyncio
import contextlib
import logging
import pickle
import uuid
from collections.abc import Callable, Collection
from typing import Any

import dask
from distributed import Client
from distributed.comm.core import FatalCommClosedError
from distributed.core import clean_exception

from ablation.errors import AblationError, CertificateForeign, CertificateMissing
from ablation.executors.addresses import SECURE, check_network
from ablation.executors.nodes.fitness import why_of_agent
from ablation.executors.nodes.plugin import NAME, AgentPlugin, hold
from ablation.executors.nodes.refusing import Refused

CERTIFICATE = tuple(f"distributed.comm.tls.{name}" for name in ("ca-file", "client.cert", "client.key"))
"""What dask's configuration must name for TLS."""
CONNECT_S = 10.0
CLOSE_S = 1.0
ANSWER_S = 5.0
"""Seconds that an answer may take which needs no more than memory."""
LONG_S = 180.0
"""The same of one for which a process is started, or files are read."""


class NoAnswer(OSError):
    """A node, or the scheduler, did not answer; nothing is known of it by that."""


class Connection:
    """One scheduler, from where it was found to where it is lost. It may be used in one event loop."""

    def __init__(self, client: Client, scheduler: str, *, is_open: bool) -> None:
        self._client, self.scheduler, self._is_open = client, scheduler, is_open
        self._rpc: Any = client.scheduler
        self._plugin = f"{NAME}-{uuid.uuid4().hex}"

    @classmethod
    async def to(cls, address: str, *, is_open: bool) -> "Connection":
        """Connect to the scheduler at an address; `is_open` accepts one, and workers, that others may reach.

        Raises:
            NoAnswer: none is there.
            CertificateMissing, CertificateForeign: it needs one, or another.
            NetworkOpen: it listens where others may reach it, by whatever way it is reached from here.
        """
        check_certificate(address)
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what is lost is told by whoever loses it
        client = Client(  # type: ignore[no-untyped-call]
            address, asynchronous=True, set_as_default=False, timeout=CONNECT_S
        )
        try:
            async with asyncio.timeout(2 * CONNECT_S):
                await client
            rpc: Any = client.scheduler
            found = await _answered(rpc.identity(n_workers=0), ANSWER_S)
            check_network(str(found["address"]), is_open=is_open)
            return cls(client, str(found["id"]), is_open=is_open)
        except BaseException as error:
            await _close(client)
            if isinstance(error, FatalCommClosedError):  # trying again is in vain
                raise CertificateForeign(address, CERTIFICATE) from error
            if isinstance(error, Exception) and not isinstance(error, AblationError):
                raise NoAnswer(f"{type(error).__name__}: {error}") from error
            raise

    async def workers(self) -> dict[str, int]:
        """Return the workers that the scheduler has, by address, and their numbers of threads.

        Raises:
            NoAnswer: the scheduler does not answer, which says nothing about its workers.
        """
        return dict(await _answered(self._rpc.ncores(), ANSWER_S))

    async def describe(self, address: str) -> str:
        """Return what a person calls a worker: its host, and its name where it was given one."""
        found = await _answered(self._rpc.identity(), ANSWER_S)
        worker = found["workers"].get(address, {})
        name = str(worker.get("name", ""))
        return f"{worker.get('host', '')} ({name if name and name != address else address})"

    async def versions(self, address: str) -> object:
        """Return what dask says of a worker's Python and packages."""
        return await self._to_one(address, {"op": "versions"}, ANSWER_S)

    async def add_agent(self, address: str) -> str | None:
        """Have an agent at a worker; return why that failed, None where it is there.

        None is added to a worker that others may reach, where that is not accepted.
        """
        try:
            check_network(address, is_open=self._is_open)
        except AblationError as error:
            return str(error)
        message = {"op": "plugin-add", "plugin": pickle.dumps(AgentPlugin()), "name": self._plugin}
        said = await self._to_one(address, message, LONG_S)
        if isinstance(said, OSError | TimeoutError):
            raise NoAnswer(f"{type(said).__name__}: {said}")
        if isinstance(said, dict) and said.get("status") == "OK":
            return None
        failed = clean_exception(said["exception"])[1] if isinstance(said, dict) and "exception" in said else None
        if isinstance(failed, Refused):
            return str(failed)
        return why_of_agent(str(said.get("exception_text", said) if isinstance(said, dict) else said))

    async def ask(self, address: str, verb: str, *, timeout_s: float = LONG_S, **asked: Any) -> Any:
        """Return an agent's answer.

        Raises:
            Refused: it says no.
            NoAnswer: there is none.
        """
        said = await self._to_one(address, {"op": NAME, "verb": verb, **asked}, timeout_s)
        if isinstance(said, Exception) or not isinstance(said, dict):
            raise NoAnswer(str(said))
        if "answer" in said:
            return said["answer"]
        if "refused" in said:
            raise Refused(str(said["refused"]), str(said.get("text", "")))
        raise NoAnswer(str(said.get("text", said)))

    async def ask_all(self, addresses: Collection[str], verb: str, **asked: Any) -> dict[str, Any]:
        """Return the answers of those that give one.

        Raises:
            NoAnswer: one of them takes too long, whichever that is, or the scheduler does.
        """
        message = {"op": NAME, "verb": verb, **asked}
        calling = self._rpc.broadcast(msg=message, workers=list(addresses), on_error="ignore")
        said = await _answered(calling, ANSWER_S)
        return {address: one["answer"] for address, one in said.items() if isinstance(one, dict) and "answer" in one}

    def show(self, token: str, address: str, *, on_end: Callable[[], object]) -> object:
        """Have a task at a worker for as long as a job runs there, as others look at tasks; keep what is returned."""
        task = self._client.submit(
            hold,
            token,
            key=f"ablation-{token}",
            workers=[address],
            allow_other_workers=False,
            retries=0,
            pure=False,
        )
        task.add_done_callback(lambda _: on_end())  # type: ignore[no-untyped-call]
        return task

    async def close(self) -> None:
        await _close(self._client)

    async def _to_one(self, address: str, message: dict[str, Any], timeout_s: float) -> Any:
        calling = self._rpc.broadcast(msg=message, workers=[address], on_error="return")
        return (await _answered(calling, timeout_s)).get(address)


async def _answered(calling: Any, timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):  # Python 3.11's wait_for may lose that this task was cancelled
            return await calling
    except (OSError, TimeoutError, ValueError) as error:  # ValueError of a connection pool that was closed
        raise NoAnswer(f"{type(error).__name__}: {error}") from error


async def _close(client: Client) -> None:
    with contextlib.suppress(Exception):  # it may be half open
        await client.close(timeout=CLOSE_S)  # type: ignore[no-untyped-call]


def check_certificate(address: str) -> None:
    """See that dask's configuration has what an address asks for.

    Raises:
        CertificateMissing: it has not.
    """
    lacking = [name for name in CERTIFICATE if not dask.config.get(name, default=None)]
    if address.startswith(f"{SECURE}://") and lacking:
        raise CertificateMissing(address, lacking)
