"""What a device does by itself: its rates, graphs after a capture that failed, the cost of generators in a graph."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ablation.records import Precision
from ablation.training import set_precision
from ablation.training.together.replay import Captures
from benchmarks.gpu_case import Sizes

PRODUCTS: tuple[tuple[Precision, torch.dtype], ...] = (
    ("fp32", torch.float32),
    ("tf32", torch.float32),
    ("bf16", torch.bfloat16),
)
GENERATORS = (0, 8, 32)
REPLAYS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the card is and does: bytes per second of a copy (read and written), FLOP per second by precision."""

    card: str
    copy_bytes_per_second: float
    flop_per_second: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCapture:
    """What is said after a capture that failed, in this order.

    `empty_cache` and `next_capture` are tried at once, where torch 2.11 has no graphs any more (pytorch#180395), and
    again after the two calls that tell the allocator that the capture is over.
    """

    capture: str
    empty_cache: str
    next_capture: str
    calls: Mapping[str, str]
    empty_cache_after: str
    next_capture_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Seconds of replaying a graph of one kernel that so many generators are registered with."""

    generators: int
    host_seconds: float
    total_seconds: float


def device_rates(device: torch.device, sizes: Sizes) -> Rates:
    source = torch.zeros(sizes.copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_seconds = least_seconds(lambda: target.copy_(source), device, repeats=sizes.repeats)
    found = {name: _product_rate(device, sizes, name, dtype) for name, dtype in PRODUCTS if _has(device, name)}
    return Rates(card=_card(device), copy_bytes_per_second=2 * sizes.copied_bytes / copy_seconds, flop_per_second=found)


def failed_capture(device: torch.device, _: Sizes) -> FailedCapture:
    spoilt = torch.cuda.graph_pool_handle()
    capture = _tried(lambda: _capture(device, spoilt, is_failing=True))
    cache = _tried(torch.cuda.empty_cache)
    following = _tried(lambda: _capture(device, torch.cuda.graph_pool_handle()))
    calls = {
        name: _tried(lambda name=name: getattr(torch._C, name)(device.index or 0, spoilt))
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool")
    }
    return FailedCapture(
        capture=capture,
        empty_cache=cache,
        next_capture=following,
        calls=calls,
        empty_cache_after=_tried(torch.cuda.empty_cache),
        next_capture_after=_tried(lambda: _capture(device, torch.cuda.graph_pool_handle())),
    )


def replays(device: torch.device, _: Sizes) -> tuple[Replay, ...]:
    return tuple(_replay(device, count) for count in GENERATORS)


def least_seconds(operation: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """Return the least seconds of a few calls."""
    times = []
    for _ in range(repeats):
        wait(device)
        begun = time.perf_counter()
        operation()
        wait(device)
        times.append(time.perf_counter() - begun)
    return min(times)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _card(device: torch.device) -> str:
    if device.type != "cuda":
        return "none"
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    name = torch.cuda.get_device_name(device)
    return f"{name}, compute capability {capability}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def _has(device: torch.device, precision: Precision) -> bool:
    return device.type == "cuda" or precision != "tf32"


def _product_rate(device: torch.device, sizes: Sizes, precision: Precision, dtype: torch.dtype) -> float:
    set_precision("tf32" if precision == "tf32" else "fp32")
    left = torch.randn(sizes.product_side, sizes.product_side, device=device).to(dtype)
    result = torch.empty_like(left)
    seconds = least_seconds(lambda: torch.mm(left, left, out=result), device, repeats=sizes.repeats)
    return 2 * sizes.product_side**3 / seconds


def _capture(device: torch.device, pool: tuple[int, int], *, is_failing: bool = False) -> None:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    numbers = torch.ones(4, device=device)
    # The outer context goes back to the stream before, which a capture that fails does not.
    with torch.cuda.stream(stream), torch.cuda.graph(graph, pool=pool, stream=stream):
        numbers.mul(2)
        if is_failing:
            torch.cuda.synchronize(device)
    graph.replay()


def _tried(operation: Callable[[], object]) -> str:
    try:
        operation()
    except Exception as error:  # noqa: BLE001 - what it says is what is asked for
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "works"


def _replay(device: torch.device, count: int) -> Replay:
    captures = Captures(device, [torch.Generator(device) for _ in range(count)])
    graph, numbers = captures.new_graph(), torch.zeros(1, device=device)
    with torch.cuda.graph(graph):
        numbers += 1
    graph.replay()
    wait(device)
    begun = time.perf_counter()
    for _ in range(REPLAYS):
        graph.replay()
    launched = time.perf_counter()
    wait(device)
    ended = time.perf_counter()
    return Replay(generators=count, host_seconds=(launched - begun) / REPLAYS, total_seconds=(ended - begun) / REPLAYS)
