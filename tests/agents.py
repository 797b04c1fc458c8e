"""Agents of nodes without an engine, and a clock that a test moves."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jobs import no_gpus

from ablation.executors.nodes.agent import Agent
from ablation.executors.nodes.folder import NodeFolder
from ablation.executors.nodes.refusing import Refused
from ablation.executors.nodes.roster import Node
from ablation.executors.nodes.slots import Slots


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_agent(folder: Path, clock: Clock | None = None) -> Agent:
    """Return an agent with one slot on the CPU, which looks for no GPU."""
    return Agent(NodeFolder(path=folder), slots=Slots(1, gpus=no_gpus), clock=clock or Clock())


class Nodes:
    """Agents by address, as an engine reaches them; those in `cut` cannot be fetched from."""

    def __init__(self, folder: Path, count: int) -> None:
        self.agents = {f"n{k}": make_agent(folder / f"n{k}") for k in range(count)}
        self.cut: set[str] = set()
        self.sent: list[str] = []

    def node(self, address: str) -> Node:
        agent = self.agents[address]
        return Node(address=address, agent=agent.id, folder=agent.folder.make())

    async def ask(self, address: str, verb: str, **asked: Any) -> Any:
        """Answer as the agent there does."""
        if verb == "fetch":
            return await self._fetch(address, **asked)
        if verb == "expect":
            self.sent.append(address)
        agent = self.agents[address]
        owner = agent.arrivals if verb in ("expect", "put", "complete") else agent
        return await asyncio.to_thread(getattr(owner, verb), **asked)

    async def ask_all(self, addresses: Collection[str], verb: str, **asked: Any) -> dict[str, Any]:
        return {address: await self.ask(address, verb, **asked) for address in addresses}

    async def describe(self, address: str) -> str:
        return f"host ({address})"

    async def versions(self, address: str) -> object:
        return None

    async def add_agent(self, address: str) -> str | None:
        return None

    def end(self) -> None:
        """End what is left of their jobs."""
        for agent in self.agents.values():
            for token in list(agent._jobs):
                agent.release(token=token)
            agent.end_all()

    async def _fetch(self, address: str, need: str, peer: str, files: list[Any]) -> None:
        if peer in self.cut:
            raise Refused("stale", "not to be reached")
        mine, theirs = self.agents[address], self.agents[peer]
        delivery = mine.arrivals.expect(files=files)
        for file in files:
            data = theirs.arrivals.piece_of_need(need=need, name=file["name"], offset=0)
            mine.arrivals.put(delivery=delivery, name=file["name"], offset=0, data=data)
        mine.arrivals.complete(delivery=delivery, need=need)
