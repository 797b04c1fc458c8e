"""Keeps an exponential moving average of weights, as `torch.optim.swa_utils` does, and lends it to evaluations.

As `AveragedModel` with `get_ema_multi_avg_fn` has it by default: the first step's weights are the first average, and
only parameters are averaged; buffers, such as the statistics of batch normalization, are those of the model.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def lent(averages: "Averages | None") -> contextlib.AbstractContextManager[None]:
    """Let parameters be their averages for a while, where there are such."""
    return averages.lent() if averages is not None else contextlib.nullcontext()


class Averages:
    """The averages of some parameters, stacked or not, which stay the same tensors throughout a training.

    They are exchanged by value: a graph that evaluates reads the parameters where they are.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters = [parameter.detach() for parameter in parameters]
        self._decay = decay
        self._means = [torch.empty_like(parameter) for parameter in self._parameters]
        self._is_begun = False

    def update(self) -> None:
        """Take in the parameters after a step; the first call, which no graph captures, copies them."""
        if self._is_begun:
            torch._foreach_lerp_(self._means, self._parameters, 1 - self._decay)
        else:
            torch._foreach_copy_(self._means, self._parameters)
            self._is_begun = True

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let the parameters be their averages for a while."""
        trained = [parameter.clone() for parameter in self._parameters]
        torch._foreach_copy_(self._parameters, self._means)
        try:
            yield
        finally:
            torch._foreach_copy_(self._parameters, trained)

    def settle(self) -> None:
        """Let the parameters be their averages for good."""
        torch._foreach_copy_(self._parameters, self._means)

    def copies(self, places: slice, position: int | None) -> list[Tensor]:
        """Return copies on the CPU of one model's averages, all at some places, or at a position where stacked."""
        return [mean.to("cpu", copy=True) for mean in self._of(places, position)]

    def put_back(self, kept: Sequence[Tensor], places: slice, position: int | None) -> None:
        """Go on from one model's averages.

        Raises:
            ValueError, RuntimeError: they are of other parameters.
        """
        for mean, value in zip(self._of(places, position), kept, strict=True):
            mean.copy_(value)
        self._is_begun = True

    def _of(self, places: slice, position: int | None) -> list[Tensor]:
        return [mean if position is None else mean[position] for mean in self._means[places]]
