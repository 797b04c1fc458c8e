"""Devices: what there is to train on, and why there is none."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from factories import TRAINING

from ablation.errors import DeviceUnavailable, PrecisionUnavailable
from ablation.records import EngineTraining, FunctionTraining, Precision, Settings, Variant
from ablation.worker import device_text, devices, resolve_devices, why_no_gpu
from ablation.worker.devices import check_device, check_precision, set_up

TOO_OLD = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040).\nPlease update it."


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cards, whose driver PyTorch cannot use: it warns, and counts them all the same."""

    def is_available() -> bool:
        warnings.warn(TOO_OLD, stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))


@pytest.mark.usefixtures("old_driver")
def test_with_a_driver_too_old_the_cpu_trains_and_it_is_known_why() -> None:
    assert ("cpu",) == resolve_devices("auto")
    assert why_no_gpu() == TOO_OLD.splitlines()[0]


@pytest.mark.usefixtures("old_driver")
def test_a_card_asked_for_by_name_that_cannot_be_used_is_refused_with_the_reason() -> None:
    with pytest.raises(DeviceUnavailable, match=r"no device 'cuda:0' here \(CUDA initialization: .* too old .*\)"):
        resolve_devices("cuda:0")


@pytest.mark.usefixtures("two_cards")
def test_a_card_is_told_with_its_model_its_memory_and_that_it_lacks_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    turing = SimpleNamespace(name="NVIDIA T4", total_memory=15 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: turing)

    assert "cuda:1 (NVIDIA T4, 15.0 GiB, no bf16)" == device_text("cuda:1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert "cuda:1 (NVIDIA T4, 15.0 GiB)" == device_text("cuda:1")


@pytest.mark.parametrize(("lacks", "expected"), [(True, "cpu (no instructions for bf16)"), (False, "cpu")])
def test_a_processor_is_told_with_whether_it_lacks_bf16(
    lacks: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "lacks_bf16_units", lambda: lacks)

    assert expected == device_text("cpu")


@pytest.mark.usefixtures("two_cards")
def test_every_card_is_taken_unless_one_is_named() -> None:
    assert ("cuda:0", "cuda:1") == resolve_devices("auto") == resolve_devices("cuda")
    assert ("cuda:1",) == resolve_devices("cuda:1")
    assert ("cpu",) == resolve_devices("cpu")
    with pytest.raises(
        DeviceUnavailable, match="no device 'cuda:7' here; available: auto, cpu, cuda:0, cuda:1 @ --device"
    ):
        resolve_devices("cuda:7")


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_card_from_before_tf32_and_bf16_is_refused_for_them(precision: str) -> None:
    with pytest.raises(PrecisionUnavailable, match=f"cuda:0 does not compute in {precision}; it does in fp32"):
        check_precision(precision, torch.device("cuda:0"))

    check_precision("fp32", torch.device("cuda:0"))


def test_a_training_functions_own_precision_is_its_own_affair() -> None:
    def variant(training: EngineTraining | FunctionTraining) -> Variant:
        settings = Settings(data=None, model=None, training=training, study_seed=0)
        return Variant(name="v", levels={}, settings=settings, configuration={}, is_baseline=True)

    def engine(precision: Precision) -> EngineTraining:
        return replace(TRAINING, precision=precision)

    check_device([variant(FunctionTraining(name="train.py:fit", arguments={"precision": "tf32"}))], "cpu")

    with pytest.raises(PrecisionUnavailable):
        check_device([variant(engine("bf16")), variant(engine("tf32"))], "cpu")


def test_a_run_on_a_cpu_is_computed_in_fp32_whatever_this_process_has_chosen() -> None:
    first, second = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = first @ second
    torch.set_float32_matmul_precision("medium")  # bf16 where the processor has it

    set_up(torch.device("cpu"), threads=1)

    assert torch.equal(expected, first @ second)
    assert "ieee" == torch.backends.mkldnn.matmul.fp32_precision
