"""The size of a model and of its modules."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One leaf module: its dotted name, type, trainable parameters and output shape without the batch."""

    name: str
    type: str
    parameters: int
    output_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One module of a model, its children counted with it; shapes are of its first call, None where there is none.

    `parameters` are the trainable ones, `flops` those of one example's forward pass; `reason` says why it cannot be
    removed, and is empty where it can.
    """

    name: str
    type: str
    parameters: int
    flops: int
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    is_removable: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """The size of a model; `flops` is one image's forward pass, a multiply and an add counted as two.

    `trainable` are the parameters beside those that the study freezes, None where it freezes none.
    """

    parameters: int
    flops: int
    layers: tuple[Layer, ...]
    trainable: int | None = None


NOT_MEASURED = ModelSummary(parameters=0, flops=0, layers=())
"""Of a model that is built by nobody here."""
