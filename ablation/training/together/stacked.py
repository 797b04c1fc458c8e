"""Trains S models of equal structure as one whose parameters are stacked: each operation is done once for all."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ablation.errors import PathUnavailable
from ablation.records import Precision
from ablation.training.precision import compute
from ablation.training.settings import Loss
from ablation.training.snapshots import Tensors
from ablation.training.together.dropout import Masks
from ablation.training.together.operations import Convolution, StackedOperations


class Stacked:
    """S models with stacked parameters (S, …) and buffers; the models given are copied and left as they are.

    What `vmap` cannot do for all models at once, such as a decision by the value of a tensor or random numbers other
    than dropout's, raises an error of PyTorch's in the first step.
    """

    is_stacked = True

    def __init__(
        self,
        models: Sequence[nn.Module],
        *,
        convolution: Convolution,
        precision: Precision,
        masks: Masks,
    ) -> None:
        self._count = len(models)
        self._precision = precision
        self._device = next(models[0].parameters()).device
        self._parameters = _stacked([dict(model.named_parameters()) for model in models])
        self._buffers = _stacked([dict(model.named_buffers()) for model in models])
        for name, parameter in models[0].named_parameters():
            self._parameters[name].requires_grad_(parameter.requires_grad)
        self._kept_as = _kept_as(models[0])
        self._state_names = list(models[0].state_dict())
        self._model = copy.deepcopy(models[0]).to("meta")
        self._masks = masks
        self._operations = StackedOperations(convolution, masks)
        self._ones = torch.ones(self._count, device=self._device)
        self._views: list[tuple[slice, list[Tensor]]] = []

    def parameters(self, members: slice) -> list[Tensor]:
        whole = list(self._parameters.values())
        if members.indices(self._count) == (0, self._count, 1):
            return whole
        views = [parameter.detach()[members] for parameter in whole]
        self._views.append((members, views))
        return views

    def backward(self, inputs: Tensor, labels: Tensor, loss: Loss, *further: Tensor) -> tuple[Tensor, Tensor]:
        def one(
            parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Tensor, truth: Tensor, *own: Tensor
        ) -> tuple[Tensor, Tensor]:
            logits = self._forward(parameters, buffers, batch)
            with self._operations:
                return loss(logits, truth, *own), logits

        self._masks.begin_step()
        self._model.train()
        for parameter in self._parameters.values():
            parameter.grad = None
        losses, logits = vmap(one)(self._parameters, self._buffers, inputs, labels, *further)
        losses.backward(self._ones.to(losses.dtype))  # type: ignore[no-untyped-call]  # each gradient is of its own loss
        for members, views in self._views:
            for view, parameter in zip(views, self._parameters.values(), strict=True):
                view.grad = None if parameter.grad is None else parameter.grad[members]
        return losses.detach(), logits.detach()

    def logits(self, inputs: Tensor) -> Tensor:
        self._model.eval()
        with torch.no_grad():
            logits: Tensor = vmap(self._forward)(self._parameters, self._buffers, inputs)
        return logits

    def state(self, member: int) -> dict[str, Tensor]:
        own = self.tensors(member)
        return {name: own[self._kept_as[name]] for name in self._state_names}

    def tensors(self, member: int) -> Tensors:
        return {name: tensor.detach()[member] for name, tensor in {**self._parameters, **self._buffers}.items()}

    def modules(self) -> list[nn.Module]:
        return [self._model]

    def _forward(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        tensors = {**parameters, **buffers}
        named = {name: tensors[kept] for name, kept in self._kept_as.items()}
        given = dict(named)
        call = partial(functional_call, self._model, named, (batch,))
        with self._operations:
            logits = compute(call, self._precision, self._device)
        if replaced := [name for name, tensor in named.items() if tensor is not given[name]]:
            raise PathUnavailable("fused", f"a step puts another tensor in the place of the model's {replaced[0]}")
        return logits


def _stacked(models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: _stack([model[name].detach() for model in models]) for name in models[0]}


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Return (S, …), each in the memory layout that it has."""
    stacked = torch.stack(list(tensors))
    if tensors[0].dim() != 4 or not tensors[0].is_contiguous(memory_format=torch.channels_last):
        return stacked
    return stacked.flatten(0, 1).contiguous(memory_format=torch.channels_last).view_as(stacked)


def _kept_as(model: nn.Module) -> dict[str, str]:
    """Return the name that each parameter and buffer is stacked under: the first of several, where they are tied."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    for name, tensor in named:
        first.setdefault(id(tensor), name)
    return {name: first[id(tensor)] for name, tensor in named}
