"""Optimizers, schedules, warm-up and clipping are PyTorch's own: to the bit alone, within rounding together."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from test_checkpoints import PATHS, Interruption, Kept, same
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from trainings import SEED, SEEDS, STUDY_SEED, alone, batches_of, begun, finished, make_data, run, settings_of

from ablation.errors import PathUnavailable, SettingInvalid
from ablation.study import torch_names
from ablation.study.torch_names import OPTIMIZERS, SCHEDULES
from ablation.training import Backend, Member, SnapshotMismatch, TrainingSettings, train_fused, train_graph
from ablation.training.clipping import clip_stacked
from ablation.training.optimizers import ABILITIES, FUSED, check_can, optimizer_class, optimizer_over, try_step
from ablation.training.paths import BACKENDS
from ablation.training.schedules import learning_rates

DATA = make_data()
STEPS = 6
"""In an epoch: 43 images in batches of 8."""
ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "adam": {"betas": [0.8, 0.95], "eps": 1e-6, "amsgrad": True},
    "adamw": {"betas": [0.8, 0.95]},
    "sgd": {"nesterov": True},
    "ASGD": {"lambd": 1e-3, "alpha": 0.6, "t0": 3.0},
    "Adadelta": {"rho": 0.8},
    "Adafactor": {"beta2_decay": -0.7, "eps": [None, 1e-2], "d": 1.5},
    "Adagrad": {"lr_decay": 0.01, "initial_accumulator_value": 0.1},
    "Adamax": {"betas": [0.8, 0.95]},
    "Muon": {"nesterov": False, "ns_steps": 3, "ns_coefficients": [3.4, -4.7, 2.0]},
    "NAdam": {"momentum_decay": 0.01, "decoupled_weight_decay": True},
    "RAdam": {"betas": [0.8, 0.95], "decoupled_weight_decay": True},
    "RMSprop": {"alpha": 0.9, "centered": True},
    "Rprop": {"etas": [0.4, 1.3], "step_sizes": [1e-5, 1.0]},
}
STEPPED: Mapping[str, Mapping[str, Any]] = {
    "ConstantLR": {"factor": 0.5, "total_iters": 2},
    "CosineAnnealingLR": {"T_max": 3, "eta_min": 1e-4},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2},
    "CyclicLR": {"max_lr": 0.05, "step_size_up": 2, "mode": "triangular2"},
    "ExponentialLR": {"gamma": 0.7},
    "LinearLR": {"start_factor": 0.2, "total_iters": 3},
    "MultiStepLR": {"milestones": [1, 3], "gamma": 0.3},
    "OneCycleLR": {"pct_start": 0.4, "div_factor": 10.0},
    "PolynomialLR": {"total_iters": 4, "power": 2.0},
    "StepLR": {"step_size": 2, "gamma": 0.5},
}


class Matrices(nn.Module):
    """A model whose parameters are all matrices, as Muon needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3 * 12 * 8, 6, bias=False)
        self.second = nn.Linear(6, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.second(torch.tanh(self.first(images.flatten(1))))
        return logits


class Layers(nn.Module):
    """A model with parameters of one, two and four dimensions, of which one is never used and one is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 4)
        self.unused = nn.Parameter(torch.ones(2))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.convolution(images)).mean((2, 3))) * self.fixed
        return logits


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build_for(optimizer: str) -> type[nn.Module]:
    return Matrices if optimizer == "Muon" else Layers


def torchs(name: str, model: nn.Module, **keys: Any) -> Optimizer:
    """Return PyTorch's optimizer with the arguments above, as one would write it."""
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in ARGUMENTS[name].items()}
    kinds: Mapping[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    kind, fused = (kinds[name], {"fused": True}) if name in kinds else (getattr(torch.optim, name), {})
    made: Optimizer = kind(model.parameters(), **given, **keys, **fused)
    return made


def plain_loop(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    epochs: int,
    schedule: LRScheduler | None = None,
    is_stepwise: bool = False,
    warmup_steps: int = 0,
    clipping: float | None = None,
) -> dict[str, Tensor]:
    """Train as one would by hand, and return the weights."""
    model.to(memory_format=torch.channels_last)
    number = 0
    for epoch in range(1, epochs + 1):
        for images, labels in batches_of(DATA, epoch=epoch):
            number += 1
            rate = optimizer.param_groups[0]["lr"]
            if number < warmup_steps:
                optimizer.param_groups[0]["lr"] = rate * (number / warmup_steps)
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            if clipping is not None:
                clip_grad_norm_(model.parameters(), clipping)
            optimizer.step()
            optimizer.param_groups[0]["lr"] = rate
            if schedule is not None and is_stepwise and number < epochs * STEPS:
                schedule.step()
        if schedule is not None and not is_stepwise and epoch < epochs:
            schedule.step()
    return model.state_dict()


def equal(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> bool:
    return expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


def member(seed: int, chosen: TrainingSettings) -> Member:
    return Member(model=begun(seed, build_for(chosen.optimizer)), data=DATA, settings=chosen, seed=seed)


def test_the_optimizers_of_the_format_and_their_arguments_are_torchs() -> None:
    of_torch = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, Optimizer) and name not in torch_names.OTHER_OPTIMIZERS
    }
    known = {name: choice for name, choice in OPTIMIZERS.items() if name not in FUSED}

    assert of_torch.keys() == known.keys()
    for name, choice in OPTIMIZERS.items():
        _, takes = optimizer_class(name)
        assert {"params", "lr", *choice.keys, *choice.all_arguments} == {*takes} - {
            *("fused", "foreach", "capturable", "differentiable", "maximize")
        }, name


