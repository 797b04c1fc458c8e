"""The three ways to train: fused (many runs in a step), graph (a step in one launch) and eager, the slowest.

On a CPU they compute the same: fused and graph there only check themselves against eager.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from ablation.errors import PathUnavailable
from ablation.training.loop import EpochsTogether, lay_out, train_members
from ablation.training.settings import Loss, Member, TrainingSettings
from ablation.training.snapshots import Checkpoints
from ablation.training.together.dropout import CountedMasks, GeneratedMasks
from ablation.training.together.models import Models, SideBySide
from ablation.training.together.replay import streams_of
from ablation.training.together.resident import ResidentSteps
from ablation.training.together.stacked import Stacked

Backend = Literal["grouped", "matmul", "streams"]
"""How fused convolutions are computed: as one grouped convolution, as one batched product of windows (im2col) with
weights, or each model's on its own, on parallel streams in one graph."""
BACKENDS: tuple[Backend, ...] = ("grouped", "matmul", "streams")
NUMBERS = (
    *("learning_rate", "schedule", "schedule_arguments", "schedule_unit", "warmup"),
    *("momentum", "weight_decay", "gradient_clipping", "patience"),
)
"""The settings that members of a fused training may differ in."""


def train_graph(
    member: Member,
    *,
    study_seed: int,
    loss: Loss | None = None,
    checkpoints: Checkpoints | None = None,
) -> EpochsTogether:
    """Train one member with each step as one CUDA graph; on a CPU its operations are called one by one.

    Raises:
        PathUnavailable: the step cannot be captured.
    """
    lay_out(member)
    models = SideBySide([member.model], precision=member.settings.precision, generators=())
    steps = ResidentSteps([member], models, study_seed=study_seed, loss=loss, generators=())
    return train_members([member], steps, checkpoints)


def train_fused(
    members: Sequence[Member],
    *,
    backend: Backend,
    study_seed: int,
    loss: Loss | None = None,
    checkpoints: Checkpoints | None = None,
) -> EpochsTogether:
    """Train members of equal structure together; each comes to what it would alone, within rounding.

    Raises:
        PathUnavailable: they are not of equal structure, or what they compute cannot be done for all at once.
    """
    return train_members(members, fused_steps(members, backend=backend, study_seed=study_seed, loss=loss), checkpoints)


def fused_steps(members: Sequence[Member], *, backend: Backend, study_seed: int, loss: Loss | None) -> ResidentSteps:
    """Return the steps of members that are trained together.

    Raises:
        PathUnavailable: they are not of equal structure.
    """
    check_alike(members)
    for member in members:
        lay_out(member)
    device = members[0].data.images.device
    # On a CPU masks are those of each member alone, to the bit; a GPU draws others for each path anyway.
    counted = CountedMasks(len(members), device) if backend != "streams" and device.type == "cuda" else None
    generators = [] if counted else [torch.Generator(device) for _ in members]
    models = _models(members, backend, generators, counted)
    return ResidentSteps(members, models, study_seed=study_seed, loss=loss, generators=generators, masks=counted)


def check_alike(members: Sequence[Member]) -> None:
    """See that members can share their steps.

    Raises:
        PathUnavailable: they cannot, and why.
    """
    first = members[0]
    for member in members[1:]:
        for what, mine, theirs in (
            ("parameters", _structure(first), _structure(member)),
            ("settings", _shared(first.settings), _shared(member.settings)),
            ("task", first.objective, member.objective),
            ("sizes of their splits", _sizes(first), _sizes(member)),
        ):
            if mine != theirs:
                raise PathUnavailable("fused", f"seeds {first.seed} and {member.seed} differ in the {what}")


def _models(
    members: Sequence[Member], backend: Backend, generators: Sequence[torch.Generator], counted: CountedMasks | None
) -> Models:
    models = [member.model for member in members]
    precision = members[0].settings.precision
    if backend != "streams":
        masks = counted or GeneratedMasks(generators)
        return Stacked(models, convolution=backend, precision=precision, masks=masks)
    device = members[0].data.images.device
    streams = streams_of(device)[1 : 1 + len(models)] if device.type == "cuda" else ()
    return SideBySide(models, precision=precision, generators=generators, streams=streams)


def _structure(member: Member) -> list[object]:
    return [str(member.model), [(name, tensor.shape) for name, tensor in member.model.state_dict().items()]]


def _shared(settings: TrainingSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in TrainingSettings.__dataclass_fields__ if name not in NUMBERS}


def _sizes(member: Member) -> list[int]:
    data = member.data
    return [len(part) for part in (data.train, data.sample, data.validation, data.test) if part is not None]
