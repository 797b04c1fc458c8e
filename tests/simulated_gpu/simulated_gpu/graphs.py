"""CUDA graphs, streams and generators of the simulated GPU: a capture records operations, a replay runs them again."""

import warnings
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves

from simulated_gpu.memory import Block, PoolId
from simulated_gpu.tensors import device, run, without_modes

PlainGenerator = torch.Generator
GENERATORS_REGISTER_THEMSELVES = torch.__version__ >= (2, 14)


@dataclass(slots=True)
class Rules:
    """How this version of PyTorch does: 2.11 takes a capture that failed for one that goes on."""

    ends_failed_captures: bool = torch.__version__ >= (2, 12)


rules = Rules()


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a graph, with the tensors that it reads and writes, where they stay."""

    func: OpOverload
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Any

    def run(self) -> None:
        if "empty" in self.func._schema.name:
            return
        found = run(self.func, self.args, self.kwargs)
        if self.func._schema.is_mutable:
            return
        for kept, new in zip(tree_leaves(self.result), tree_leaves(found), strict=True):
            # Evaluated batch norm has no statistics to keep on a CPU.
            if isinstance(kept, Tensor) and new.numel():
                kept.copy_(new)


class Graph:
    """In the place of `torch.cuda.CUDAGraph`."""

    last_replayed: ClassVar[dict[PoolId, "weakref.ReferenceType[Graph]"]] = {}

    def __init__(self, keep_graph: bool = False) -> None:
        self.is_broken = False
        self._operations: list[Operation] = []
        self._generators: list[Generator] = []
        self._pool: PoolId | None = None
        self._is_ended = False
        self._outside: dict[int, Block] = {}
        self._own: set[int] = set()

    def register_generator_state(self, generator: "Generator") -> None:
        if GENERATORS_REGISTER_THEMSELVES:
            warnings.warn("register_generator_state is deprecated and does nothing", DeprecationWarning, stacklevel=2)
        self._generators.append(generator)

    def capture_begin(self, pool: PoolId | None = None, **options: Any) -> None:
        if current_stream() is default_stream():
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        device.check_alive()
        Stream.captured = current_stream()
        Stream.forked.clear()
        self._pool = pool or device.memory.new_pool()
        device.memory.begin_pool(self._pool)
        device.capture = self
        for generator in (device.generator, *self._generators):
            device.capturing.add(generator._cdata)

    def capture_end(self) -> None:
        device.capture = None
        device.memory.pool = None
        is_whole = not self.is_broken and not Stream.unjoined
        Stream.unjoined.clear()
        assert self._pool is not None
        if is_whole or rules.ends_failed_captures:
            device.memory.end_pool(self._pool)
        if not is_whole:
            _disown(self._own)
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")
        for generator in (device.generator, *self._generators):
            device.capturing.discard(generator._cdata)
        self._is_ended = True
        weakref.finalize(self, _forget, self._pool, frozenset(self._own))

    def record(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in read:
            address = tensor.untyped_storage().data_ptr()
            block = device.memory.block_of(tensor)
            if block is not None and address not in self._own:
                self._outside[address] = block
        for tensor in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)):
            address = tensor.untyped_storage().data_ptr()
            if address and all(tensor is not other for other in read):
                self._own.add(address)
                device.owners[address] = weakref.ref(self)
        self._operations.append(Operation(func, args, kwargs, result))

    def draw_from(self, generator: torch.Generator | None) -> None:
        """See that a generator that is drawn from goes on at each replay."""
        known = {one._cdata for one in self._generators}  # PyTorch hands on other objects for the same generators
        if generator is None or GENERATORS_REGISTER_THEMSELVES or generator._cdata in known:
            return
        self.is_broken = True
        raise RuntimeError("a generator that is drawn from in a capture must be registered with its graph")

    def check_holds(self) -> None:
        if device.capture is self:
            return
        last = Graph.last_replayed.get(self._pool) if self._pool is not None else None
        if last is None or last() is not self:
            raise RuntimeError("reads memory of a graph after another one of its pool was captured or replayed")

    def replay(self) -> None:
        assert self._is_ended
        assert self._pool is not None
        device.check_alive()
        if any(not block.tensors for block in self._outside.values()):
            raise RuntimeError("a graph reads memory that was given back after its capture")
        Graph.last_replayed[self._pool] = weakref.ref(self)
        without_modes(lambda: [operation.run() for operation in self._operations] and None)

    def pool(self) -> PoolId:
        if self._pool is None or not self._is_ended:
            raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
        return self._pool


def _forget(pool: PoolId, own: frozenset[int]) -> None:
    device.memory.release_pool(pool)
    _disown(own)


def _disown(addresses: Collection[int]) -> None:
    for address in addresses:
        device.owners.pop(address, None)


class Stream:
    """In the place of `torch.cuda.Stream`: knows which streams a capture has gone out to and not come back from."""

    forked: ClassVar[set["Stream"]] = set()
    unjoined: ClassVar[set["Stream"]] = set()
    captured: ClassVar["Stream | None"] = None

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.device = device

    def wait_stream(self, other: "Stream") -> None:
        if device.capture is None:
            return
        if other is not Stream.captured and other not in Stream.forked:
            device.capture.is_broken = True
            raise torch.AcceleratorError("CUDA error: dependency created on uncaptured work in another stream")
        if self is Stream.captured:
            Stream.unjoined.discard(other)
        else:
            Stream.forked.add(self)
            Stream.unjoined.add(self)

    def synchronize(self) -> None:
        synchronize()


class CurrentStream:
    """In the place of `torch.cuda.stream`."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        _streams.append(self.stream or current_stream())

    def __exit__(self, *error: object) -> None:
        _streams.pop()


_streams = [Stream()]


def current_stream(device: Any = None) -> Stream:
    return _streams[-1]


def default_stream(device: Any = None) -> Stream:
    return _streams[0]


def synchronize(of: Any = None) -> None:
    if device.capture is not None:
        device.wait("synchronize")
    device.check_alive()


class Generator(PlainGenerator):
    """In the place of `torch.Generator`, of either device; it draws on the CPU."""

    def __new__(cls, device: Any = "cpu") -> Self:
        return PlainGenerator.__new__(cls, "cpu")

    def clone_state(self) -> "Generator":
        copy = Generator()
        copy.set_state(self.get_state())
        return copy

    def graphsafe_set_state(self, other: "Generator") -> "Generator":
        device.capturing.discard(self._cdata)
        self.set_state(other.get_state())
        return self
