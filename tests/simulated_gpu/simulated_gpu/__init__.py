"""A simulated GPU: all that the training engine asks of `torch.cuda`, on one CPU, with a GPU's rules.

Tensors on it say that they are on cuda:0 and are dispatched so. A capture computes nothing, and a replay runs what was
recorded; what makes the host wait is refused where it must not; memory is counted as PyTorch's allocator
does, with the pools of graphs; memory of a graph cannot be read once another of its pool has run; an index that is out
of range ends the device for the process. Not simulated: cuDNN, concurrency, time, and rounding of its own.
"""

import contextlib
from typing import Any

import torch

from simulated_gpu.driver import replace_driver, why_not
from simulated_gpu.graphs import (
    CurrentStream,
    Generator,
    Graph,
    Stream,
    current_stream,
    default_stream,
    rules,
    synchronize,
)
from simulated_gpu.memory import PoolId
from simulated_gpu.tensors import GPU, Dispatch, OnGpu, device

__all__ = ["device", "install", "rules", "why_not"]


def install() -> None:
    """Put the simulated GPU in the place of `torch.cuda`, for the rest of this process, unless `why_not` says why not.

    Raises:
        OSError, AttributeError: the functions of PyTorch that it replaces cannot be.
    """
    replace_driver()
    device.generator = Generator()
    _replace_queries()
    _replace_memory()
    _replace_execution()
    _replace_tensors()
    torch.autograd.set_multithreading_enabled(False)  # type: ignore[no-untyped-call]
    torch.backends.cudnn.enabled = False  # batch norm by PyTorch's own operation, which the CPU has too
    Dispatch().__enter__()


def _replace_queries() -> None:
    cuda: Any = torch.cuda
    cuda.is_available = cuda.is_initialized = cuda._is_compiled = lambda: True
    cuda.init = cuda._lazy_init = lambda: None
    cuda._is_in_bad_fork = lambda: False  # unlike a real one, it is there in a forked process too
    cuda.set_device = lambda device: None
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.get_device_name = lambda device=None: "simulated"
    cuda.get_device_capability = lambda device=None: (9, 0)
    cuda.is_bf16_supported = lambda *args, **kwargs: True
    torch.backends.cudnn.version = lambda: 0  # type: ignore[assignment]


def _replace_memory() -> None:
    cuda: Any = torch.cuda
    memory = device.memory
    cuda.memory_allocated = lambda device=None: memory.allocated
    cuda.memory_reserved = lambda device=None: memory.reserved
    cuda.max_memory_allocated = lambda device=None: memory.peak_allocated
    cuda.max_memory_reserved = lambda device=None: memory.peak_reserved
    cuda.reset_peak_memory_stats = lambda device=None: memory.reset_peaks()
    cuda.mem_get_info = lambda device=None: (memory.total - memory.reserved, memory.total)
    cuda.empty_cache = cuda.memory.empty_cache = _empty_cache
    native: Any = torch._C
    native._cuda_endAllocateToPool = lambda device, pool: memory.end_pool(pool)
    native._cuda_releasePool = lambda device, pool: memory.release_pool(pool)
    native._host_emptyCache = lambda: None


def _empty_cache() -> None:
    device.check_alive()
    device.memory.empty_cache()


def _replace_execution() -> None:
    cuda: Any = torch.cuda
    cuda.Stream = cuda.streams.Stream = Stream
    cuda.stream = CurrentStream
    cuda.current_stream, cuda.default_stream = current_stream, default_stream
    cuda.synchronize = synchronize
    cuda.CUDAGraph = cuda.graphs.CUDAGraph = Graph
    cuda.graph_pool_handle = _new_pool
    cuda.is_current_stream_capturing = cuda.graphs.is_current_stream_capturing = lambda: device.capture is not None
    cuda.set_sync_debug_mode = _set_sync_debug_mode
    cuda.default_generators = (device.generator,)
    cuda.manual_seed_all = cuda.random.manual_seed_all = lambda seed: device.generator.manual_seed(seed)
    cuda.get_rng_state = lambda device_of=None: device.generator.get_state()
    torch.Generator = Generator  # type: ignore[misc]


def _new_pool() -> PoolId:
    return device.memory.new_pool()


def _set_sync_debug_mode(mode: str | int) -> None:
    device.forbids_waiting = mode in ("error", 2)


def _replace_tensors() -> None:
    """Replace what reads or makes tensors without dispatching an operation."""
    tensor: Any = torch.Tensor
    make, convert, to_list = torch.tensor, torch.as_tensor, tensor.tolist

    def tensor_on(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        made = make(data, *args, **kwargs)
        return made if device is None else made.to(device)

    def as_tensor_on(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        made = convert(data, *args, **kwargs)
        return made if device is None else made.to(device)

    def tolist(given: torch.Tensor) -> Any:
        if not isinstance(given, OnGpu):
            return to_list(given)
        device.wait("tolist")
        given.check_readable()
        return to_list(given.inner)

    torch.tensor = tensor_on
    torch.as_tensor = as_tensor_on
    tensor.tolist = tolist
    tensor.cuda = lambda given, *args, **kwargs: given.to(GPU)
    torch.nn.Module.cuda = lambda module, device=None: module.to(GPU)  # type: ignore[method-assign]
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()  # type: ignore
