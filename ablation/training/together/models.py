"""The interface of models that take a step at once, and its plain form: one after another, or on parallel streams."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ablation.records import Precision
from ablation.training.precision import compute
from ablation.training.settings import Loss
from ablation.training.snapshots import Tensors, named_tensors
from ablation.training.together.dropout import DropoutFrom


class Models(Protocol):
    """S models of equal structure on one device.

    `is_stacked` says whether each of `parameters` is that of all members (S, …), else a member's follow one another's.
    """

    is_stacked: bool

    def parameters(self, members: slice) -> list[Tensor]:
        """Return the parameters of some members; `backward` leaves their gradients in `grad`."""
        ...

    def backward(self, inputs: Tensor, labels: Tensor, loss: Loss, *further: Tensor) -> tuple[Tensor, Tensor]:
        """Compute gradients in training mode from inputs (S, B, …) and labels (S, B), a batch for each model.

        The loss takes what is `further` given (S, …) after them, that of its model.

        Returns the losses (S,) and the logits (S, B, classes), detached. A model's gradient is that of its own loss.
        """
        ...

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logits (S, B, classes) in evaluation mode."""
        ...

    def state(self, member: int) -> dict[str, Tensor]:
        """Return a model's state by the names of its own `state_dict`: the tensors that are trained, or views."""
        ...

    def tensors(self, member: int) -> Tensors:
        """Return all parameters and buffers of a model by name: those that are trained, or views."""
        ...

    def modules(self) -> list[nn.Module]:
        """Return the models whose code is run for a step."""
        ...


class SideBySide:
    """Models as they are, one after another, or each on a stream of its own where there are `streams`.

    A single model draws from the device's global generator, as it does alone; of several each has its own for dropout.
    """

    is_stacked = False

    def __init__(
        self,
        models: Sequence[nn.Module],
        *,
        precision: Precision,
        generators: Sequence[torch.Generator],
        streams: Sequence[torch.cuda.Stream] = (),
    ) -> None:
        self._models = models
        self._precision = precision
        self._generators = generators
        self._streams = streams
        self._device = next(models[0].parameters()).device

    def parameters(self, members: slice) -> list[Tensor]:
        return [parameter for model in self._models[members] for parameter in model.parameters()]

    def backward(self, inputs: Tensor, labels: Tensor, loss: Loss, *further: Tensor) -> tuple[Tensor, Tensor]:
        losses, logits = [], []
        with self._lanes() as lane:
            for index, model in enumerate(self._models):
                with lane(index), self._draws(index):
                    model.train()
                    model.zero_grad(set_to_none=True)
                    answers = compute(partial(model, inputs[index]), self._precision, self._device)
                    value = loss(answers, labels[index], *(own[index] for own in further))
                    value.backward()  # type: ignore[no-untyped-call]
                losses.append(value.detach())
                logits.append(answers.detach())
        return torch.stack(losses), torch.stack(logits)

    def logits(self, inputs: Tensor) -> Tensor:
        found = []
        with self._lanes() as lane:
            for index, model in enumerate(self._models):
                with lane(index), torch.no_grad():
                    model.eval()
                    found.append(compute(partial(model, inputs[index]), self._precision, self._device))
        return torch.stack(found)

    def state(self, member: int) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self._models[member].state_dict()
        return state

    def tensors(self, member: int) -> Tensors:
        return named_tensors(self._models[member])

    def modules(self) -> list[nn.Module]:
        return list(self._models)

    @contextlib.contextmanager
    def _lanes(self) -> Iterator[Callable[[int], AbstractContextManager[object]]]:
        """Yield what returns the context of a model's stream, which begins where the current one stands.

        At the end, of whatever kind, the current stream waits for those that were begun, and for no other: a capture
        fails where it goes on without one of them, and where it waits for what is not captured.
        """
        begun: set[torch.cuda.Stream] = set()

        def lane(index: int) -> AbstractContextManager[object]:
            if not self._streams:
                return contextlib.nullcontext()
            stream = self._streams[index % len(self._streams)]
            stream.wait_stream(torch.cuda.current_stream(self._device))
            begun.add(stream)
            return torch.cuda.stream(stream)

        try:
            yield lane
        finally:
            for stream in begun:
                torch.cuda.current_stream(self._device).wait_stream(stream)

    def _draws(self, index: int) -> AbstractContextManager[object]:
        if len(self._models) == 1:
            return contextlib.nullcontext()
        return DropoutFrom(self._generators[index])
