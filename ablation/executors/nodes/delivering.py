"""Brings files to nodes and fetches them from there: the coordinator's side."""

import asyncio
import contextlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ablation.executors.interface import Needed
from ablation.executors.nodes.files import (
    PIECE,
    CarriedFile,
    CarriedWrong,
    Incoming,
    checked,
    described,
    files_of_begun,
    read_piece,
)
from ablation.executors.nodes.home import CoordinatorFolder
from ablation.executors.nodes.roster import Node
from ablation.storage.files import write_whole
from ablation.storage.run_folder import EPOCHS, RESULT, STARTED, RunFolder

MOST_SENT = 2
"""Copies of what jobs need that the coordinator sends; the other nodes fetch it from those that have it."""
KEPT = 2
"""Checkpoints of a run that are kept here, as where it is trained."""


class Asking(Protocol):
    """Asks a node something, again where no answer comes; raises what the node refuses with."""

    async def __call__(self, address: str, verb: str, **asked: Any) -> Any: ...


class Deliveries:
    """Brings what jobs need to each node folder once; two nodes may have the same folder."""

    def __init__(self, ask: Asking) -> None:
        self._ask = ask
        self._files: dict[str, tuple[CarriedFile, ...]] = {}
        self._holders: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._sending: Counter[str] = Counter()
        self._giving: Counter[str] = Counter()
        self._brought: set[tuple[str, str, str]] = set()
        self._changed = asyncio.Condition()
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def bring(self, need: Needed, *, node: Node, token: str, home: CoordinatorFolder) -> None:
        """Have what a job needs at a node, once: in a folder that both see, from another node, or from here."""
        key = (node.agent, home.id, need.name)
        async with self._locks[need.name, node.folder]:
            if key not in self._brought:
                await self._bring(need, node, token, home)
                self._brought.add(key)

    async def _bring(self, need: Needed, node: Node, token: str, home: CoordinatorFolder) -> None:
        places = {name: str(path.resolve()) for name, path in need.files.items()}
        asked = {"token": token, "need": need.name, "nonce": str(home.nonce), "files": places}
        if await self._ask(node.address, "find_shared", **asked):
            return
        if need.name not in self._files:
            self._files[need.name] = await asyncio.to_thread(_described, need)
        files = [file.plain() for file in self._files[need.name]]
        while not await self._ask(node.address, "has", token=token, need=need.name, files=files):
            await self._carry(need, node)
        async with self._changed:
            self._holders[need.name][node.folder] = node.address
            self._changed.notify_all()

    def forget(self, address: str) -> None:
        """Fetch nothing more from a node that is gone."""
        for holders in self._holders.values():
            for folder in [folder for folder, holder in holders.items() if holder == address]:
                del holders[folder]

    async def _carry(self, need: Needed, node: Node) -> None:
        refused: set[str] = set()
        while not await self._is_carried(need, node, refused):
            continue

    async def _is_carried(self, need: Needed, node: Node, refused: set[str]) -> bool:
        """Send it, or have the node fetch it; add who does not give it to those that refused, and say no then."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._may_send(need, refused) or self._sources(need, refused))
            peer = None if self._may_send(need, refused) else self._sources(need, refused)[0]
            self._sending[need.name] += peer is None
        is_there = False
        try:
            await (self._send(need, node.address) if peer is None else self._fetch(need, node.address, peer))
            is_there = True
        except Exception:
            if peer is None:
                raise
            refused.add(peer)  # it is gone, or not to be reached from there
        finally:
            async with self._changed:
                self._sending[need.name] -= peer is None
                if is_there:
                    self._holders[need.name][node.folder] = node.address
                self._changed.notify_all()
        return is_there

    def _sources(self, need: Needed, refused: set[str]) -> list[str]:
        """Return the nodes that it can be fetched from, the one first that gives it to the fewest others now."""
        holders = [address for address in self._holders[need.name].values() if address not in refused]
        return sorted(holders, key=lambda address: self._giving[address])

    def _may_send(self, need: Needed, refused: set[str]) -> bool:
        """Whether it is this machine's to send: too few nodes have it, or those that have it cannot give it."""
        holders = self._holders[need.name]
        if holders and not self._sources(need, refused):
            return True
        return len(holders) + self._sending[need.name] < MOST_SENT

    async def _send(self, need: Needed, address: str) -> None:
        files = self._files[need.name]
        delivery = await self._ask(address, "expect", files=[file.plain() for file in files])
        for file in files:
            for offset in range(0, file.size, PIECE):
                data = await asyncio.to_thread(read_piece, need.files[file.name], offset)
                await self._ask(address, "put", delivery=delivery, name=file.name, offset=offset, data=data)
        await self._ask(address, "complete", delivery=delivery, need=need.name)

    async def _fetch(self, need: Needed, address: str, peer: str) -> None:
        files = [file.plain() for file in self._files[need.name]]
        self._giving[peer] += 1
        try:
            await self._ask(address, "fetch", need=need.name, peer=peer, files=files)
        finally:
            self._giving[peer] -= 1