def test_the_schedules_of_the_format_and_their_arguments_are_torchs() -> None:
    of_torch = {
        name: kind
        for name, kind in vars(lr_scheduler).items()
        if isinstance(kind, type) and issubclass(kind, LRScheduler) and not name.startswith("_")
    }
    known = {name: choice for name, choice in SCHEDULES.items() if name not in torch_names.OWN_SCHEDULES}

    assert of_torch.keys() - torch_names.OTHER_SCHEDULES.keys() == known.keys()
    for name, choice in known.items():
        takes = inspect.signature(of_torch[name]).parameters
        elsewhere = {*torch_names.SET_BY_TRAINING[""], *torch_names.SET_BY_TRAINING.get(name, {})}
        assert {*choice.all_arguments} == {*takes} - elsewhere, name
        needed = {each for each, parameter in takes.items() if parameter.default is parameter.empty}
        assert {*choice.needed} == needed - elsewhere, name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_by_any_optimizer_equals_a_plain_loop_to_the_bit(name: str) -> None:
    numbers = {"weight_decay": 1e-3, "momentum": 0.8}
    keys = {key: numbers[key] for key in OPTIMIZERS[name].keys}
    model = begun(SEED, build_for(name))
    expected = plain_loop(model, torchs(name, model, lr=0.01, **keys), epochs=2)

    chosen = settings_of(optimizer=name, optimizer_arguments=ARGUMENTS[name], **numbers)
    _, result = run(begun(SEED, build_for(name)), DATA, chosen)

    assert equal(expected, result.state)


@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("name", STEPPED)
def test_training_by_any_schedule_equals_a_plain_loop_to_the_bit(name: str, unit: str) -> None:
    model = begun(SEED, Layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, fused=True)
    own: Mapping[str, Mapping[str, Any]] = {
        "CyclicLR": {"base_lr": 0.02, "cycle_momentum": False},
        "OneCycleLR": {
            "max_lr": 0.02,
            "cycle_momentum": False,
            "total_steps": {"epoch": 3, "step": 3 * STEPS}[unit],
        },
    }
    schedule = getattr(lr_scheduler, name)(optimizer, **STEPPED[name], **own.get(name, {}))
    expected = plain_loop(model, optimizer, epochs=3, schedule=schedule, is_stepwise=unit == "step")

    chosen = settings_of(
        epochs=3,
        optimizer="sgd",
        learning_rate=0.02,
        schedule=name,
        schedule_arguments=STEPPED[name],
        schedule_unit=unit,
    )
    _, result = run(begun(SEED, Layers), DATA, chosen)

    assert equal(expected, result.state)


