"""Freezes modules of a model by name or pattern: nothing of them changes in training.

Their parameters take no gradient, so the optimizer keeps nothing of them and decays none. They stay in evaluation
mode whatever mode the model is put into, as Keras has it: batch normalization keeps its statistics, dropout is off.
"""

from collections.abc import Collection, Sequence
from functools import partial

from torch import nn

from ablation.errors import ComponentInvalid
from ablation.models.component_names import Names, listed, matching, names_of
from ablation.models.probe import count_parameters

FROZEN = "model.frozen"


def freeze(model: nn.Module, patterns: Sequence[str], *, whole: Names | None = None) -> nn.Module:
    """Freeze the modules that patterns match, with all that is inside them, in place; return the model.

    `whole` has the names of the model before parts were taken out or replaced: a pattern may match what is gone since.
    A parameter that modules share is frozen with any of them.

    Raises:
        ComponentInvalid: a pattern matches nothing, or nothing with parameters, or nothing is left to train.
    """
    trained = count_parameters(model)
    for pattern in patterns:
        chosen = _chosen(model, pattern, whole if whole is not None else {})
        for name in chosen:
            _freeze(model.get_submodule(name))
    if trained and not count_parameters(model):
        raise ComponentInvalid(f"{listed(patterns)} is the whole model: nothing is left to train", path=FROZEN)
    return model


def _chosen(model: nn.Module, pattern: str, whole: Names) -> Collection[str]:
    names = names_of(model)
    try:
        chosen = matching(pattern, names, path=FROZEN)
    except ComponentInvalid:
        if not whole:
            raise
        matching(pattern, whole, path=FROZEN)
        return ()
    if not whole and not any(True for name in chosen for _ in model.get_submodule(name).parameters()):
        message = f"{listed(chosen)} has no parameters, so nothing is frozen"
        raise ComponentInvalid(message, path=FROZEN)
    return chosen


def _freeze(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad = False
    module.eval()
    vars(module)["train"] = partial(_stay, module)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001 - as torch has it
    """Stay in evaluation mode, in the place of a frozen module's `train`."""
    return type(module).train(module, False)
