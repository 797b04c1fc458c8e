"""The optimizers and schedules that a study file may name, and their arguments, as PyTorch has them.

They stand here, as `torch` is not imported to check a study file; a test compares them with PyTorch's own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ablation.lookup import did_you_mean

MOMENTUM, WEIGHT_DECAY = "momentum", "weight_decay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What an optimizer or a schedule takes: keys of `training` of its own, and arguments, some of them needed."""

    keys: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    @property
    def all_arguments(self) -> tuple[str, ...]:
        return (*self.needed, *self.arguments)


_ADAM = Choice(keys=(WEIGHT_DECAY,), arguments=("betas", "eps", "amsgrad", "decoupled_weight_decay"))
OPTIMIZERS: Mapping[str, Choice] = {
    "adam": _ADAM,
    "adamw": Choice(keys=(WEIGHT_DECAY,), arguments=("betas", "eps", "amsgrad")),
    "sgd": Choice(keys=(MOMENTUM, WEIGHT_DECAY), arguments=("dampening", "nesterov")),
    "ASGD": Choice(keys=(WEIGHT_DECAY,), arguments=("lambd", "alpha", "t0")),
    "Adadelta": Choice(keys=(WEIGHT_DECAY,), arguments=("rho", "eps")),
    "Adafactor": Choice(keys=(WEIGHT_DECAY,), arguments=("beta2_decay", "eps", "d")),
    "Adagrad": Choice(keys=(WEIGHT_DECAY,), arguments=("lr_decay", "initial_accumulator_value", "eps")),
    "Adamax": Choice(keys=(WEIGHT_DECAY,), arguments=("betas", "eps")),
    "Muon": Choice(
        keys=(MOMENTUM, WEIGHT_DECAY), arguments=("nesterov", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn")
    ),
    "NAdam": Choice(keys=(WEIGHT_DECAY,), arguments=("betas", "eps", "momentum_decay", "decoupled_weight_decay")),
    "RAdam": Choice(keys=(WEIGHT_DECAY,), arguments=("betas", "eps", "decoupled_weight_decay")),
    "RMSprop": Choice(keys=(MOMENTUM, WEIGHT_DECAY), arguments=("alpha", "eps", "centered")),
    "Rprop": Choice(arguments=("etas", "step_sizes")),
}
"""By name: our own, then the classes of `torch.optim`."""
OTHER_OPTIMIZERS: Mapping[str, str] = {
    "Adam": "write adam",
    "AdamW": "write adamw",
    "SGD": "write sgd",
    "LBFGS": "LBFGS computes the loss several times in a step (it needs a closure), which the training loop does not",
    "SparseAdam": "SparseAdam is for sparse gradients, and those of a model here are dense",
    "Optimizer": "Optimizer is the base of all optimizers; name one of them",
}
"""The other classes of `torch.optim`, and why none of them is chosen by that name."""
SET_BY_KEYS: Mapping[str, str] = {
    "params": "the model gives the parameters",
    "lr": "write training.learning_rate",
    WEIGHT_DECAY: "write training.weight_decay",
    MOMENTUM: "write training.momentum",
    **dict.fromkeys(
        ("fused", "foreach", "capturable", "differentiable", "maximize"),
        "how an optimizer is computed is chosen by the path that a run takes",
    ),
}
"""Arguments that no optimizer is given by `optimizer_arguments`, and why."""

SCHEDULES: Mapping[str, Choice] = {
    "constant": Choice(),
    "cosine": Choice(),
    "one-cycle": Choice(),
    "ConstantLR": Choice(arguments=("factor", "total_iters")),
    "CosineAnnealingLR": Choice(needed=("T_max",), arguments=("eta_min",)),
    "CosineAnnealingWarmRestarts": Choice(needed=("T_0",), arguments=("T_mult", "eta_min")),
    "CyclicLR": Choice(needed=("max_lr",), arguments=("step_size_up", "step_size_down", "mode", "gamma", "scale_mode")),
    "ExponentialLR": Choice(needed=("gamma",)),
    "LinearLR": Choice(arguments=("start_factor", "end_factor", "total_iters")),
    "MultiStepLR": Choice(needed=("milestones",), arguments=("gamma",)),
    "OneCycleLR": Choice(arguments=("pct_start", "anneal_strategy", "div_factor", "final_div_factor", "three_phase")),
    "PolynomialLR": Choice(arguments=("total_iters", "power")),
    "StepLR": Choice(needed=("step_size",), arguments=("gamma",)),
}
"""By name: our own, then the classes of `torch.optim.lr_scheduler`."""
OWN_SCHEDULES = ("constant", "cosine", "one-cycle")
_FUNCTION = "needs a function, which a study file has none of"
_OTHERS = "is made of other schedules; `warmup` goes before any, and milestones are MultiStepLR's"
OTHER_SCHEDULES: Mapping[str, str] = {
    "LRScheduler": "LRScheduler is the base of all schedules; name one of them",
    "LambdaLR": f"LambdaLR {_FUNCTION}",
    "MultiplicativeLR": f"MultiplicativeLR {_FUNCTION}",
    "ReduceLROnPlateau": "ReduceLROnPlateau needs a metric of each epoch, and the rates are made before the first step",
    "ChainedScheduler": f"ChainedScheduler {_OTHERS}",
    "SequentialLR": f"SequentialLR {_OTHERS}",
}
"""The other classes of `torch.optim.lr_scheduler`, and why none of them can be chosen."""
_MOMENTUM_TOO = "a schedule changes the learning rate and nothing else"
SET_BY_TRAINING: Mapping[str, Mapping[str, str]] = {
    "": {
        "optimizer": "the schedule gives the learning rate of training.optimizer",
        "last_epoch": "a training begins at its first epoch, and goes on by itself where it was interrupted",
        "cycle_momentum": _MOMENTUM_TOO,
        "base_momentum": _MOMENTUM_TOO,
        "max_momentum": _MOMENTUM_TOO,
        "scale_fn": "a study file has no functions; `mode` names those there are",
    },
    "CyclicLR": {"base_lr": "it is training.learning_rate"},
    "OneCycleLR": {
        "max_lr": "it is training.learning_rate",
        **dict.fromkeys(("total_steps", "epochs", "steps_per_epoch"), "the cycle is as long as the training"),
    },
}
"""Arguments that a schedule (any of them, or the one named) is not given by `schedule_arguments`, and why."""


def unknown_choice(what: str, name: str, known: Iterable[str], others: Mapping[str, str], shown: str) -> str:
    """Say why there is no optimizer or schedule of that name, and which there are."""
    reason = others.get(name)
    if reason is not None:
        return f"{shown} is none of the {what}s: {reason}"
    return f"unknown {what} {shown}{did_you_mean(name, known)}; there are: {', '.join(known)}"
