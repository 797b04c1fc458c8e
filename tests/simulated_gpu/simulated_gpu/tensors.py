"""Tensors that are on cuda:0 by what they say and by how PyTorch dispatches them, and are computed on the CPU."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import ReferenceType

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from simulated_gpu.memory import Held, Memory

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "_unique2",
    "unique_dim",
    "repeat_interleave.Tensor",
    "bincount",
)
"""Operations whose result, or its size, the host must know before it goes on."""
DRAWING = ("bernoulli", "dropout", "exponential", "multinomial", "normal", "rand", "random", "uniform")
"""What the names of operations that draw random numbers hold."""


class Recording(Protocol):
    """A graph that is being captured."""

    is_broken: bool

    def record(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None: ...

    def draw_from(self, generator: torch.Generator | None) -> None: ...


class Owner(Protocol):
    """A graph that has tensors in its pool."""

    def check_holds(self) -> None:
        """See that what the last replay computed is still there.

        Raises:
            RuntimeError: another graph of the pool has been replayed since, or none ever.
        """
        ...


@dataclass(slots=True)
class Device:
    """What the one GPU is in the middle of."""

    memory: Memory = field(default_factory=Memory)
    capture: Recording | None = None
    forbids_waiting: bool = False
    is_dead: bool = False
    owners: dict[int, ReferenceType[Any]] = field(default_factory=dict)
    """The graph that a storage, by its address, belongs to."""
    capturing: set[int] = field(default_factory=set)
    """The generators that a capture has, by PyTorch's address; one that failed keeps them, until their state is set."""
    generator: torch.Generator = field(default_factory=lambda: torch.Generator())

    def wait(self, what: str) -> None:
        """Let the host wait for the device.

        Raises:
            RuntimeError: where it must not: in a capture, or when that is forbidden.
        """
        self.check_alive()
        if self.capture is not None:
            self.capture.is_broken = True
            raise torch.AcceleratorError(f"CUDA error: operation not permitted when stream is capturing ({what})")
        if self.forbids_waiting:
            raise RuntimeError(f"called a synchronizing CUDA operation ({what})")

    def check_alive(self) -> None:
        if self.is_dead:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    def die(self) -> None:
        self.is_dead = True
        self.check_alive()


device = Device()


