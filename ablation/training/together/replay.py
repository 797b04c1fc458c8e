"""Captures a function over tensors that stay where they are in one CUDA graph, and replays it; calls it on a CPU."""

import contextlib
import functools
import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar
from weakref import WeakSet

import torch

from ablation.errors import PathUnavailable

T = TypeVar("T")
LANES = 8
"""Streams beside the main one that models side by side are spread over."""
WAITS = "called a synchronizing CUDA operation"
"""What PyTorch says of an operation that waits for the device where that is forbidden."""
GENERATORS_REGISTER_THEMSELVES = (2, 14)
"""The version of PyTorch from which a graph finds the generators that it draws from, and telling it warns."""


class Captures:
    """What the graphs of one training share: a stream, a memory pool, and the generators that they draw from.

    Graphs with one pool must not hold results for each other: what a replay returns is copied before the next one.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self.device = device
        self.generators = tuple(generators)
        self.stream = streams_of(device)[0]
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def new_graph(self) -> torch.cuda.CUDAGraph:
        """Return a graph that goes on with the generators at each replay."""
        graph = torch.cuda.CUDAGraph()
        if torch.__version__ < GENERATORS_REGISTER_THEMSELVES:  # type: ignore[operator]  # compares with tuples too
            for generator in self.generators:
                graph.register_generator_state(generator)
        return graph

    def give_up(self, graph: torch.cuda.CUDAGraph) -> None:
        """Put right what a graph whose capture failed leaves behind in PyTorch's allocator.

        Until 2.11 it takes that capture for one that goes on, and then neither captures nor empties its cache again
        (pytorch#180395); until 2.15 at least it keeps the memory of the pool for good (pytorch#190308).
        """
        if _has_ended(graph):
            return
        with contextlib.suppress(RuntimeError):  # from 2.12 on the allocator has been told
            torch._C._cuda_endAllocateToPool(self.device.index or 0, self.pool)
        _given_up.append(self)


class Replayed(Generic[T]):
    """A function without arguments, run as it is at first, then captured, and replayed from then on.

    Without `captures` (on a CPU) it is always run as it is. The last of the calls that are run refuses whatever waits
    for the device, as that cannot be captured.

    Raises:
        PathUnavailable: in the call after which it would be captured: it waits for the device, or cannot be captured.
    """

    def __init__(self, function: Callable[[], T], captures: Captures | None, *, warm_ups: int) -> None:
        self._function = function
        self._captures = captures
        self._warm_ups = warm_ups
        self._replay: Callable[[], T] | None = None

    def __call__(self) -> T:
        if self._captures is None:
            return self._function()
        if self._replay is not None:
            return self._replay()
        self._warm_ups -= 1
        if self._warm_ups > 0:
            return self._function()
        result = self._run_without_waiting()
        # What failed on the device shows only when it is waited for: here, that is no failure of the capture.
        torch.cuda.synchronize(self._captures.device)
        self._replay = self._captured(self._captures)
        return result

    def _run_without_waiting(self) -> T:
        with _no_waiting():
            try:
                return self._function()
            except RuntimeError as error:
                if WAITS not in str(error):
                    raise
                raise PathUnavailable("graph", f"a step waits for the device: {error}") from error

    def _captured(self, captures: Captures) -> Callable[[], T]:
        graph = captures.new_graph()
        # A capture that fails may leave the generators as if it went on: their states are swapped for copies then.
        default = torch.cuda.default_generators[captures.device.index or 0]
        drawing = (default, *captures.generators)
        states = [generator.clone_state() for generator in drawing]
        try:
            with _no_collection(), torch.cuda.graph(graph, pool=captures.pool, stream=captures.stream):
                result = self._function()
        except RuntimeError as error:
            captures.give_up(graph)
            for generator, state in zip(drawing, states, strict=True):
                generator.graphsafe_set_state(state)
            if (out_of_memory := _out_of_memory(error)) is not None:
                raise out_of_memory from None
            raise PathUnavailable("graph", f"a step cannot be captured: {error}") from error
        captures.graphs.add(graph)

        def replay() -> T:
            graph.replay()
            return result

        return replay


_given_up: list[Captures] = []


def release_pools() -> None:
    """Give back the memory of captures that failed, once no graph of the same pool is left.

    The cache must be empty: a pool that nothing uses must not be given back once more.
    """
    for captures in [captures for captures in _given_up if not captures.graphs]:
        _given_up.remove(captures)
        with contextlib.suppress(RuntimeError):  # a later PyTorch has done so itself
            torch._C._cuda_releasePool(captures.device.index or 0, captures.pool)


def _has_ended(graph: torch.cuda.CUDAGraph) -> bool:
    try:
        graph.pool()
    except RuntimeError:
        return False
    return True


@functools.cache
def streams_of(device: torch.device) -> tuple[torch.cuda.Stream, ...]:
    """Return the streams that trainings on a device use: the same ones, as libraries keep memory for each."""
    return tuple(torch.cuda.Stream(device) for _ in range(1 + LANES))  # type: ignore[no-untyped-call]


def _out_of_memory(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """Return the lack of memory that an error of a capture came from."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's collector from freeing graphs of others in the middle of a capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    """Let whatever waits for the device raise an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
