"""On a GPU, every path of training is the CPU's within rounding, on the same batches, and reads nothing in an epoch."""

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import STUDY_SEED, batches_of, make_data, make_model, run, settings_of
from test_training_paths import BACKENDS, SEEDS, alone, begun, built_in, finished
from torch import Tensor, nn
from torch.nn import functional

from ablation.errors import PathUnavailable
from ablation.results import DataShape, EpochMetrics, Outcome
from ablation.training import Member, TrainingData, choose_backend, members_that_fit, train_fused, train_graph
from ablation.training.paths import Backend, fused_steps
from ablation.training.steps import EagerSteps
from ablation.worker.beginning import Beginning
from ablation.worker.ladder import Fusing, train_alone, train_together

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none here"),
]


def on_gpu(data: TrainingData) -> TrainingData:
    moved = {
        field.name: value.cuda()
        for field in dataclasses.fields(data)
        if isinstance(value := getattr(data, field.name), Tensor)
    }
    return dataclasses.replace(data, **moved)


@pytest.fixture(autouse=True)
def _strict_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")


@pytest.mark.parametrize("augmentation", ["none", "flip", "crop", "crop-flip"])
def test_batches_are_those_of_the_cpu(augmentation: str) -> None:
    data = make_data()

    here, there = batches_of(data, augmentation=augmentation), batches_of(on_gpu(data), augmentation=augmentation)

    for (images, labels), (gpu_images, gpu_labels) in zip(here, there, strict=True):
        torch.testing.assert_close(gpu_images.cpu(), images, rtol=1e-6, atol=1e-6)
        assert torch.equal(labels, gpu_labels.cpu())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_training_is_the_cpus_within_rounding(optimizer: str) -> None:
    # Dropout masks are drawn on the device, so they differ between devices.
    model, data = make_model(dropout=0.0, normalization="none"), make_data()
    settings = settings_of(optimizer=optimizer, learning_rate=1e-3, augmentation="crop-flip")

    here, _ = run(copy.deepcopy(model), data, settings)
    there, result = run(model.cuda(), on_gpu(data), settings)

    assert result.outcome is Outcome.DONE
    assert [metrics.train_loss for metrics in there] == pytest.approx(
        [metrics.train_loss for metrics in here], rel=1e-3
    )
    assert all(not tensor.is_cuda for tensor in result.state.values())


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_is_read_back_inside_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = on_gpu(make_data(train_images=400)), make_model().cuda()
    run(model, data, settings_of(epochs=1))
    model.register_forward_pre_hook(
        lambda module, _: torch.cuda.set_sync_debug_mode("error" if module.training else "default")
    )

    def allow_reading(*_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")

    zero_dimensional_item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: (allow_reading(), zero_dimensional_item(tensor))[1])
    try:
        curve, _ = run(model, data, settings_of(epochs=1, augmentation="crop-flip"))
    finally:
        allow_reading()

    assert len(curve) == 1


def member(seed: int, build: Callable[[], nn.Module] = built_in, **settings: Any) -> Member:
    data = on_gpu(make_data(validation=True))
    return Member(model=begun(seed, build).cuda(), data=data, settings=settings_of(**settings), seed=seed)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_graph_trains_what_eager_steps_do_within_rounding(optimizer: str) -> None:
    one = member(1, optimizer=optimizer, augmentation="crop-flip", schedule="one-cycle", epochs=4, learning_rate=1e-3)
    curve, expected = alone(one)

    found, (result,) = finished(train_graph(one, study_seed=STUDY_SEED))

    for name in ("train_loss", "sample_loss", "heldout_loss"):  # dropout's masks are the same: one generator, one seed
        own = [getattr(metrics, name) for metrics in curve]
        assert own == pytest.approx([getattr(metrics, name) for (metrics,) in found], rel=1e-2)
    assert expected.outcome is result.outcome is Outcome.DONE


@pytest.mark.parametrize("backend", BACKENDS)
def test_fused_runs_train_what_each_does_alone_within_rounding(backend: Backend) -> None:
    def build() -> nn.Module:
        return built_in(dropout=0.0, normalization="group")

    settings: dict[str, Any] = {"augmentation": "crop-flip", "learning_rate": 1e-3, "epochs": 3}
    expected = [alone(member(seed, build, **settings))[0] for seed in SEEDS]

    curves, results = finished(
        train_fused([member(seed, build, **settings) for seed in SEEDS], backend=backend, study_seed=STUDY_SEED)
    )

    for index, curve in enumerate(expected):
        assert [metrics.train_loss for metrics in curve] == pytest.approx(
            [metrics[index].train_loss for metrics in curves], rel=1e-2
        )
    assert {Outcome.DONE} == {result.outcome for result in results}


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_gradient_of_fused_runs_is_each_runs_own(backend: Backend) -> None:
    members = [member(seed, lambda: built_in(dropout=0.0)) for seed in SEEDS]
    alike = [dataclasses.replace(one, model=copy.deepcopy(one.model)) for one in members]
    fused = fused_steps(alike, backend=backend, study_seed=STUDY_SEED, loss=functional.cross_entropy)
    fused._step(8)
    parameters = fused._models.parameters(slice(0, len(SEEDS)))

    for index, one in enumerate(members):
        steps = fused_steps([one], backend="streams", study_seed=STUDY_SEED, loss=functional.cross_entropy)
        steps._step(8)
        own = torch.cat([parameter.grad.flatten() for parameter in one.model.parameters()])
        count = len(list(one.model.parameters()))
        theirs = (
            [parameter.grad for parameter in parameters[index * count : (index + 1) * count]]
            if backend == "streams"
            else [parameter.grad[index] for parameter in parameters]
        )
        assert (torch.cat([gradient.flatten() for gradient in theirs]) - own).norm() < 1e-4 * own.norm()


