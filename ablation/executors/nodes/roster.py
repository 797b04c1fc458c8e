"""Who is in a cluster, whether they are fit, and what is new of the jobs that they run: the coordinator's side."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ablation.errors import DiskFull
from ablation.executors.interface import Files
from ablation.executors.nodes.agent import LEASE_S
from ablation.executors.nodes.files import CarriedFile, CarriedWrong, reading
from ablation.executors.nodes.fitness import why_of_engine, why_of_hello, why_of_slots
from ablation.executors.nodes.home import writing_in
from ablation.executors.nodes.news import FolderNews
from ablation.executors.nodes.refusing import Refused

POLL_S = 1.0
"""Seconds between two questions what is new."""
LOST_S = LEASE_S + 15.0
"""Seconds of questions without an answer, while the scheduler answers, after which a node's jobs are lost.

The node has ended them by then, whatever it is that keeps it from answering: its lease has run out.
"""


@dataclass(slots=True, kw_only=True, eq=False)
class RemoteJob:
    """A job, from where it is submitted to where its future is done; `token` is of one try on one node."""

    future: "Future[Any]"
    call: bytes
    files: Files | None
    token: str = ""
    round: int = 0
    seen: int = 0
    is_started: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lost: str | None = None
    task: "asyncio.Task[None] | None" = None
    given: dict[str, tuple[CarriedFile, ...]] = field(default_factory=dict)
    kept: int = 0
    on_kept: Callable[[], None] = lambda: None

    @property
    def leaves(self) -> tuple[str, ...]:
        return self.files.leaves if self.files is not None else ()

    def begin_try(self, round_number: int) -> None:
        """Get a token of its own: what a try before sends is taken by nobody."""
        self.token, self.round, self.seen = uuid.uuid4().hex, round_number, 0
        self.is_started, self.lost, self.kept = False, None, 0
        self.given.clear()
        self.ended.clear()


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """A worker of the cluster; `others` are its slots in which jobs of other coordinators run."""

    address: str
    label: str = ""
    agent: str = ""
    folder: str = ""
    slots: int = 0
    others: int = 0
    is_checked: bool = False
    is_unfit: bool = False
    why: str = ""
    is_ending: bool = False
    silent_s: float = 0.0
    jobs: dict[str, RemoteJob] = field(default_factory=dict)
    greeting: "asyncio.Task[None] | None" = None
    asking: "asyncio.Task[None] | None" = None

    @property
    def is_fit(self) -> bool:
        return self.is_checked and not (self.is_unfit or self.is_ending)

    @property
    def capacity(self) -> int:
        return max(0, self.slots - self.others) if self.is_fit else 0

    @property
    def free(self) -> int:
        running = sum(not job.ended.is_set() for job in self.jobs.values())
        return self.capacity - running if not self.silent_s else 0


class Engine(Protocol):
    """What is asked of the engine: see Connection."""

    async def describe(self, address: str) -> str: ...

    async def versions(self, address: str) -> object: ...

    async def add_agent(self, address: str) -> str | None: ...

    async def ask(self, address: str, verb: str, **asked: Any) -> Any: ...

    async def ask_all(self, addresses: Collection[str], verb: str, **asked: Any) -> dict[str, Any]: ...


class Roster:
    """The nodes of a cluster, as one coordinator sees them; `note` gets sentences for its user."""

    def __init__(self, *, device: str, note: Callable[[str], object]) -> None:
        self.id = uuid.uuid4().hex
        self.device = device
        self.nodes: dict[str, Node] = {}
        self._checks: list[bytes] = []
        self.round = 0
        self.on_lost: Callable[[str], object] = lambda _: None
        self._note = note
        self._looked_at = time.monotonic()

    def require(self, check: bytes) -> None:
        """Send no node a job before this check has been called there."""
        self._checks.append(check)
        for node in self.nodes.values():
            node.is_checked = False

    def see(self, there: Mapping[str, int], connection: Engine) -> None:
        """Take note of who is there by the scheduler's word: who came is greeted, who is missing is lost."""
        for address in [address for address in self.nodes if address not in there]:
            self.lose(address, "is gone")
        for address in there:
            node = self.nodes.setdefault(address, Node(address=address, label=address))
            if not (node.is_unfit or node.is_checked) and (node.greeting is None or node.greeting.done()):
                node.greeting = asyncio.create_task(self._greet(node, connection))

    async def _greet(self, node: Node, connection: Engine) -> None:
        """See whether a node is fit; one that does not answer is greeted again."""
        with contextlib.suppress(OSError):
            try:
                with reading():
                    why = await self._why_unfit(node, connection)
            except (Refused, CarriedWrong) as error:
                why = str(error)
            if why is not None:
                self.set_unfit(node, why)

    async def _why_unfit(self, node: Node, connection: Engine) -> str | None:
        if not node.agent:
            node.label = await connection.describe(node.address)
            why = why_of_engine(await connection.versions(node.address)) or await connection.add_agent(node.address)
            if why is not None:
                return why
            said = await connection.ask(node.address, "hello")
            if (why := why_of_hello(said)) is not None:
                return why
            if self.device == "auto":
                self.device = "cuda" if said["slots"]["cuda"] else "cpu"
            if (why := why_of_slots(said, self.device)) is not None:
                return why
            node.agent, node.folder, node.slots = said["agent"], said["folder"], int(said["slots"][self.device])
        checks = list(self._checks)
        why = await connection.ask(node.address, "check", device=self.device, checks=checks)
        node.is_checked = why is None and len(checks) == len(self._checks)
        return None if why is None else str(why)

    def set_unfit(self, node: Node, why: str) -> None:
        """Send a node no more jobs, and say why, once."""
        if not node.is_unfit:
            node.is_unfit, node.why = True, why
            self._note(f"node {node.label} gets no runs: {why}")

    def lose(self, address: str, how: str) -> None:
        """Forget a node; its jobs are lost with it."""
        node = self.nodes.pop(address)
        self.on_lost(address)
        if node.is_fit and not node.jobs:
            self._note(f"node {node.label} {how}")
        for task in (node.greeting, node.asking):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._lose_jobs(node, how)

    def _lose_jobs(self, node: Node, how: str) -> None:
        for job in list(node.jobs.values()):
            job.lost = how
            if job.task is not None:
                job.task.cancel()

    # What is new

    async def ask_for_news(self, connection: Engine) -> None:
        """Ask all nodes at once what is new; those that did not answer before, each by itself."""
        now = time.monotonic()
        elapsed, self._looked_at = min(now - self._looked_at, 10 * POLL_S), now
        asked = self._question()
        for node in [node for node in self.nodes.values() if node.agent and node.silent_s]:
            node.silent_s += elapsed
            if node.silent_s > LOST_S and node.jobs:
                self._lose_jobs(node, f"has not answered for {node.silent_s:.0f} s")
            if node.asking is None or node.asking.done():
                node.asking = asyncio.create_task(self._ask_alone(node, asked, connection))
        together = [node for node in self.nodes.values() if node.agent and not node.silent_s]
        if not together:
            return
        try:
            said = await connection.ask_all([node.address for node in together], "ask", **asked)
        except OSError:
            said = {}
        for node in together:
            if node.address in said:
                await self._hear(node, said[node.address], asked["seen"])
            else:
                node.silent_s = elapsed or POLL_S

    def _question(self) -> dict[str, Any]:
        self.round += 1
        jobs = [job for node in self.nodes.values() for job in node.jobs.values()]
        return {"coordinator": self.id, "asked_in": self.round, "seen": {job.token: job.seen for job in jobs}}

    async def _ask_alone(self, node: Node, asked: Mapping[str, Any], connection: Engine) -> None:
        with contextlib.suppress(OSError, Refused, DiskFull):  # a full disk is seen again, with the next news of all
            said = await connection.ask(node.address, "ask", **asked)
            node.silent_s = 0.0
            await self._hear(node, said, asked["seen"])

    async def _hear(self, node: Node, said: Mapping[str, Any], asked: Mapping[str, int]) -> None:
        """Take a node's answer; one that gives none that can be taken gets no more jobs, and has lost its own."""
        try:
            with reading():
                await self._take_answer(node, said, asked)
        except CarriedWrong as error:
            self.set_unfit(node, str(error))
            self._lose_jobs(node, f"is not to be trusted: {error}")

    async def _take_answer(self, node: Node, said: Mapping[str, Any], asked: Mapping[str, int]) -> None:
        """Take what is new of a node's jobs, and whether it has room."""
        if said["agent"] != node.agent:
            self.lose(node.address, "was started anew")
            return
        jobs = said["jobs"]
        for token, job in list(node.jobs.items()):
            if token in jobs:
                await self._take_news(job, jobs[token])
            elif job.is_started and token in asked and not job.ended.is_set():
                job.lost = "has ended the job, as it was not asked for it"
                if job.task is not None:
                    job.task.cancel()
        node.is_ending = bool(said["is_ending"])
        mine = sum(not jobs[token]["is_ended"] for token in jobs)
        node.others = max(0, node.slots - int(said["free"].get(self.device, node.slots)) - mine)

    async def _take_news(self, job: RemoteJob, news: Mapping[str, Any]) -> None:
        changed = {leave: FolderNews.from_plain(plain) for leave, plain in news["folders"].items()}
        if not set(changed) <= set(job.leaves):
            raise CarriedWrong("it sends news of other runs than it trains")
        if changed and job.files is not None:
            with writing_in(job.files.home):
                await asyncio.to_thread(_write, changed, job.files.home)
            for leave in changed:
                job.files.on_change(leave)
        job.seen = int(news["serial"])
        job.kept = int(news["kept"])
        if news["is_ended"]:
            job.ended.set()
        elif job.kept:
            job.on_kept()


def _write(changed: Mapping[str, FolderNews], home: Path) -> None:
    for leave, news in changed.items():
        news.write(home / leave)
