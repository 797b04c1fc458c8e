"""On a GPU, training is the CPU's within rounding, on the same batches, and reads nothing back inside an epoch."""

import copy
import dataclasses

import pytest
import torch
from test_training import batches_of, make_data, make_model, run, settings_of

from ablation.results import Outcome
from ablation.training import TrainingData

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none here"),
]


def on_gpu(data: TrainingData) -> TrainingData:
    moved = {
        field.name: None if (tensor := getattr(data, field.name)) is None else tensor.cuda()
        for field in dataclasses.fields(data)
    }
    return TrainingData(**moved)


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