def test_replayed_evaluation_is_that_of_the_model_as_it_is() -> None:
    one = member(0, epochs=4)
    steps = fused_steps([one], backend="streams", study_seed=STUDY_SEED, loss=functional.cross_entropy)
    plain = EagerSteps(one, study_seed=STUDY_SEED, loss=functional.cross_entropy)

    for epoch in (1, 2, 3):
        steps.train_epoch(epoch)
        (replayed,), (expected,) = steps.evaluate("heldout"), plain.evaluate("heldout")

        assert replayed.loss == pytest.approx(expected.loss, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_graphed_epoch_waits_for_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = member(0, epochs=4)
    steps = fused_steps([one], backend="streams", study_seed=STUDY_SEED, loss=functional.cross_entropy)
    for epoch in (1, 2):
        steps.train_epoch(epoch)
    waits = []
    read = Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        waits.append(tensor)
        torch.cuda.set_sync_debug_mode("default")
        return read(tensor)

    monkeypatch.setattr(Tensor, "tolist", counted)
    take = steps._take_step

    def strictly(size: int) -> None:
        torch.cuda.set_sync_debug_mode("error")
        take(size)

    monkeypatch.setattr(steps, "_take_step", strictly)
    try:
        steps.train_epoch(3)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert len(waits) == 2  # the sums of losses, and of right answers once those are there


class Decides(nn.Module):
    """Decides by a value, which the host must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = built_in()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits if logits.sum().item() > 0 else -logits


def test_what_cannot_be_captured_is_refused_and_leaves_the_device_usable() -> None:
    with pytest.raises(PathUnavailable, match="waits for the device"):
        finished(train_graph(member(0, Decides), study_seed=STUDY_SEED))

    found, _ = finished(train_graph(member(0, lambda: built_in(dropout=0.3)), study_seed=STUDY_SEED))
    assert len(found) == 2


class Replicate:
    """A run on the GPU, of a kind of model."""

    def __init__(self, seed: int, build: Callable[[], nn.Module]) -> None:
        self.seed, self.build = seed, build
        self.epochs: list[EpochMetrics] = []

    def begin(self) -> Beginning:
        shape = DataShape(channels=3, height=12, width=8, classes=tuple("abcd"))
        one = member(self.seed, self.build)
        return Beginning(member=one, study_seed=STUDY_SEED, loss=functional.cross_entropy, shape=shape)

    def take(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)


def test_a_run_alone_is_trained_as_a_graph_or_eagerly_where_it_must() -> None:
    device = torch.device("cuda:0")

    plain, deciding = (train_alone(Replicate(0, build), device) for build in (built_in, Decides))

    assert ("graph", "") == (plain.path, plain.note)
    assert "eager" == deciding.path
    assert deciding.note.startswith("not graph: a step waits for the device")
    assert not isinstance(deciding.ended, Exception)


def test_runs_are_fused_by_the_backend_that_was_measured(tmp_path: Path) -> None:
    runs, fusing = [Replicate(seed, built_in) for seed in SEEDS], Fusing(cache=tmp_path / "b.json", must_gain=False)

    trained = train_together(runs, torch.device("cuda:0"), fusing)

    chosen = choose_backend([run.begin().member for run in runs], cache=fusing.cache)
    assert ["fused"] * 3 == [one.path for one in trained]
    assert f"runs together: 3, convolutions: {chosen}" == trained[0].note


def test_the_room_for_runs_is_counted_from_free_memory() -> None:
    room = members_that_fit(member(0))

    assert room is not None
    assert room > 10


class Waits(nn.Module):
    """Waits for the device in a way that only a capture notices."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = built_in()

    def forward(self, images: Tensor) -> Tensor:
        torch.cuda.synchronize()
        logits: Tensor = self.inner(images)
        return logits


def test_a_capture_that_fails_leaves_the_device_usable() -> None:
    with pytest.raises(PathUnavailable):
        finished(train_graph(member(0, Waits), study_seed=STUDY_SEED))

    curve, _ = alone(member(0, lambda: built_in(dropout=0.3)))
    torch.cuda.empty_cache()
    assert len(curve) == 2


def test_a_fresh_process_is_set_up_for_a_run() -> None:
    script = "import torch; from ablation.worker.devices import set_up; set_up(torch.device('cuda:0'), threads=1)"

    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_bf16_is_coarser_than_fp32() -> None:
    exact, *coarse = (
        finished(train_graph(member(0, lambda: built_in(dropout=0.0), precision=precision), study_seed=STUDY_SEED))[0]
        for precision in ("fp32", "bf16")
    )

    assert exact[0][0].train_loss != coarse[0][0][0].train_loss
    assert exact[0][0].train_loss == pytest.approx(coarse[0][0][0].train_loss, rel=0.05)