def test_the_arguments_above_are_of_every_optimizer_and_schedule() -> None:
    assert ARGUMENTS.keys() == OPTIMIZERS.keys()
    assert STEPPED.keys() == SCHEDULES.keys() - {*torch_names.OWN_SCHEDULES}


@pytest.mark.parametrize("schedule", ["constant", "cosine", "StepLR"])
def test_a_warm_up_is_the_plain_loops_in_which_the_rate_rises_to_the_schedules(schedule: str) -> None:
    given = {"step_size": 1, "gamma": 0.5} if schedule == "StepLR" else {}
    chosen = settings_of(epochs=3, learning_rate=0.4, schedule=schedule, schedule_arguments=given, warmup=1.5)
    without = learning_rates(settings_of(epochs=3, learning_rate=0.4, schedule=schedule, schedule_arguments=given), 6)

    rates = learning_rates(chosen, 6)

    assert [rate * step / 9 for step, rate in enumerate(without[:9], start=1)] == pytest.approx(rates[:9], rel=1e-15)
    assert without[8:] == rates[8:]


def test_a_training_with_a_warm_up_equals_a_plain_loop_to_the_bit() -> None:
    model = begun(SEED, Layers)
    optimizer = torchs("adam", model, lr=0.01)
    expected = plain_loop(model, optimizer, epochs=2, warmup_steps=9)

    chosen = settings_of(optimizer_arguments=ARGUMENTS["adam"], warmup=1.5)
    curve, result = run(begun(SEED, Layers), DATA, chosen)

    assert equal(expected, result.state)
    assert [pytest.approx(0.01 * 6 / 9), 0.01] == [metrics.learning_rate for metrics in curve]


@pytest.mark.parametrize("largest", [0.05, 100.0])
def test_a_training_with_clipped_gradients_equals_a_plain_loop_to_the_bit(largest: float) -> None:
    model = begun(SEED, Layers)
    expected = plain_loop(model, torchs("sgd", model, lr=0.01, momentum=0.9), epochs=2, clipping=largest)

    chosen = settings_of(optimizer="sgd", optimizer_arguments=ARGUMENTS["sgd"], gradient_clipping=largest)
    _, result = run(begun(SEED, Layers), DATA, chosen)

    assert equal(expected, result.state)


def test_stacked_gradients_are_clipped_each_as_torch_clips_it_alone() -> None:
    shapes = [(5, 3, 2), (5, 4), (5, 2, 3, 3, 3)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    unused = nn.Parameter(torch.zeros(5, 2))
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    assert parameters[0].grad is not None
    parameters[0].grad[4, 0, 0] = torch.inf
    limits = [0.1, 1000.0, torch.inf, 2.0, torch.inf]
    expected = [[tensor.grad[own].clone() for tensor in parameters if tensor.grad is not None] for own in range(5)]
    for own, limit in zip(expected, limits, strict=True):
        alone = [nn.Parameter(torch.zeros_like(gradient)) for gradient in own]
        for parameter, gradient in zip(alone, own, strict=True):
            parameter.grad = gradient
        if limit != torch.inf:
            clip_grad_norm_(alone, limit)

    clip_stacked([*parameters, unused], torch.tensor(limits))

    for own in range(5):
        for parameter, gradient in zip(parameters, expected[own], strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad[own], gradient, rtol=1e-6, atol=0)
    assert unused.grad is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name, can in ABILITIES.items() if can.is_elementwise])
