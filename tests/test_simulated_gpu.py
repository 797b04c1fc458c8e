"""The simulated GPU refuses what a real one would, and computes what it would."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

SIMULATED = sys.modules.get("simulated_gpu")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(SIMULATED is None, reason="tests the simulated GPU itself")]
DEVICE = torch.device("cuda:0")


@pytest.fixture
def device() -> Any:
    assert SIMULATED is not None
    return SIMULATED.device


@pytest.fixture(autouse=True)
def _no_capture_under_way(device: Any) -> Iterator[None]:
    """Take back what a capture that failed leaves behind, as `ablation.training.together.replay` does."""
    yield
    device.memory.under_way.clear()
    device.capturing.clear()


@pytest.fixture
def stream() -> Iterator[torch.cuda.Stream]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        yield stream


def captured(
    function: Callable[[], Tensor], stream: torch.cuda.Stream, pool: Any = None
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream):
        result = function()
    return graph, result


def test_tensors_are_on_the_gpu_and_gradients_are_the_cpus() -> None:
    torch.manual_seed(0)
    inputs, weights = torch.randn(5, 3), torch.randn(3, 2, requires_grad=True)
    (inputs @ weights).square().sum().backward()
    there = weights.detach().to(DEVICE).requires_grad_()

    (inputs.to(DEVICE) @ there).square().sum().backward()

    assert DEVICE == there.device == there.grad.device  # type: ignore[union-attr]
    assert torch.equal(weights.grad, there.grad.cpu())  # type: ignore[arg-type, union-attr]


def test_a_capture_computes_nothing_and_a_replay_what_was_recorded(stream: torch.cuda.Stream) -> None:
    total, step = torch.zeros(1, device=DEVICE), torch.ones(1, device=DEVICE)
    graph, result = captured(lambda: total.add_(step) * 2, stream)
    assert 0 == total.item()

    graph.replay()
    step.fill_(10)
    graph.replay()

    assert (11, 22) == (total.item(), result.item())


@pytest.mark.parametrize(
    "wait",
    [
        lambda tensor: tensor.sum().item(),
        lambda tensor: tensor.tolist(),
        lambda tensor: tensor.cpu(),
        lambda tensor: bool(tensor.sum() > 0),
        lambda tensor: tensor.nonzero(),
        lambda tensor: tensor[tensor > 0],
        lambda tensor: torch.cuda.synchronize(),
        lambda tensor: tensor.copy_(torch.ones(2)),
    ],
)
def test_waiting_breaks_a_capture(wait: Callable[[Tensor], object], stream: torch.cuda.Stream) -> None:
    tensor = torch.ones(2, device=DEVICE)

    with pytest.raises(torch.AcceleratorError, match="previous error during capture"):
        captured(lambda: wait(tensor) or tensor, stream)  # type: ignore[return-value, arg-type]


def test_waiting_is_refused_where_it_is_forbidden() -> None:
    tensor = torch.ones(2, device=DEVICE)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
            tensor.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_tensor_of_the_cpu_beside_one_of_the_gpu_is_refused() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device=DEVICE) + torch.ones(2)


def test_memory_of_a_graph_is_not_read_once_another_of_its_pool_has_run(stream: torch.cuda.Stream) -> None:
    pool, inputs = torch.cuda.graph_pool_handle(), torch.ones(3, device=DEVICE)
    first, result = captured(lambda: inputs + 1, stream, pool)
    second, other = captured(lambda: inputs + 2, stream, pool)
    first.replay()
    kept = result.clone()
    second.replay()

    assert [[2.0] * 3, [3.0] * 3] == [kept.tolist(), other.tolist()]
    with pytest.raises(RuntimeError, match="reads memory of a graph after another one"):
        result + 1


def test_a_graph_does_not_read_what_was_given_back_since(stream: torch.cuda.Stream) -> None:
    inputs: Tensor | None = torch.ones(3, device=DEVICE)
    graph, _ = captured(lambda: inputs + 1, stream)  # type: ignore[operator]
    graph.replay()

    inputs = None

    with pytest.raises(RuntimeError, match="given back after its capture"):
        graph.replay()


def test_a_stream_that_a_capture_does_not_come_back_from_breaks_it(stream: torch.cuda.Stream) -> None:
    lane, inputs = torch.cuda.Stream(), torch.ones(3, device=DEVICE)

    def forked(*, is_joined: bool) -> Tensor:
        lane.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(lane):
            result = inputs + 1
        if is_joined:
            torch.cuda.current_stream().wait_stream(lane)
        return result

    captured(lambda: forked(is_joined=True), stream)
    with pytest.raises(torch.AcceleratorError):
        captured(lambda: forked(is_joined=False), stream)


def test_a_capture_that_waits_for_a_stream_outside_of_it_breaks(stream: torch.cuda.Stream) -> None:
    inside, outside, inputs = torch.cuda.Stream(), torch.cuda.Stream(), torch.ones(3, device=DEVICE)

    def waiting(*lanes: torch.cuda.Stream) -> Tensor:
        inside.wait_stream(torch.cuda.current_stream())
        for lane in lanes:
            torch.cuda.current_stream().wait_stream(lane)
        return inputs + 1

    captured(lambda: waiting(inside), stream)
    with pytest.raises(torch.AcceleratorError, match="previous error during capture"):
        captured(lambda: waiting(inside, outside), stream)


def test_replays_draw_on_and_the_generators_seed_tells_what(stream: torch.cuda.Stream) -> None:
    draws = torch.zeros(4, device=DEVICE)
    torch.manual_seed(3)
    expected = [draws.uniform_().tolist() for _ in range(2)]
    graph, _ = captured(draws.uniform_, stream)
    torch.manual_seed(3)

    found = []
    for _ in range(2):
        graph.replay()
        found.append(draws.tolist())

    assert expected == found
    assert expected[0] != expected[1]


def test_there_is_no_more_memory_than_there_is(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.memory, "total", device.memory.needed + 100)
    kept = torch.zeros(20, device=DEVICE)

    with pytest.raises(torch.OutOfMemoryError):
        torch.zeros(20, device=DEVICE)
    del kept

    assert 20 == len(torch.zeros(20, device=DEVICE))


def test_a_pool_keeps_its_memory_until_no_graph_uses_it(device: Any, stream: torch.cuda.Stream) -> None:
    torch.cuda.empty_cache()
    before, inputs = torch.cuda.memory_reserved(), [torch.ones(1000, device=DEVICE)]
    graph, result = captured(lambda: (inputs[0] + 1).sum(), stream)
    del result
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() >= before + 8000

    del graph
    inputs.clear()
    torch.cuda.empty_cache()

    assert before == torch.cuda.memory_reserved()
