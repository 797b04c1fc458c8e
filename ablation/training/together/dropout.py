"""Draws a run's dropout from a stream of its own, so that its masks do not depend on what is trained beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LANES = 4
"""Elements that a word of 64 random bits is for."""


class DropoutFrom(TorchFunctionMode):
    """While active, `dropout` draws from a generator; on a CPU its masks are those of PyTorch's own from that seed."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is functional.dropout:
            rate, is_training = dropout_arguments(*args, **(kwargs or {}))
            return args[0] * dropout_mask(args[0], rate, self._generator) if is_training and rate else args[0]
        return func(*args, **(kwargs or {}))


def dropout_arguments(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> tuple[Any, bool]:  # noqa: A002, ARG001
    """Return the rate and whether it is training of a call of `torch.nn.functional.dropout`."""
    return p, training


def dropout_mask(example: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Return a mask of the example's shape: 0 with the rate's probability, else 1 / (1 - rate)."""
    if rate == 1:
        return torch.zeros_like(example)
    return torch.empty_like(example).bernoulli_(1 - rate, generator=generator).div_(1 - rate)


class Masks(Protocol):
    """The dropout of S stacked models: the masks of each depend on its own seed alone."""

    def begin_step(self) -> None:
        """Go on to the masks of the next step."""
        ...

    def applied_to(self, stacked: Tensor, rate: float) -> Tensor:
        """Return (S, …) with elements set to 0 with the rate's probability, the others scaled to the same mean."""
        ...


class GeneratedMasks:
    """Masks from a generator for each model: on a CPU those of the model alone, at the cost of a few kernels each."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = tuple(generators)

    def begin_step(self) -> None:
        """Nothing is to be done: a generator goes on by itself."""

    def applied_to(self, stacked: Tensor, rate: float) -> Tensor:
        drawn = zip(stacked, self._generators, strict=True)
        return stacked * torch.stack([dropout_mask(_laid_out_alone(one), rate, own) for one, own in drawn])


def _laid_out_alone(one: Tensor) -> Tensor:
    """Return an example of a model's part of stacked activations in the layout that they have in the model alone.

    Masks are drawn in the order of memory, and stacked layers may leave the batch innermost.
    """
    is_batch_outermost = one.dim() == 0 or one.stride(0) == max(one.stride())
    return one if is_batch_outermost else torch.empty(one.shape, dtype=one.dtype, device=one.device)


class CountedMasks:
    """Masks from a hash of (seed, step, element), for all models at once: as many kernels for 32 as for one.

    All of a step's masks are hashed at the first of its calls, as many words as the last such step took; in the first
    step, each call hashes its own: to the same masks. A word of 64 bits is four elements', so that a rate is taken to
    the nearest of 1/65536, and what is kept is scaled by what that is. The step is counted on the device, as a graph
    needs it. Masks are laid out by element, whatever the memory format.

    PyTorch's own generator would need a kernel for each model, as its numbers depend on their place in a tensor. By
    count that is less work for up to some 13 models, and more beyond.
    """

    def __init__(self, models: int, device: torch.device) -> None:
        self._keys = torch.ones(models, 1, dtype=torch.int64, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._words_of_step: dict[int, int] = {}  # by the words of its first call
        self._first, self._taken = 0, 0
        self._words = torch.empty(models, 0, dtype=torch.int64, device=device)

    def seed(self, seeds: Sequence[int]) -> None:
        """Begin with the first step of an epoch; a model's masks are those of its seed, in [0, 2**63)."""
        keys = [(2 * seed + 1) - (2**64 if 2 * seed + 1 >= 2**63 else 0) for seed in seeds]  # odd, as int64 wraps
        self._keys.copy_(torch.tensor(keys).unsqueeze(1))
        self._step.zero_()

    def begin_step(self) -> None:
        self._step += 1
        self._taken = 0

    def applied_to(self, stacked: Tensor, rate: float) -> Tensor:
        if rate == 1:
            return stacked * 0
        count = stacked[0].numel()
        lanes = self._next_words(-(-count // LANES)).view(torch.int16)[:, :count]  # (S, count), uniform
        dropped = min(round(rate * 2**16), 2**16 - 1)
        kept = (lanes >= dropped - 2**15).view(stacked.shape)
        scaled: Tensor = _Kept.apply(stacked, kept, 2**16 / (2**16 - dropped))
        return scaled

    def _next_words(self, count: int) -> Tensor:
        """Return (S, count) words that no other call of this step returns."""
        start, self._taken = self._taken, self._taken + count
        if start == 0:
            self._first = count
            self._words = self._hashed(0, self._words_of_step.get(count, count))
        self._words_of_step[self._first] = max(self._taken, self._words_of_step.get(self._first, 0))
        if self._taken <= self._words.shape[1]:
            return self._words[:, start : self._taken]
        return self._hashed(start, count)

    def _hashed(self, start: int, count: int) -> Tensor:
        within = torch.arange(start, start + count, device=self._step.device)
        return squares(torch.add(within, self._step, alpha=2**32), self._keys)


def squares(counters: Tensor, keys: Tensor) -> Tensor:
    """Return 64 random bits for each counter under a key, all int64, that broadcast against each other.

    Keys are odd, and about half of their bits set. Widynski, "Squares: A Fast Counter-Based RNG" (2020,
    arXiv:2004.06278), in its 64-bit form of five rounds, which passes BigCrush and PractRand.
    """
    first = counters * keys
    other = first + keys
    mixed = first
    for term in (first, other, first):
        mixed = _halves_swapped(torch.addcmul(term, mixed, mixed))
    low = torch.addcmul(other, mixed, mixed)
    mixed = _halves_swapped(low)
    high = torch.addcmul(first, mixed, mixed)
    low.view(torch.int32)[..., ::2].bitwise_xor_(high.view(torch.int32)[..., 1::2])  # a word's lower half is its first
    return low


def _halves_swapped(words: Tensor) -> Tensor:
    """Rotate words of 64 bits by 32."""
    halves = words.view(torch.int32).view(*words.shape, 2)
    return halves.flip(-1).view(torch.int64).squeeze(-1)


class _Kept(torch.autograd.Function):
    """Scales what is kept and sets the rest to 0, in one kernel forward and one backward."""

    @staticmethod
    def forward(inputs: Tensor, kept: Tensor, scale: float) -> Tensor:
        return _masked(inputs, kept, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:  # noqa: ARG004 - as torch has it
        _, kept, ctx.scale = inputs
        ctx.save_for_backward(kept)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return _masked(gradient, kept, ctx.scale), None, None


def _masked(inputs: Tensor, kept: Tensor, scale: float) -> Tensor:
    # What PyTorch's own dropout does backward; a product with the mask and the scale would be two kernels.
    masked: Tensor = torch.ops.aten.native_dropout_backward(inputs, kept, scale)
    return masked