def test_runs_of_any_elementwise_optimizer_train_together_what_each_does_alone(name: str, backend: Backend) -> None:
    chosen = settings_of(
        optimizer=name, optimizer_arguments=ARGUMENTS[name], weight_decay=1e-3, schedule="cosine", learning_rate=3e-3
    )
    members = [member(seed, chosen) for seed in SEEDS]
    expected = [alone(one)[1] for one in members]

    _, results = finished(train_fused(members, backend=backend, study_seed=STUDY_SEED))

    for one, other in zip(expected, results, strict=True):
        for weights, name_of in ((one.state[key], key) for key in one.state):
            torch.testing.assert_close(other.state[name_of], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_may_differ_in_schedule_warm_up_and_clipping_and_train_together(backend: Backend) -> None:
    own: list[dict[str, Any]] = [
        {"gradient_clipping": 0.05},
        {"warmup": 1.5},
        {"schedule": "StepLR", "schedule_arguments": {"step_size": 4}, "schedule_unit": "step"},
        {"gradient_clipping": 0.5, "warmup": 0.5, "schedule": "ExponentialLR", "schedule_arguments": {"gamma": 0.5}},
        {"gradient_clipping": 0.5, "warmup": 0.5, "schedule": "ExponentialLR", "schedule_arguments": {"gamma": 0.5}},
    ]
    members = [member(seed, settings_of(optimizer="sgd", **changes)) for seed, changes in enumerate(own)]
    expected = [alone(one) for one in members]

    curve, results = finished(train_fused(members, backend=backend, study_seed=STUDY_SEED))

    for index, (metrics, result) in enumerate(expected):
        rates = [epoch[index].learning_rate for epoch in curve]
        assert [each.learning_rate for each in metrics] == rates
        for key, weights in result.state.items():
            torch.testing.assert_close(results[index].state[key], weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_graph_on_a_cpu_trains_by_any_optimizer_what_eager_steps_do(name: str) -> None:
    one = member(1, settings_of(optimizer=name, optimizer_arguments=ARGUMENTS[name], gradient_clipping=0.5, warmup=1.0))
    expected = alone(one)[1]

    _, (result,) = finished(train_graph(one, study_seed=STUDY_SEED))

    for key, weights in expected.state.items():
        torch.testing.assert_close(result.state[key], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["Adafactor", "Muon"])
@pytest.mark.parametrize("backend", ["grouped", "matmul"])
def test_an_optimizer_that_looks_at_whole_tensors_is_not_stacked(name: str, backend: Backend) -> None:
    members = [member(seed, settings_of(optimizer=name)) for seed in SEEDS]

    with pytest.raises(PathUnavailable, match=f"an update of {name} looks at whole tensors"):
        train_fused(members, backend=backend, study_seed=STUDY_SEED)


def test_what_an_optimizer_can_do_is_what_it_computes() -> None:
    """An element's update by an optimizer that is called elementwise is the same whatever lies beside it."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 4, generator=generator)
    gradients = [torch.randn(3, 4, generator=generator) for _ in range(4)]
    elementwise = set()
    for name in OPTIMIZERS:
        stacked, single = nn.Parameter(weights.clone()), nn.Parameter(weights[:1].clone())
        chosen = settings_of(optimizer=name, weight_decay=0.01)
        both = [optimizer_over([([parameter], chosen)]) for parameter in (stacked, single)]
        for gradient in gradients:
            stacked.grad, single.grad = gradient.clone(), gradient[:1].clone()
            for optimizer in both:
                optimizer.step()
        if torch.allclose(stacked[:1], single, rtol=1e-5, atol=1e-7):
            elementwise.add(name)

    assert elementwise == {name for name, can in ABILITIES.items() if can.is_elementwise}


def test_an_optimizer_is_captured_only_where_torch_has_it_capturable_or_fused() -> None:
    takes = {name: optimizer_class(name)[1] for name in OPTIMIZERS}

    assert {name for name, can in ABILITIES.items() if can.is_captured} == {
        *(name for name, arguments in takes.items() if "capturable" in arguments),
        *FUSED,
    }
    with pytest.raises(PathUnavailable, match="the graph path cannot train this model: Adagrad needs numbers of the"):
        check_can(settings_of(optimizer="Adagrad"), "graph", is_stacked=False, is_captured=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"optimizer": "sgd", "momentum": 0.0, "optimizer_arguments": {"nesterov": True}},
            "SGD refuses {nesterov: True}: Nesterov momentum requires a momentum and zero dampening "
            "@ training.optimizer_arguments",
        ),
        (
            {"optimizer_arguments": {"betas": 0.9}},
            "Adam refuses {betas: 0.9}: betas are 2 values, such as [0.9, 0.999] @ training.optimizer_arguments",
        ),
        (
            {"optimizer": "Muon"},
            "Muon refuses what it is given: Muon only supports 2D parameters whereas we found a parameter with size: "
            "torch.Size([2]) @ training.optimizer_arguments",
        ),
        ({"optimizer": "Later"}, f"PyTorch {torch.__version__} has no optimizer 'Later' @ training.optimizer"),
        ({"schedule": "LaterLR"}, f"PyTorch {torch.__version__} has no schedule 'LaterLR' @ training.schedule"),
        (
            {"schedule": "StepLR", "schedule_arguments": {"step_size": "a"}},
            "StepLR refuses {step_size: a} for 2 epochs: unsupported operand type(s) for %: 'int' and 'str' "
            "@ training.schedule_arguments",
        ),
        (
            {"schedule": "StepLR", "schedule_arguments": {"step_size": 1, "gamma": -1.0}},
            "StepLR with {step_size: 1, gamma: -1.0} gives the learning rate -0.01 in epoch 2 "
            "@ training.schedule_arguments",
        ),
    ],
)
def test_what_torch_refuses_is_said_with_the_key_at_fault(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingInvalid) as refused:
        run(begun(0, Layers), DATA, settings_of(**changes))

    assert said == str(refused.value)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("adam", {"betas": [0.9]}, "Adam refuses {betas: [0.9]}: betas are 2 values, such as [0.9, 0.999] @ "),
        ("adam", {"betas": [0.9, 0.9, 0.9]}, "Adam refuses {betas: [0.9, 0.9, 0.9]}: betas are 2 values, such as "),
        ("Adafactor", {"eps": 0.1}, "Adafactor refuses {eps: 0.1}: eps are 2 values, such as [None, 0.001] @ "),
        ("Muon", {"ns_steps": "a"}, "Muon refuses {ns_steps: a}: "),
        ("Adadelta", {"rho": "high"}, "Adadelta refuses {rho: high}: "),
    ],
)
def test_what_torch_refuses_in_its_first_step_is_said_before_a_model_is_trained(
    name: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingInvalid) as refused:
        try_step(settings_of(optimizer=name, optimizer_arguments=arguments))

    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_arguments_that_every_optimizer_takes_are_tried(name: str) -> None:
    try_step(settings_of(optimizer=name, optimizer_arguments=ARGUMENTS[name]))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *(("eager", name) for name in OPTIMIZERS),
        *(("grouped", name) for name, can in ABILITIES.items() if can.is_elementwise),
    ],
)
def test_a_training_by_any_optimizer_gone_on_with_is_equal_to_one_that_was_not_interrupted(
    path: str, name: str
) -> None:
    train, count = PATHS[path]
    chosen = settings_of(
        epochs=3, optimizer=name, optimizer_arguments=ARGUMENTS[name], weight_decay=1e-3, warmup=1.5, schedule="cosine"
    )

    def begin() -> list[Member]:
        return [member(seed, chosen) for seed in range(count)]

    _, undisturbed = finished(train(begin(), None))
    kept = Kept(until=2)
    with pytest.raises(Interruption):
        finished(train(begin(), kept))

    curve, again = finished(train(begin(), kept))

    assert 1 == len(curve)
    assert all(same(one, other) for one, other in zip(undisturbed, again, strict=True))


def test_a_snapshot_of_another_optimizer_is_refused() -> None:
    train, _ = PATHS["eager"]
    kept = Kept(until=1)
    with pytest.raises(Interruption):
        finished(train([member(0, settings_of(optimizer="RMSprop"))], kept))

    with pytest.raises(SnapshotMismatch, match="a snapshot of another optimizer"):
        finished(train([member(0, settings_of(optimizer="NAdam"))], kept))
