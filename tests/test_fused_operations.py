"""Rules for layers and losses of stacked models compute what each model alone would, and draw as its own seed says."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training_paths import generators, member
from torch import Tensor
from torch.func import vmap
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from trainings import STUDY_SEED, built_in

from ablation.training import Member
from ablation.training.batches import standardize, standardize_stacked
from ablation.training.loop import lay_out
from ablation.training.paths import fused_steps
from ablation.training.together.dropout import CountedMasks, GeneratedMasks, squares
from ablation.training.together.operations import Convolution, StackedOperations
from ablation.training.together.resident import ResidentSteps, algorithms_timed, evaluated_at_once
from ablation.training.together.stacked import Stacked

MODELS = 3
CPU = torch.device("cpu")
Function = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Counting(TorchDispatchMode):
    """Counts the operations below autograd that make a tensor, by name, and keeps what they made."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.made: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            self.names[func.overloadpacket.__name__] += 1
            self.made.append(result)
        return result


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_rule(function: Function, dimensions: Sequence[int | None], *tensors: Any, by: Convolution = "grouped") -> Tensor:
    """Call a function for all models at once, whose tensors lie stacked (S, …) where the dimension is 0."""
    operations = StackedOperations(by, GeneratedMasks(generators(MODELS)))

    def one(*own: Any) -> Tensor:
        with operations:
            return function(*own)

    found: Tensor = vmap(one, tuple(dimensions))(*tensors)
    return found


def one_by_one(function: Function, dimensions: Sequence[int | None], *tensors: Any) -> Tensor:
    calls = [
        [one if own is None else one[model] for one, own in zip(tensors, dimensions, strict=True)]
        for model in range(MODELS)
    ]
    return torch.stack([function(*call) for call in calls])


def assert_alike(
    function: Function,
    dimensions: Sequence[int | None],
    *tensors: Any,
    trained: int | None = None,
    by: Convolution = "grouped",
) -> None:
    """See that values, and gradients of the first `trained` tensors or all, are by the rule those of each alone."""
    leaves, others = ([_leaf(one) for one in tensors[:trained]] for _ in range(2))
    rest = tensors[len(leaves) :]

    found = by_rule(function, dimensions, *leaves, *rest, by=by)
    expected = one_by_one(function, dimensions, *others, *rest)

    torch.testing.assert_close(found, expected, equal_nan=True)
    found.square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in zip(leaves, others, strict=True):
        if mine is not None and mine.requires_grad:
            torch.testing.assert_close(mine.grad, theirs.grad, equal_nan=True)


def _leaf(value: Tensor | None) -> Any:
    return value.clone().requires_grad_() if value is not None and value.is_floating_point() else value