def _described(need: Needed) -> tuple[CarriedFile, ...]:
    found = []
    for name, path in need.files.items():
        file = described(path.resolve().parent, path.resolve().name)
        found.append(CarriedFile(name=name, size=file.size, digest=file.digest))
    return tuple(found)


async def give_leave(ask: Callable[..., Awaitable[Any]], leave: str, folder: Path) -> tuple[CarriedFile, ...]:
    """Send what a run resumes from, and return what that was."""
    names = await asyncio.to_thread(files_of_begun, folder)
    files = [await asyncio.to_thread(described, folder, name) for name in names]
    if files:
        await ask("expect_leave", leave=leave, files=[file.plain() for file in files])
    for file in files:
        for offset in range(0, file.size, PIECE):
            data = await asyncio.to_thread(read_piece, folder / file.name, offset)
            await ask("put_leave", leave=leave, name=file.name, offset=offset, data=data)
    return tuple(files)


def offers(said: object, leaves: Sequence[str]) -> dict[str, tuple[CarriedFile, ...]]:
    """Read what a node offers of a job's folders.

    Raises:
        CarriedWrong: it is none of theirs, or nothing that is taken.
    """
    if not isinstance(said, Mapping) or not set(said) <= set(leaves):
        raise CarriedWrong("it offers folders that the job does not leave")
    return {leave: checked(said[leave]) for leave in leaves if leave in said}


async def fetch_leaves(
    ask: Callable[..., Awaitable[Any]], offered: Mapping[str, Sequence[CarriedFile]], beside: Path
) -> dict[str, Incoming]:
    """Fetch what a node offers of a job's folders, and check it; whoever asks puts it in place, or discards it.

    Raises:
        CarriedWrong: it is not what was offered.
    """
    incoming = {leave: Incoming(beside / str(number), offered[leave]) for number, leave in enumerate(offered)}
    for one in incoming.values():
        await asyncio.to_thread(one.begin)
    wanted = [(leave, file.name, 0) for leave, one in incoming.items() for file in one.files.values() if file.size]
    while wanted:
        pieces = await ask("pieces", wanted=wanted)
        if not isinstance(pieces, list | tuple) or not 0 < len(pieces) <= len(wanted):
            raise CarriedWrong("it sends other pieces than were asked for")
        for data in pieces:
            leave, name, offset = wanted[0]
            if not isinstance(data, bytes) or not data:
                raise CarriedWrong(f"{name!r} has ended before its size")
            await asyncio.to_thread(incoming[leave].write, name, offset, data)
            offset += len(data)
            wanted[:1] = [(leave, name, offset)] if offset < incoming[leave].files[name].size else []
    for one in incoming.values():
        await asyncio.to_thread(one.check)
    return incoming


def place_checkpoints(incoming: Mapping[Path, Incoming]) -> None:
    """Keep fetched checkpoints of a job's runs, by the runs' folders, before any older one is removed."""
    for folder, one in incoming.items():
        for name in one.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (one.folder / name).replace(folder / name)
    for folder in incoming:
        for _, _, path in RunFolder(path=folder).kept_checkpoints()[KEPT:]:
            path.unlink(missing_ok=True)


def place_ended(folder: Path, incoming: Incoming) -> None:
    """Have a run's folder hold what its node's held when the job ended, the result last."""
    run = RunFolder(path=folder)
    folder.mkdir(parents=True, exist_ok=True)
    if RESULT in incoming.files:
        shutil.rmtree(run.artifacts, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # it left none
            (incoming.folder / "artifacts").rename(run.artifacts)
        run.artifacts.mkdir(exist_ok=True)
    else:
        (folder / RESULT).unlink(missing_ok=True)
        place_checkpoints({folder: Incoming(incoming.folder, _checkpoints(incoming))})
    for name in (EPOCHS, STARTED):
        if name in incoming.files:
            (incoming.folder / name).replace(folder / name)
        elif name == EPOCHS:
            (folder / name).unlink(missing_ok=True)
    for _, _, path in run.kept_checkpoints():
        if path.relative_to(folder).as_posix() not in incoming.files:
            path.unlink(missing_ok=True)
    if RESULT in incoming.files:
        write_whole(folder / RESULT, (incoming.folder / RESULT).read_text(errors="replace"))


def _checkpoints(incoming: Incoming) -> list[CarriedFile]:
    return [file for name, file in incoming.files.items() if name.startswith("checkpoints/")]
