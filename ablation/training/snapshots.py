"""What a training has come to after an epoch, in plain types and tensors on the CPU, so that it can be resumed."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ablation.records import EpochMetrics

PLAIN = (type(None), bool, int, float, str)
"""What a checkpoint may hold beside tensors; what only looks like it, as an enumeration, may not be read again."""
Tensors = dict[str, Tensor]
OptimizerState = list[dict[str, Any]]
"""What the optimizer keeps of each parameter, in the order of the model's: tensors, and plain values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsSnapshot:
    """One model as its steps have left it: parameters and buffers by name, and what its optimizer keeps.

    `host` holds what changes outside of tensors where it is trained eagerly: the attributes of its modules, and the
    states of Python's and NumPy's generators. PyTorch's are seeded anew for every epoch. `averages` are those of the
    parameters, in the order of the model's, where training keeps such.
    """

    tensors: Tensors
    optimizer: OptimizerState
    host: Mapping[str, Any] = field(default_factory=dict)
    averages: Sequence[Tensor] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSnapshot:
    """The epoch with the best score on validation so far: its number, the score, and the model's state."""

    epoch: int
    value: float
    state: Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One run after `epoch` epochs: their metrics, its model and optimizer, and the best epoch where one is chosen.

    A run that ended before, beside others that went on, has the metrics of its own epochs, and `ended` is the state
    that its model had then, where it is that which is measured.
    """

    epoch: int
    curve: tuple[EpochMetrics, ...]
    steps: StepsSnapshot
    best: BestSnapshot | None
    diverged_step: int | None = None
    ended: Tensors | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return it as numbers, texts, lists, mappings and tensors, and nothing else."""
        return {
            "epoch": self.epoch,
            "curve": [dataclasses.asdict(metrics) for metrics in self.curve],
            "steps": _fields(self.steps),
            "best": _fields(self.best) if self.best is not None else None,
            "diverged_step": self.diverged_step,
            "ended": self.ended,
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Snapshot":
        """Return what `to_plain` was given.

        Raises:
            TypeError, KeyError: it is something else.
        """
        best = values["best"]
        return cls(
            epoch=int(values["epoch"]),
            curve=tuple(EpochMetrics.from_plain(metrics) for metrics in values["curve"]),
            steps=StepsSnapshot(**values["steps"]),
            best=_best(best) if best is not None else None,
            diverged_step=values["diverged_step"],
            ended=values.get("ended"),
        )


def _best(values: Mapping[str, Any]) -> BestSnapshot:
    """Read a best epoch; earlier versions called its score by the name of the only one there was."""
    value = values["value"] if "value" in values else values["accuracy"]
    return BestSnapshot(epoch=values["epoch"], value=value, state=values["state"])


class SnapshotMismatch(Exception):
    """A snapshot of other tensors or modules than the model has before its first step."""


class Checkpoints(Protocol):
    """Keeps the snapshots of runs that are trained together."""

    def load(self) -> Sequence[Snapshot] | None:
        """Return the last of each run that can be resumed, all after the same epoch; None to begin anew."""
        ...

    def is_due(self) -> bool:
        """Whether it is time to keep another, asked at the end of each epoch."""
        ...

    def save(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep the runs as they are after an epoch; it may raise to end the training there."""
        ...


def copied(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return copies on the CPU, each in its memory layout."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def named_tensors(model: nn.Module) -> Tensors:
    """Return all parameters and buffers, those that `state_dict` leaves out too."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def put_back(tensors: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Copy kept values into tensors of the same names.

    Raises:
        KeyError: the names differ.
    """
    if tensors.keys() != kept.keys():
        raise KeyError(f"a snapshot of other tensors: {sorted(tensors.keys() ^ kept.keys())[:5]}")
    for name, tensor in tensors.items():
        tensor.detach().copy_(kept[name])


def optimizer_state(optimizer: Optimizer, parameters: Sequence[Tensor], *, position: int | None) -> OptimizerState:
    """Return copies of what the optimizer keeps of one model's parameters, at its place where they are stacked."""
    states: list[dict[str, Any]] = [optimizer.state.get(parameter, {}) for parameter in parameters]
    return [
        {
            key: _own(value, position).detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
            for key, value in state.items()
        }
        for state in states
    ]


def make_optimizer_state(optimizer: Optimizer, parameters: Sequence[Tensor], kept: OptimizerState) -> None:
    """Let an optimizer that has taken no step make what it keeps of the parameters that it had kept something of.

    It takes a step along gradients of zero: so each value lies where, and as, this optimizer makes it. The parameters
    stay as they are.
    """
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter, values in zip(parameters, kept, strict=True):
        parameter.grad = torch.zeros_like(parameter) if values else None
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for parameter, value in zip(parameters, before, strict=True):
        parameter.detach().copy_(value)


def put_back_optimizer(
    optimizer: Optimizer, parameters: Sequence[Tensor], kept: OptimizerState, *, position: int | None
) -> None:
    """Give the optimizer, which has made its state, what it kept of one model's parameters.

    Raises:
        KeyError: it keeps something else.
    """
    for parameter, values in zip(parameters, kept, strict=True):
        state: dict[str, Any] = optimizer.state.get(parameter, {})
        if state.keys() != values.keys():
            raise KeyError(f"a snapshot of another optimizer: {sorted(state.keys() ^ values.keys())[:5]}")
        for key, value in values.items():
            if isinstance(value, Tensor):
                _own(state[key], position).copy_(value)
            else:
                state[key] = value


def host_state(modules: Sequence[nn.Module]) -> dict[str, Any]:
    """Return what modules keep in plain attributes, and the states of the host's generators."""
    numpy_state = np.random.get_state(legacy=False)
    return {
        "attributes": [_attributes(module) for module in modules],
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
    }


def put_back_host_state(modules: Sequence[nn.Module], kept: Mapping[str, Any]) -> None:
    for root, attributes in zip(modules, kept["attributes"], strict=True):
        found = dict(root.named_modules())
        for (name, attribute), value in attributes.items():
            device = next((tensor.device for tensor in found[name].parameters()), torch.device("cpu"))
            setattr(found[name], attribute, value.to(device) if isinstance(value, Tensor) else value)
    random.setstate(kept["python"])
    state = kept["numpy"]
    key = np.array(state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**state, "state": {**state["state"], "key": key}})


def _attributes(root: nn.Module) -> dict[tuple[str, str], Any]:
    """Return the plain values and unregistered tensors that modules hold, by module and name."""
    held = [
        (name, attribute, value.item() if isinstance(value, np.generic) else value)
        for name, module in root.named_modules()
        for attribute, value in vars(module).items()
        if attribute != "training"
    ]
    return {
        (name, attribute): value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
        for name, attribute, value in held
        if type(value) in PLAIN or isinstance(value, Tensor)
    }


def _own(value: Tensor, position: int | None) -> Tensor:
    """Return one model's part of what is kept of stacked parameters; a single number, as of steps, is one for all."""
    return value if position is None or not value.dim() else value[position]


def _fields(record: Any) -> dict[str, Any]:
    return {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}
