"""What the nodes of a cluster are, and which a study could use: they are asked as an executor asks them."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ablation.errors import SchedulerMissing
from ablation.executors.addresses import Where
from ablation.executors.connection import Connection, NoAnswer
from ablation.executors.nodes.jobs import packed
from ablation.executors.nodes.refusing import Refused
from ablation.executors.nodes.roster import Node, Roster

GREETED_S = 180.0
"""Seconds that nodes may take until it is known whether they are fit: they import torch first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFound:
    """A node, and why it gets no runs; what is said of it is empty where it has no agent.

    `slots` are its jobs at a time by device, `free` the bytes on the disk of its folder, `clock_s` how far its clock is
    ahead of this machine's. `is_shared` where it sees the state folder, None where there is none yet.
    """

    label: str
    why: str | None
    host: str = ""
    slots: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    free: int | None = None
    is_shared: bool | None = None
    clock_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFound:
    """A scheduler at its address, and its nodes; `device` is the kind that a study would train on."""

    address: str
    device: str
    nodes: tuple[NodeFound, ...]


def cluster_found(
    where: Where, *, device: str, state: Path, checks: Sequence[Callable[[str], object]] = ()
) -> ClusterFound:
    """Look at a cluster as it is now; `checks` are what a study requires of a device.

    Nodes get an agent, and with it their folder, where no study has been there before.

    Raises:
        SchedulerMissing: no scheduler is there.
        ClusterInvalid, NetworkOpen: it is none that is used.
    """
    return asyncio.run(_cluster(where, device=device, state=state, checks=checks))


async def _cluster(
    where: Where, *, device: str, state: Path, checks: Sequence[Callable[[str], object]]
) -> ClusterFound:
    address = where.address()
    try:
        if address is None:
            raise NoAnswer("there is no such file")
        connection = await Connection.to(address, is_open=where.is_open)
        try:
            roster = Roster(device=device, note=lambda _: None)
            await _greeted(roster, connection)
            if checks and roster.device != "auto":
                for check in checks:
                    roster.require(packed(check, (roster.device,)))
                await _greeted(roster, connection)
            nodes = await _nodes(roster, connection, state)
        finally:
            await connection.close()
    except NoAnswer as error:
        raise SchedulerMissing(where.text, str(error)) from None
    return ClusterFound(address=address, device=roster.device, nodes=nodes)


async def _greeted(roster: Roster, connection: Connection) -> None:
    """Have all nodes greeted; one that does not answer stays without an agent."""
    roster.see(await connection.workers(), connection)
    greetings = [node.greeting for node in roster.nodes.values() if node.greeting is not None]
    if greetings:
        await asyncio.wait(greetings, timeout=GREETED_S)


async def _nodes(roster: Roster, connection: Connection, state: Path) -> tuple[NodeFound, ...]:
    """Return what each node says of itself, and whether it sees a file that is in the state folder for that long."""
    with contextlib.ExitStack() as kept:
        is_there = os.access(state, os.W_OK)
        nonce = kept.enter_context(tempfile.NamedTemporaryFile(dir=state)).name if is_there else None
        return tuple(await asyncio.gather(*(_node(node, connection, nonce) for node in roster.nodes.values())))


async def _node(node: Node, connection: Connection, nonce: str | None) -> NodeFound:
    why = node.why if node.is_unfit else None if node.is_fit else "it does not answer"
    asked = time.time()
    try:
        said = await connection.ask(node.address, "hello")
        clock_s = said["clock_ms"] / 1000 - (asked + time.time()) / 2
        is_shared = await connection.ask(node.address, "sees", path=nonce) if nonce is not None else None
    except (NoAnswer, Refused):
        return NodeFound(label=node.label, why=why)
    return NodeFound(
        label=node.label,
        why=why,
        host=said["host"],
        slots={device: count for device, count in said["slots"].items() if count},
        versions={"ablation": said["version"], "Python": said["python"], "torch": said["torch"]},
        folder=said["path"],
        free=said["free"],
        is_shared=is_shared,
        clock_s=clock_s,
    )