class OnGpu(Tensor):
    """A tensor on the simulated GPU; `inner` has its values, on the CPU."""

    inner: Tensor
    _held: Held | None
    _owner: ReferenceType[Owner] | None
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnGpu":
        made: OnGpu = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=GPU,
        )
        made.inner = inner
        made._held = device.memory.hold(inner)
        made._owner = device.owners.get(inner.untyped_storage().data_ptr())
        return made

    def check_readable(self) -> None:
        if self._owner is None:
            return
        owner = self._owner()
        if owner is None:
            raise RuntimeError("reads memory of a graph that is gone")
        owner.check_holds()

    @classmethod
    def __torch_dispatch__(
        cls, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return dispatch(func, args, kwargs or {})

    # With these two PyTorch swaps a module's parameters for tensors of this class when the module moves.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, Tensor], meta: None, size: Any, stride: Any) -> "OnGpu":
        return OnGpu(inner["inner"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copy: Tensor = OnGpu(self.inner.clone()).requires_grad_(self.requires_grad)
            memo[id(self)] = torch.nn.Parameter(copy, self.requires_grad) if _is_parameter(self) else copy
        return memo[id(self)]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner!r})"


class Dispatch(TorchDispatchMode):
    """Sends what makes tensors on the GPU, or copies to it, to the simulation."""

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return dispatch(func, args, kwargs or {})


def dispatch(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation where its tensors, or its `device`, say.

    Raises:
        RuntimeError: as a GPU would: a wait that is not allowed, tensors on two devices, memory that is not there.
    """
    wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    inputs = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    if not inputs and (wanted is None or wanted.type != "cuda"):
        return func(*args, **kwargs)
    device.check_alive()
    _check_waits(func, args, kwargs, tensors, wanted)
    for tensor in inputs:
        tensor.check_readable()
    inner_args, inner_kwargs = (tree_map(_inner, given) for given in (args, kwargs))
    if wanted is not None and wanted.type != "cuda":
        inner_kwargs["device"] = wanted
    result = _computed(func, inner_args, inner_kwargs)
    is_for_the_host = func._schema.name in ("aten::_local_scalar_dense", "aten::equal")
    if is_for_the_host or (wanted is not None and wanted.type != "cuda"):
        return result
    if device.capture is not None and not func.is_view:
        device.capture.record(func, inner_args, inner_kwargs, result)
    known = {id(tensor.inner): tensor for tensor in inputs}
    return tree_map(lambda leaf: _outer(leaf, known), result)


def run(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the CPU; it draws from the GPU's generator where it draws and none is given."""
    try:
        if not _draws(func):
            return func(*args, **kwargs)
        given = kwargs.get("generator")
        if (given or device.generator)._cdata in device.capturing:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        with _drawing_from_the_gpus() if given is None else contextlib.nullcontext():
            return func(*args, **kwargs)
    except IndexError:
        device.die()


def _computed(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the result of an operation; in a capture, which computes nothing, memory for it."""
    if device.capture is None:
        return run(func, args, kwargs)
    if _draws(func):
        device.capture.draw_from(kwargs.get("generator"))
    if func.is_view:
        return func(*args, **kwargs)
    if func._schema.is_mutable:
        return _changed(func, args, kwargs)
    if _draws(func):
        return tree_map(_memory_like, func(*tree_map(_on_meta, args), **tree_map(_on_meta, dict(kwargs))))
    # Zeros, as indices, are within every table.
    return func(*tree_map(_zeros, args), **tree_map(_zeros, dict(kwargs)))


def _changed(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return what an operation that changes its arguments gives back: those that it changes, in their order."""
    schema = func._schema
    given = {**dict(zip((argument.name for argument in schema.arguments), args, strict=False)), **kwargs}
    changed = [
        given[argument.name] for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write
    ]
    if not schema.returns:
        return None
    return changed[0] if len(schema.returns) == 1 else tuple(changed)


def _check_waits(
    func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Tensor], wanted: Any
) -> None:
    name = func._schema.name.removeprefix("aten::")
    here = [tensor for tensor in tensors if not isinstance(tensor, OnGpu)]
    if name in WAITING or f"{name}.{func._overloadname}" in WAITING:
        device.wait(name)
    elif name in ("index", "index_put_", "index_put"):
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            device.wait(f"{name} by a mask")
        if any(not isinstance(index, OnGpu) for index in indices):
            device.wait(f"{name} by indices on the CPU")
        return
    elif name == "_to_copy" and wanted is not None and (wanted.type == "cpu" or here):
        if wanted.type == "cpu" or not kwargs.get("non_blocking"):
            device.wait("copy between the CPU and the device")
        return
    elif name == "copy_" and here:
        device.wait("copy between the CPU and the device")
        return
    if any(tensor.dim() for tensor in here) and len(here) < len(tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but got cuda:0 and cpu: {func}")


def _draws(func: OpOverload) -> bool:
    return any(name in func._schema.name for name in DRAWING)


def _inner(leaf: Any) -> Any:
    if isinstance(leaf, OnGpu):
        return leaf.inner
    return CPU if isinstance(leaf, torch.device) and leaf.type == "cuda" else leaf


def _outer(leaf: Any, known: Mapping[int, OnGpu]) -> Any:
    """Return a result on the GPU: the very tensor that was changed where it is, or a new one."""
    if not isinstance(leaf, Tensor):
        return leaf
    return known[id(leaf)] if id(leaf) in known else OnGpu(leaf)


def _zeros(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return torch.empty_strided(leaf.size(), leaf.stride(), dtype=leaf.dtype).zero_()


def _on_meta(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("meta")
    if not isinstance(leaf, Tensor):
        return leaf
    return torch.empty_strided(leaf.size(), leaf.stride(), dtype=leaf.dtype, device="meta")


def _memory_like(leaf: Any) -> Any:
    return torch.empty_strided(leaf.size(), leaf.stride(), dtype=leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _is_parameter(tensor: Tensor) -> bool:
    return bool(getattr(tensor, "_is_param", False))


@contextlib.contextmanager
def _drawing_from_the_gpus() -> Iterator[None]:
    kept = torch.default_generator.get_state()
    torch.default_generator.set_state(device.generator.get_state())
    try:
        yield
    finally:
        device.generator.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(kept)


def without_modes(function: Callable[[], None]) -> None:
    """Call a function below autograd, outside of the simulation."""
    with torch.no_grad(), _disable_current_modes():
        function()
