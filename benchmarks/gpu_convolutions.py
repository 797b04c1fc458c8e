"""Times the course network's three convolutions of many runs, forward and backward, each way that they can be computed.

Each is captured in a graph, as in training, so that nothing of the host is timed: an operation's own launches are. What
a way needs beside the product, such as im2col's windows, is timed with it; the last two ways are bounds, not ways.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from ablation.records import Precision
from ablation.training import free_memory, let_go, set_precision
from ablation.training.together.dropout import GeneratedMasks
from ablation.training.together.operations import StackedOperations
from ablation.training.together.replay import streams_of
from benchmarks.gpu_case import Sizes
from benchmarks.gpu_device import least_seconds, wait

Way = Literal["grouped", "matmul", "streams", "one by one", "bound: one model", "bound: product alone"]
WARM_UPS = 3
LAYOUTS = (torch.channels_last, torch.contiguous_format)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A 3 × 3 convolution, and the side of its square images."""

    name: str
    inputs: int
    outputs: int
    side: int


LAYERS = (
    Layer(name="first", inputs=3, outputs=32, side=32),
    Layer(name="second", inputs=32, outputs=64, side=16),
    Layer(name="third", inputs=64, outputs=128, side=8),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of one convolution's forward and backward pass for all runs, or why there are none."""

    layer: str
    way: Way
    layout: str
    is_benchmarked: bool
    """Whether cuDNN chose its algorithm by timing (`torch.backends.cudnn.benchmark`)."""
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    layer: Layer
    runs: int
    images: int
    dtype: torch.dtype
    device: torch.device
    layout: torch.memory_format = torch.channels_last

    @property
    def side(self) -> int:
        return self.layer.side

    @property
    def is_first(self) -> bool:
        """Whether the images themselves are convolved, which need no gradient."""
        return self.layer.inputs == LAYERS[0].inputs

    def tensor(self, *shape: int, needs_gradient: bool = True) -> Tensor:
        made = torch.randn(shape, device=self.device).to(self.dtype)
        if made.dim() == 4:
            made = made.contiguous(memory_format=self.layout)
        return made.requires_grad_(needs_gradient)


def convolutions(device: torch.device, sizes: Sizes, *, precision: Precision) -> tuple[Timed, ...]:
    return _of_each_layer(_timed_ways, device, sizes, precision)


def benchmarked(device: torch.device, sizes: Sizes, *, precision: Precision) -> tuple[Timed, ...]:
    """Time grouped convolutions by the algorithms that cuDNN chose by timing.

    In a process of its own: what PyTorch has once taken for a shape, timed or not, it takes from then on.
    """
    torch.backends.cudnn.benchmark = True
    return _of_each_layer(_grouped_ways, device, sizes, precision)


def _of_each_layer(
    ways: Callable[[_Case, Sizes], Iterator[Timed]], device: torch.device, sizes: Sizes, precision: Precision
) -> tuple[Timed, ...]:
    set_precision(precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    found = []
    for layer in LAYERS:
        small = replace(layer, side=layer.side // sizes.shrunk)
        case = _Case(layer=small, runs=max(sizes.fused), images=sizes.convolved, dtype=dtype, device=device)
        found += list(ways(case, sizes))
    return tuple(found)


def _timed_ways(case: _Case, sizes: Sizes) -> Iterator[Timed]:
    yield from _grouped_ways(case, sizes)
    yield _timed(case, "matmul", _products, sizes)
    for layout in LAYOUTS:
        yield _timed(case, "streams", _on_streams, sizes, layout=layout)
    yield _timed(case, "one by one", _one_by_one, sizes)
    yield _timed(case, "bound: one model", _of_one_model, sizes)
    yield _timed(case, "bound: product alone", _product_alone, sizes)


def _grouped_ways(case: _Case, sizes: Sizes) -> Iterator[Timed]:
    for layout in LAYOUTS:
        yield _timed(case, "grouped", _grouped, sizes, layout=layout)


def _timed(
    case: _Case,
    way: Way,
    make: Callable[[_Case], Callable[[], object]],
    sizes: Sizes,
    *,
    layout: torch.memory_format = torch.channels_last,
) -> Timed:
    named = partial(
        Timed,
        layer=case.layer.name,
        way=way,
        layout="nhwc" if layout == torch.channels_last else "nchw",
        is_benchmarked=torch.backends.cudnn.benchmark,
    )
    try:
        step = _captured(make(replace(case, layout=layout)), case.device)
        return named(seconds=least_seconds(step, case.device, repeats=sizes.repeats))
    except Exception as error:  # noqa: BLE001 - the other ways are worth having
        said = f"{type(error).__name__}: {str(error)[:200]}"
        let_go(error)
        return named(error=said)
    finally:
        free_memory()


def _captured(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Return what replays a step, or calls it on a CPU."""
    if device.type != "cuda":
        return step
    stream = streams_of(device)[0]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            step()
    wait(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = step()

    def replay() -> object:
        graph.replay()
        return result, step  # the step holds what the graph reads

    return replay


def _grouped(case: _Case) -> Callable[[], object]:
    layer, runs, side = case.layer, case.runs, case.side
    inputs = case.tensor(case.images, runs * layer.inputs, side, side, needs_gradient=not case.is_first)
    return _convolution(case, inputs, outputs=runs * layer.outputs, groups=runs)


def _of_one_model(case: _Case) -> Callable[[], object]:
    """As many images, by one model's weights."""
    layer, side = case.layer, case.side
    inputs = case.tensor(case.runs * case.images, layer.inputs, side, side, needs_gradient=not case.is_first)
    return _convolution(case, inputs, outputs=layer.outputs, groups=1)


def _each(case: _Case) -> list[Callable[[], object]]:
    layer, side = case.layer, case.side
    return [
        _convolution(
            case,
            case.tensor(case.images, layer.inputs, side, side, needs_gradient=not case.is_first),
            outputs=layer.outputs,
            groups=1,
        )
        for _ in range(case.runs)
    ]


def _one_by_one(case: _Case) -> Callable[[], object]:
    steps = _each(case)
    return lambda: [step() for step in steps]


def _on_streams(case: _Case) -> Callable[[], object]:
    steps = _each(case)
    if case.device.type != "cuda":
        return lambda: [step() for step in steps]
    lanes = streams_of(case.device)[1:]

    def run() -> list[object]:
        current, found = torch.cuda.current_stream(case.device), []
        for index, step in enumerate(steps):
            lane = lanes[index % len(lanes)]
            lane.wait_stream(current)
            with torch.cuda.stream(lane):
                found.append(step())
        for lane in lanes[: len(steps)]:
            current.wait_stream(lane)
        return found

    return run


def _convolution(case: _Case, inputs: Tensor, *, outputs: int, groups: int) -> Callable[[], object]:
    weight = case.tensor(outputs, inputs.shape[1] // groups, 3, 3)
    bias, gradient = case.tensor(outputs), case.tensor(len(inputs), outputs, case.side, case.side, needs_gradient=False)
    return partial(
        _both_ways, partial(functional.conv2d, padding=1, groups=groups), (inputs, weight, bias), gradient=gradient
    )


def _products(case: _Case) -> Callable[[], object]:
    """The engine's own rule: windows of all runs, multiplied with the weights of each."""
    layer, runs, side = case.layer, case.runs, case.side
    inputs = case.tensor(runs, case.images, layer.inputs, side, side, needs_gradient=not case.is_first)
    weight, bias = case.tensor(runs, layer.outputs, layer.inputs, 3, 3), case.tensor(runs, layer.outputs)
    gradient = case.tensor(runs, case.images, layer.outputs, side, side, needs_gradient=False)

    def convolve(*tensors: Tensor) -> Tensor:
        with StackedOperations("matmul", GeneratedMasks(())):
            return vmap(partial(functional.conv2d, padding=1))(*tensors)

    return partial(_both_ways, convolve, (inputs, weight, bias), gradient=gradient)


def _product_alone(case: _Case) -> Callable[[], object]:
    """The batched product, its windows there already."""
    layer, positions = case.layer, case.images * case.side**2
    windows = case.tensor(case.runs, positions, 9 * layer.inputs, needs_gradient=not case.is_first)
    weight = case.tensor(case.runs, 9 * layer.inputs, layer.outputs)
    gradient = case.tensor(case.runs, positions, layer.outputs, needs_gradient=False)
    return partial(_both_ways, torch.bmm, (windows, weight), gradient=gradient)


def _both_ways(operation: Callable[..., Tensor], tensors: tuple[Tensor, ...], *, gradient: Tensor) -> object:
    result = operation(*tensors)
    return torch.autograd.grad(result, [tensor for tensor in tensors if tensor.requires_grad], gradient)