@given(
    batch=st.sampled_from([(), (1,), (4,), (2, 3), (2, 3, 2)]),
    has_bias=st.booleans(),
    is_shared=st.booleans(),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
@settings(max_examples=30, deadline=None)
def test_a_linear_layer_is_each_models_own(
    batch: tuple[int, ...], has_bias: bool, is_shared: bool, sizes: tuple[int, int]
) -> None:
    inputs, outputs = sizes
    x = noise(*batch, inputs) if is_shared else noise(MODELS, *batch, inputs)
    bias = noise(MODELS, outputs, seed=2) if has_bias else None

    assert_alike(
        functional.linear,
        (None if is_shared else 0, 0, 0 if has_bias else None),
        x,
        noise(MODELS, outputs, inputs, seed=1),
        bias,
    )


@given(
    spatial=st.sampled_from([(), (2,), (2, 3)]),
    is_by_class=st.booleans(),
    is_weighted=st.sampled_from([None, "shared", "own"]),
    ignored=st.sampled_from([-100, 0, 2]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    label_smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    labels_seed=st.integers(0, 50),
)
@settings(max_examples=120, deadline=None)
def test_cross_entropy_is_each_models_own_whatever_its_arguments(
    spatial: tuple[int, ...],
    is_by_class: bool,
    is_weighted: str | None,
    ignored: int,
    reduction: str,
    label_smoothing: float,
    labels_seed: int,
) -> None:
    logits = noise(MODELS, 4, 3, *spatial)
    draw = torch.Generator().manual_seed(labels_seed)
    labels = torch.randint(0, 3, (MODELS, 4, *spatial), generator=draw)
    truth = labels if is_by_class else noise(MODELS, 4, 3, *spatial, seed=labels_seed).softmax(2)
    weight = {None: None, "shared": noise(3, seed=1).abs(), "own": noise(MODELS, 3, seed=1).abs()}[is_weighted]

    def loss(logits: Tensor, truth: Tensor, weight: Tensor | None) -> Tensor:
        options: dict[str, Any] = {"ignore_index": ignored} if is_by_class else {}
        return functional.cross_entropy(
            logits, truth, weight, reduction=reduction, label_smoothing=label_smoothing, **options
        )

    assert_alike(loss, (0, 0, 0 if is_weighted == "own" else None), logits, truth, weight, trained=1)


def test_cross_entropy_is_each_models_own_where_one_ignores_every_label() -> None:
    labels = torch.tensor([[0, 1, 2], [-100, -100, -100], [2, -100, 1]])

    losses = by_rule(functional.cross_entropy, (0, 0), noise(MODELS, 3, 3), labels)

    expected = one_by_one(functional.cross_entropy, (0, 0), noise(MODELS, 3, 3), labels)
    assert losses.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(losses, expected, equal_nan=True)


@pytest.mark.parametrize("options", [{"size_average": False}, {"reduce": False}])
@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
def test_cross_entropy_with_older_arguments_is_each_models_own(options: dict[str, Any]) -> None:
    loss = lambda logits, truth: functional.cross_entropy(logits, truth, **options)  # noqa: E731

    assert_alike(loss, (0, 0), noise(MODELS, 4, 3), torch.tensor([[0, 1, 2, 0]] * MODELS))


def test_cross_entropy_of_one_example_without_a_batch_is_each_models_own() -> None:
    assert_alike(functional.cross_entropy, (0, 0), noise(MODELS, 3), torch.tensor([0, 2, 1]))


def test_a_loss_is_computed_once_for_all_models() -> None:
    logits = noise(MODELS, 3, 8).mT.requires_grad_()  # (S, 8, 3) as a linear layer leaves them
    labels = torch.zeros(MODELS, 8, dtype=torch.int64)

    with Counting() as counting:
        by_rule(functional.cross_entropy, (0, 0), logits, labels).backward(torch.ones(MODELS, dtype=torch.float64))

    assert counting.names.total() <= 10
    assert not counting.names["clone"]


KINDS = st.fixed_dictionaries(
    {
        "kernel": st.sampled_from([(1, 1), (3, 3), (2, 3)]),
        "stride": st.sampled_from([1, 2, (2, 1)]),
        "padding": st.sampled_from([0, 1, (1, 0), "valid"]),
        "has_bias": st.booleans(),
        "is_channels_last": st.booleans(),
    }
)


@pytest.mark.parametrize("by", ["grouped", "matmul"])
@given(kind=KINDS)
@settings(max_examples=25, deadline=None)
def test_a_convolution_is_each_models_own(by: Convolution, kind: dict[str, Any]) -> None:
    inputs, weight = noise(MODELS, 2, 3, 6, 5), noise(MODELS, 4, 3, *kind["kernel"], seed=1)
    if kind["is_channels_last"]:
        inputs, weight = (
            one.flatten(0, 1).contiguous(memory_format=torch.channels_last).view_as(one) for one in (inputs, weight)
        )
    bias = noise(MODELS, 4, seed=2) if kind["has_bias"] else None

    def convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(x, weight, bias, kind["stride"], kind["padding"])

    assert_alike(convolution, (0, 0, 0 if kind["has_bias"] else None), inputs, weight, bias, by=by)


@pytest.mark.parametrize("by", ["grouped", "matmul"])
@pytest.mark.parametrize(
    "call",
    [
        lambda x, weight: functional.conv2d(input=x, weight=weight),
        lambda x, weight: functional.linear(input=x, weight=weight[:, 0, 0]),
        lambda x, _: functional.max_pool2d(input=x, kernel_size=2),
        lambda x, _: functional.avg_pool2d(input=x, kernel_size=2),
    ],
    ids=["conv2d", "linear", "max_pool2d", "avg_pool2d"],
)
def test_a_layer_may_be_called_with_its_input_by_name(call: Function, by: Convolution) -> None:
    assert_alike(call, (0, 0), noise(MODELS, 2, 3, 4, 3), noise(MODELS, 4, 3, 3, 3, seed=1), by=by)


def test_windows_and_all_that_follows_are_in_the_type_of_products() -> None:
    members = [member(seed, precision="bf16") for seed in range(MODELS)]
    stacked = _stacked(members, "matmul", precision="bf16")
    inputs = torch.randn(MODELS, 8, 3, 12, 8)
    windows = MODELS * 8 * 12 * 8 * 27  # of the first convolution, a 3×3 one of three channels

    with Counting() as counting:
        stacked.backward(inputs, torch.zeros(MODELS, 8, dtype=torch.int64), functional.cross_entropy)

    assert {torch.bfloat16} == {one.dtype for one in counting.made if one.numel() >= windows}
    weights = sum(parameter.numel() for parameter in stacked.parameters(slice(0, MODELS)))
    large = [one for one in counting.made if one.dtype == torch.float32 and one.numel() > max(inputs.numel(), weights)]
    assert not large


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_of_weights_are_not_copied(precision: Any) -> None:
    members = [member(seed, precision=precision) for seed in range(MODELS)]
    stacked = _stacked(members, "grouped", precision=precision)
    inputs = torch.randn(MODELS, 8, 3, 12, 8)

    with Counting() as counting:
        stacked.backward(inputs, torch.zeros(MODELS, 8, dtype=torch.int64), functional.cross_entropy)

    assert not counting.names["copy_"]


def _stacked(members: Sequence[Member], by: Convolution, *, precision: Any) -> Stacked:
    for one in members:
        lay_out(one)
    models = [one.model for one in members]
    return Stacked(models, convolution=by, precision=precision, masks=GeneratedMasks(generators(len(members))))


def in_plain_integers(counter: int, key: int) -> int:
    """Compute `squares64` as its author's C program does."""
    whole = 2**64 - 1

    def rotated(value: int) -> int:
        return (value >> 32 | value << 32) & whole

    x = y = counter * key & whole
    z = y + key & whole
    x = rotated(x * x + y & whole)
    x = rotated(x * x + z & whole)
    x = rotated(x * x + y & whole)
    t = x = x * x + z & whole
    x = rotated(x)
    return t ^ (x * x + y & whole) >> 32


def as_int64(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


@given(counter=st.integers(0, 2**64 - 1), key=st.integers(0, 2**63 - 1))
def test_random_words_are_those_of_the_published_generator(counter: int, key: int) -> None:
    key = 2 * key + 1

    found = squares(torch.tensor([as_int64(counter)]), torch.tensor([[as_int64(key)]]))

    assert [[as_int64(in_plain_integers(counter, key))]] == found.tolist()


SEEDS = (11, 2**62 + 5, 3, 2**63 - 1)
RATE = 0.3


def kept(seeds: Sequence[int], *, steps: int = 1, layers: int = 1, shape: tuple[int, ...] = (32, 600)) -> Tensor:
    """Return what is kept, bool (steps, layers, S, elements)."""
    masks = CountedMasks(len(seeds), CPU)
    masks.seed(seeds)
    ones = torch.ones(len(seeds), *shape)
    drawn = []
    for _ in range(steps):
        masks.begin_step()
        drawn.append(torch.stack([masks.applied_to(ones, RATE) for _ in range(layers)]))
    return torch.stack(drawn).flatten(3) > 0


def test_counted_masks_drop_at_their_rate() -> None:
    drawn = kept(SEEDS, steps=4, layers=2).double()

    deviation = (RATE * (1 - RATE) / drawn.numel()) ** 0.5
    assert abs(drawn.mean().item() - (1 - RATE)) < 4 * deviation
    each = drawn.mean(3)
    assert (each - (1 - RATE)).abs().max() < 5 * (RATE * (1 - RATE) / drawn.shape[3]) ** 0.5


def test_counted_masks_of_runs_layers_steps_and_neighbours_are_independent() -> None:
    drawn = kept(SEEDS, steps=3, layers=3).flatten(0, 2).double()  # 36 masks of 19,200 elements
    moved = torch.cat([drawn, *(drawn.roll(by, 1) for by in (1, 2, 3, 4, 600))])

    correlations = torch.corrcoef(moved).fill_diagonal_(0)

    assert correlations.abs().max() < 5.5 / drawn.shape[1] ** 0.5  # of 23,220 pairs, one in a thousand tries


def test_a_runs_counted_masks_depend_on_its_seed_alone() -> None:
    among = kept(SEEDS, steps=3, layers=2)

    for place, seed in enumerate(SEEDS):
        assert torch.equal(among[:, :, place], kept([seed], steps=3, layers=2)[:, :, 0])


def test_counted_masks_begin_anew_with_a_seed() -> None:
    masks = CountedMasks(1, CPU)
    drawn = []
    for _ in range(2):  # the first step hashes call by call, those that follow at once
        masks.seed([5])
        for _ in range(2):
            masks.begin_step()
            drawn.append([masks.applied_to(torch.ones(1, size), 0.5) for size in (101, 3, 50)])

    assert all(map(torch.equal, [*drawn[0], *drawn[1]], [*drawn[2], *drawn[3]]))
    assert not torch.equal(drawn[0][0], drawn[1][0])


def test_counted_masks_of_a_smaller_batch_do_not_depend_on_the_larger_ones_before() -> None:
    fresh, used = CountedMasks(1, CPU), CountedMasks(1, CPU)
    for masks, sizes in ((fresh, [1]), (used, [8, 8, 1])):
        masks.seed([5])
        for size in sizes:
            masks.begin_step()
            for _ in range(2):
                masks.applied_to(torch.ones(1, size, 40), 0.5)
        masks.seed([6])
        masks.begin_step()
        if masks is fresh:
            expected = [masks.applied_to(torch.ones(1, 1, 40), 0.5) for _ in range(2)]
    found = [used.applied_to(torch.ones(1, 1, 40), 0.5) for _ in range(2)]

    assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize("rate", [1e-9, 0.1, 0.5, 0.999999, 1.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_counted_masks_scale_what_is_kept_and_its_gradient(rate: float, kind: torch.dtype) -> None:
    masks = CountedMasks(2, CPU)
    masks.seed([1, 2])
    masks.begin_step()
    inputs = torch.ones(2, 50, 80, dtype=kind).mT.requires_grad_()  # in the layout that a linear layer leaves

    outputs = masks.applied_to(inputs, rate)
    outputs.sum().backward()

    assert outputs.dtype == kind
    assert torch.equal(outputs, inputs.grad)
    if rate < 0.9:
        assert outputs.float().mean().item() == pytest.approx(1, abs=0.06)
        assert set(outputs.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - rate)).to(kind).item()} or rate == 0.1


def counted_steps(members: Sequence[Member]) -> ResidentSteps:
    """Return the steps of members as a GPU takes them, on this CPU."""
    masks = CountedMasks(len(members), CPU)
    models = Stacked([one.model for one in members], convolution="grouped", precision="fp32", masks=masks)
    return ResidentSteps(
        members, models, study_seed=STUDY_SEED, loss=functional.cross_entropy, generators=(), masks=masks
    )


def dropping(seed: int) -> Member:
    return member(seed, lambda: built_in(dropout=0.5, normalization="none"), epochs=3, learning_rate=1e-3)


def test_what_is_trained_beside_a_run_does_not_change_its_counted_masks() -> None:
    steps, others = counted_steps([dropping(seed) for seed in (0, 1, 2)]), counted_steps([dropping(2), dropping(0)])

    for epoch in (1, 2):
        *_, last = steps.train_epoch(epoch)
        first, *_ = others.train_epoch(epoch)
        assert first.values == pytest.approx(last.values, rel=1e-5)


def test_an_epochs_counted_masks_are_the_same_after_going_on() -> None:
    steps, others = counted_steps([dropping(0), dropping(1)]), counted_steps([dropping(0), dropping(1)])
    steps.train_epoch(1)
    others.restore([steps.snapshot(index) for index in range(2)], 1)

    expected, found = steps.train_epoch(2), others.train_epoch(2)

    assert expected == found


def test_on_a_cpu_fused_masks_are_drawn_as_each_run_alone_draws_them() -> None:
    steps = fused_steps([dropping(0)], backend="grouped", study_seed=STUDY_SEED, loss=functional.cross_entropy)

    assert isinstance(steps._models._masks, GeneratedMasks)


def operations_of(call: Callable[[], object]) -> Counter[str]:
    with Counting() as counting:
        call()
    return counting.names


def test_a_step_takes_as_many_operations_whatever_the_number_of_runs() -> None:
    few, many = (
        counted_steps([member(seed, lambda: built_in(dropout=0.5), augmentation="crop-flip") for seed in range(count)])
        for count in (2, 5)
    )
    for steps in (few, many):
        steps._step(8)  # makes the optimizer's state, and learns how many words a step's masks take

    expected, found = (operations_of(lambda steps=steps: steps._step(8)) for steps in (few, many))

    assert expected == found


def test_an_evaluation_takes_as_many_operations_whatever_the_number_of_runs() -> None:
    few, many = (counted_steps([member(seed) for seed in range(count)]) for count in (2, 5))

    expected, found = (operations_of(lambda steps=steps: steps._evaluated("heldout")) for steps in (few, many))

    assert expected == found


@pytest.mark.parametrize(
    ("device", "batch_size", "images"), [("cuda:0", 64, 256), ("cuda:0", 5000, 4000), ("cpu", 64, 100)]
)
def test_a_part_of_an_evaluation_has_as_many_images_of_each_run_whatever_their_number(
    device: str, batch_size: int, images: int
) -> None:
    assert images == evaluated_at_once(torch.device(device), batch_size)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_stacked_images_are_standardized_as_each_runs_own(layout: torch.memory_format) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (MODELS, 4, 6, 5, 3), generator=draw, dtype=torch.uint8)
    mean, deviation = (255 * torch.rand(MODELS, 3, generator=draw) + 1 for _ in range(2))

    found = standardize_stacked(images, 1 / deviation, -mean / deviation, layout=layout)

    for index in range(MODELS):
        expected = standardize(images[index], mean[index], deviation[index], layout=layout)
        torch.testing.assert_close(found[index], expected, rtol=1e-5, atol=1e-4 * expected.abs().max().item())
    assert found.is_contiguous() == (layout == torch.contiguous_format)


def test_stacked_images_lie_as_one_convolution_for_all_runs_takes_them() -> None:
    found = standardize_stacked(
        torch.zeros(MODELS, 4, 6, 5, 2, dtype=torch.uint8),
        torch.ones(MODELS, 2),
        torch.zeros(MODELS, 2),
        layout=torch.channels_last,
    )

    joined = found.movedim(0, 1).flatten(1, 2)
    assert joined.is_contiguous(memory_format=torch.channels_last)
    assert joined.data_ptr() == found.data_ptr()


@pytest.mark.parametrize(("is_capturing", "is_timed"), [(False, True), (True, False)])
def test_cudnns_algorithms_are_timed_where_no_graph_is_captured(
    is_capturing: bool, is_timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: is_capturing)
    before = torch.backends.cudnn.benchmark

    with algorithms_timed():
        within = torch.backends.cudnn.benchmark

    assert is_timed == within
    assert before == torch.backends.cudnn.benchmark


def test_on_a_cpu_cudnns_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    wanted = [dataclasses.replace(dropping(seed), cudnn_benchmark=True) for seed in (0, 1)]
    steps = counted_steps(wanted)
    backward = steps._models.backward
    monkeypatch.setattr(
        steps._models, "backward", lambda *given: (seen.append(torch.backends.cudnn.benchmark), backward(*given))[1]
    )

    steps.train_epoch(1)

    assert {False} == set(seen)
