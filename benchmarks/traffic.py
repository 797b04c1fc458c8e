"""Counts what operations cost a device: kernels, bytes that are read and written, and copies.

Each operation is counted on its own, as if nothing stayed in a cache between two, and each element that it needs once.
A captured graph runs no operations when it is replayed: count the step that it was made of.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WITHOUT_KERNEL = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("_unsafe_view", "resize_", "set_", "is_same_size", "record_stream"),
}
"""What only makes a tensor, or another one of the same memory, and is no view by its schema."""
COPIES = ("clone", "_to_copy", "copy_")
ONLY_WRITTEN = {
    *("copy_", "zero_", "fill_", "masked_fill_", "index_copy_", "scatter_", "_foreach_zero_", "_foreach_copy_"),
    *("bernoulli_", "uniform_", "normal_", "random_", "exponential_"),
}
"""What does not read the tensor that it changes."""
UNREAD: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"), ("self",)),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full"), ("self",)),
    **dict.fromkeys(("max_pool2d_with_indices_backward", "avg_pool2d_backward"), ("self",)),
    **dict.fromkeys(("_adaptive_avg_pool2d_backward", "nll_loss_backward"), ("self",)),
    "native_batch_norm_backward": ("running_mean", "running_var"),
}
"""The arguments of an operation that it takes for their shape alone."""
TABLES = {"index_select": "self", "index": "self", "gather": "self", "embedding": "weight", "nll_loss_forward": "self"}
"""The argument that an operation reads only what is named of, by positions or labels."""
PARTS = {"index_copy_": "source", "index_add_": "source", "index_put_": "values", "scatter_": "index"}
"""The argument that has as many elements as an operation changes of its target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """An operation that only copies, or casts where the types differ: clone, _to_copy (of `to`) or copy_."""

    operation: str
    shape: tuple[int, ...]
    source: torch.dtype
    target: torch.dtype


class Traffic(TorchDispatchMode):
    """While active, counts what is run, in backward passes too: `kernels`, `bytes` and `copies`.

    An operation that is no view and makes no empty tensor is one kernel, though a device may take more for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0
        self.bytes = 0
        self.copies: list[Copy] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not (func.is_view or torch.Tag.inplace_view in func.tags or name in WITHOUT_KERNEL):
            call = _Call(name, func, args, kwargs or {}, result)
            moved = call.bytes_read() + call.bytes_written()
            self.kernels += moved > 0  # a profiler's mark, or an operation on nothing, starts none
            self.bytes += moved
            if name in COPIES:
                self.copies.append(call.as_copy())
        return result


class _Call:
    """An operation that was run, its arguments by the names of its schema."""

    def __init__(self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: object) -> None:
        self.name, self._result = name, result
        declared = func._schema.arguments
        self._given = {**{one.name: value for one, value in zip(declared, args, strict=False)}, **kwargs}
        self._made = [one.alias_info is None for one in func._schema.returns]
        self._changed = {one.name for one in declared if one.alias_info is not None and one.alias_info.is_write}
        self._targets = {one.name for one in declared if one.is_out}
        if name.startswith("_fused_") and self._given.get("grad_scale") is None:
            self._changed.discard("grads")  # written only to take a scale out

    def bytes_read(self) -> int:
        unread = self._unread()
        table = TABLES.get(self.name)
        held = {name: _bytes(value) for name, value in self._given.items() if name not in unread}
        if table is not None:
            held[table] = min(held[table], self._named(table))
        return sum(held[name] if name not in self._changed else self._part(name) for name in held)

    def bytes_written(self) -> int:
        results = self._result if isinstance(self._result, tuple | list) else (self._result,)
        is_list = len(self._made) == 1 and isinstance(self._result, list)
        made = self._made * len(results) if is_list else self._made
        new = sum(_bytes(one) for one, is_new in zip(results, made, strict=False) if is_new)
        return new + sum(self._part(name) for name in self._changed if name in self._given)

    def as_copy(self) -> Copy:
        source = self._given["src" if self.name == "copy_" else "self"]
        assert isinstance(self._result, Tensor)
        return Copy(
            operation=self.name, shape=tuple(self._result.shape), source=source.dtype, target=self._result.dtype
        )

    def _unread(self) -> set[str]:
        unread = {*UNREAD.get(self.name, ()), *self._targets}
        if self.name in ONLY_WRITTEN or (self.name == "index_put_" and not self._given.get("accumulate")):
            unread |= self._changed
        if self.name == "convolution_backward":
            for argument, is_needed in zip(("weight", "input"), self._given["output_mask"], strict=False):
                unread |= set() if is_needed else {argument}
        return unread

    def _named(self, table: str) -> int:
        """Return the bytes of the elements of a table that positions name: of the result's, or one per label."""
        if self.name == "nll_loss_forward":
            return int(self._given["target"].numel() * self._given[table].element_size())
        return _bytes(self._result)

    def _part(self, name: str) -> int:
        """Return the bytes of what is changed of an argument."""
        whole = _bytes(self._given[name])
        part = self._given.get(PARTS.get(self.name, ""))
        return whole if part is None else min(whole, part.numel() * self._given[name].element_size())


def _bytes(value: object) -> int:
    return sum(_extent(tensor) for tensor in _tensors(value))


def _extent(tensor: Tensor) -> int:
    """Return the bytes of memory that a tensor's elements lie in: those that it repeats or that overlap count once."""
    if not tensor.numel():
        return 0
    sizes = list(zip(tensor.shape, tensor.stride(), strict=True))
    elements = math.prod(size for size, stride in sizes if stride)
    span = 1 + sum((size - 1) * stride for size, stride in sizes)
    return min(elements, span) * tensor.element_size()


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
