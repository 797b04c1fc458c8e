"""On a GPU, every path of training is the CPU's within rounding, on the same batches, and reads nothing in an epoch."""

import contextlib
import copy
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from replicates import Replicate
from test_checkpoints import PATHS, TRAININGS, Interruption, Kept, same
from torch import Tensor, nn
from torch.nn import functional
from trainings import (
    SEEDS,
    STUDY_SEED,
    Build,
    alone,
    batches_of,
    begun,
    built_in,
    finished,
    make_data,
    make_model,
    member_of_task,
    run,
    settings_of,
)

from ablation.errors import PathUnavailable
from ablation.records import Outcome, TaskName
from ablation.stopping import Preempted
from ablation.training import (
    Member,
    TrainingData,
    choose_backend,
    choosing,
    free_memory,
    members_that_fit,
    set_precision,
    train_eager,
    train_fused,
    train_graph,
)
from ablation.training.optimizers import ABILITIES, FUSED
from ablation.training.paths import BACKENDS, Backend, fused_steps
from ablation.training.settings import Precision
from ablation.training.steps import EagerSteps
from ablation.training.tasks import OBJECTIVES
from ablation.training.together import resident
from ablation.training.together.replay import Captures, Replayed
from ablation.training.together.resident import ResidentSteps
from ablation.worker import checkpoints as checkpoints_module
from ablation.worker import paths
from ablation.worker.devices import can_train_more
from ablation.worker.paths import Fusing, Trained, train_alone, train_together
from benchmarks.gpu_case import TRIED, random_data
from benchmarks.gpu_case import member as case_member
from benchmarks.traffic import Traffic

PROJECT = Path(__file__).parents[1]
SIMULATED = sys.modules.get("simulated_gpu")
DEVICE = torch.device("cuda:0")
simulated = pytest.mark.skipif(SIMULATED is None, reason="counted on the simulated GPU of tests/ alone")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason=(SIMULATED.why_not() if SIMULATED else None) or "needs a CUDA device; there is none here",
    ),
]


def on_gpu(data: TrainingData) -> TrainingData:
    moved = {
        field.name: value.cuda()
        for field in dataclasses.fields(data)
        if isinstance(value := getattr(data, field.name), Tensor)
    }
    scale = (data.scale[0].cuda(), data.scale[1].cuda()) if data.scale is not None else None
    return dataclasses.replace(data, **moved, scale=scale)


@pytest.fixture(autouse=True)
def _strict_fp32() -> Iterator[None]:
    """Compute as a run does; the setting has no deleter, which pytest's monkeypatch asks for."""
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    set_precision("fp32")
    yield
    convolutions.fp32_precision = before


@pytest.fixture
def memory() -> Any:
    """The simulated GPU's memory, free of what earlier tests have left."""
    assert SIMULATED is not None
    free_memory()
    return SIMULATED.device.memory


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
    assert [metrics.train["loss"] for metrics in there] == pytest.approx(
        [metrics.train["loss"] for metrics in here], rel=1e-3
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

    for name in ("train", "sample", "heldout"):  # dropout's masks are the same: one generator, one seed
        own = [getattr(metrics, name)["loss"] for metrics in curve]
        assert own == pytest.approx([getattr(metrics, name)["loss"] for (metrics,) in found], rel=1e-2)
    assert expected.outcome is result.outcome is Outcome.DONE


CAPTURED = [name for name, can in ABILITIES.items() if can.is_captured and name not in FUSED]


@pytest.mark.parametrize("name", ["NAdam", "RMSprop"])
def test_a_graph_trains_by_any_captured_optimizer_what_eager_steps_do(name: str) -> None:
    def one() -> Member:
        return member(1, plain, optimizer=name, epochs=2, learning_rate=1e-3, warmup=1.5, gradient_clipping=0.5)

    curve, _ = alone(one())

    found, _ = finished(train_graph(one(), study_seed=STUDY_SEED))

    own = [metrics.train["loss"] for metrics in curve]
    assert own == pytest.approx([metrics.train["loss"] for (metrics,) in found], rel=1e-2)


def test_a_graph_keeps_averages_and_leaves_what_is_frozen_as_eager_steps_do() -> None:
    def one() -> Member:
        begun = member(1, plain, epochs=2, learning_rate=1e-3, ema=0.9)
        for parameter in list(begun.model.parameters())[:2]:
            parameter.requires_grad = False
        return begun

    before = list(one().model.state_dict().values())[:2]
    curve, _ = alone(one())

    found, (result,) = finished(train_graph(one(), study_seed=STUDY_SEED))

    own = [metrics.heldout["loss"] for metrics in curve]
    assert own == pytest.approx([metrics.heldout["loss"] for (metrics,) in found], rel=1e-2)
    assert all(map(torch.equal, [tensor.cpu() for tensor in before], list(result.state.values())[:2]))


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "grouped") for name in CAPTURED), ("NAdam", "streams")],
)
def test_fused_runs_train_by_any_captured_optimizer_what_each_does_alone(name: str, backend: Backend) -> None:
    own: list[dict[str, Any]] = [{"gradient_clipping": 0.5}, {"warmup": 1.5}]

    def members() -> list[Member]:
        return [
            member(seed, plain, optimizer=name, epochs=2, learning_rate=1e-3, **changes)
            for seed, changes in enumerate(own)
        ]

    expected = [alone(one)[0] for one in members()]

    curves, _ = finished(train_fused(members(), backend=backend, study_seed=STUDY_SEED))

    for index, curve in enumerate(expected):
        assert [metrics.train["loss"] for metrics in curve] == pytest.approx(
            [metrics[index].train["loss"] for metrics in curves], rel=1e-2
        )


@pytest.mark.parametrize("name", ["Adagrad", "Adafactor"])
def test_an_optimizer_that_needs_the_host_is_stepped_eagerly_and_the_run_says_why(name: str, tmp_path: Path) -> None:
    trained = list(train_together([replicate(seed, optimizer=name) for seed in SEEDS], DEVICE, no_gain(tmp_path)))

    assert {"eager"} == {one.path for one in trained}
    for one in trained:
        assert f"not graph: {name} needs numbers of the host in each step" in one.note
        assert not isinstance(one.ended, BaseException)


@pytest.mark.parametrize(
    ("path", "name"),
    [("eager", "NAdam"), ("eager", "ASGD"), ("eager", "Adagrad"), ("graph", "NAdam"), ("grouped", "ASGD")],
)
def test_what_any_optimizer_keeps_lies_where_it_did_when_training_goes_on(path: str, name: str) -> None:
    train, count = PATHS[path]

    def members() -> list[Member]:
        return [member(seed, optimizer=name, epochs=3) for seed in range(count)]

    _, undisturbed = finished(train(members(), None))
    kept = Kept(until=2)
    with pytest.raises(Interruption):
        finished(train(members(), kept))

    _, again = finished(train(members(), kept))

    for one, other in zip(undisturbed, again, strict=True):
        assert one.metrics["test_loss"] == pytest.approx(other.metrics["test_loss"], rel=1e-2)
        assert SIMULATED is None or same(one, other)


@pytest.mark.parametrize("backend", ["grouped", "streams"])
def test_fused_runs_have_each_its_own_weights_of_classes(backend: Backend) -> None:
    def members() -> list[Member]:
        weights = [torch.tensor([1.0, 2.0, 0.5, 1.5]).roll(seed).cuda() for seed in SEEDS]
        found = [member(seed, plain, optimizer="sgd", epochs=2, label_smoothing=0.1) for seed in SEEDS]
        return [dataclasses.replace(one, class_weights=own) for one, own in zip(found, weights, strict=True)]

    expected = [finished(train_eager(one, study_seed=STUDY_SEED))[0] for one in members()]

    curves, _ = finished(train_fused(members(), backend=backend, study_seed=STUDY_SEED))

    for index, curve in enumerate(expected):
        assert [metrics.train["loss"] for (metrics,) in curve] == pytest.approx(
            [metrics[index].train["loss"] for metrics in curves], rel=1e-2
        )


def plain() -> nn.Module:
    return built_in(dropout=0.0, normalization="group")


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
        assert [metrics.train["loss"] for metrics in curve] == pytest.approx(
            [metrics[index].train["loss"] for metrics in curves], rel=1e-2
        )
    assert {Outcome.DONE} == {result.outcome for result in results}


def of_task(task: TaskName, seed: int) -> Member:
    one = member_of_task(task, seed, learning_rate=1e-3, epochs=3)
    return dataclasses.replace(one, model=one.model.cuda(), data=on_gpu(one.data))


@pytest.mark.parametrize("task", OBJECTIVES)
def test_a_graph_trains_any_task_as_eager_steps_do(task: TaskName) -> None:
    curve, expected = alone(of_task(task, 1))

    found, (result,) = finished(train_graph(of_task(task, 1), study_seed=STUDY_SEED))

    for own, (other,) in zip(curve, found, strict=True):
        for split in ("train", "sample", "heldout"):
            assert getattr(own, split) == pytest.approx(getattr(other, split), rel=1e-2, abs=1e-3)
    assert result.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], rel=1e-2)


@pytest.mark.parametrize(
    ("task", "backend"),
    [*((task, "matmul") for task in OBJECTIVES), ("segmentation", "grouped"), ("tokens", "streams")],
)
def test_fused_runs_of_any_task_train_what_each_does_alone(task: TaskName, backend: Backend) -> None:
    expected = [alone(of_task(task, seed))[0] for seed in SEEDS]

    curves, results = finished(
        train_fused([of_task(task, seed) for seed in SEEDS], backend=backend, study_seed=STUDY_SEED)
    )

    for index, curve in enumerate(expected):
        for own, together in zip(curve, curves, strict=True):
            assert own.train == pytest.approx(together[index].train, rel=1e-2, abs=1e-3)
            assert own.heldout == pytest.approx(together[index].heldout, rel=1e-2, abs=1e-3)
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

    def counting(read: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        def counted(tensor: Tensor) -> Any:
            if tensor.is_cuda:
                waits.append(tensor)
            torch.cuda.set_sync_debug_mode("default")
            return read(tensor)

        return counted

    for name in ("tolist", "cpu", "item"):
        monkeypatch.setattr(Tensor, name, counting(getattr(Tensor, name)))
    take = steps._take_step

    def strictly(size: int) -> None:
        torch.cuda.set_sync_debug_mode("error")
        take(size)

    monkeypatch.setattr(steps, "_take_step", strictly)
    try:
        steps.train_epoch(3)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert len(waits) == 2  # the sums of losses, and the tallies once those are there


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


def no_gain(folder: Path) -> Fusing:
    return Fusing(cache=folder / "b.json", must_gain=False)


def replicate(seed: int, build: Build = built_in, *, folder: Path | None = None, **settings: Any) -> Replicate:
    return Replicate(seed, lambda seed: member(seed, build, **settings), folder=folder)


def test_a_run_alone_is_trained_as_a_graph_or_eagerly_where_it_must() -> None:
    plain, deciding = (train_alone(replicate(0, build), DEVICE) for build in (built_in, Decides))

    assert ("graph", "") == (plain.path, plain.note)
    assert "eager" == deciding.path
    assert deciding.note.startswith("not graph: a step waits for the device")
    assert not isinstance(deciding.ended, Exception)


def test_runs_are_fused_by_the_backend_that_was_measured(tmp_path: Path) -> None:
    runs, fusing = [replicate(seed) for seed in SEEDS], no_gain(tmp_path)

    trained = list(train_together(runs, DEVICE, fusing))

    chosen = choose_backend([run.begin().member for run in runs], cache=fusing.cache)
    assert ["fused"] * 3 == [one.path for one in trained]
    assert f"runs together: 3, convolutions: {chosen}" == trained[0].note


class Waits(nn.Module):
    """Waits for the device in a way that only a capture notices."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = built_in()

    def forward(self, images: Tensor) -> Tensor:
        torch.cuda.synchronize()
        logits: Tensor = self.inner(images)
        return logits


@pytest.fixture(params=[True, False], ids=["that ends", "that does not end"])
def _a_failed_capture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyTorch does with a capture that failed: before 2.12 its allocator takes it for one that goes on."""
    if SIMULATED is not None:
        monkeypatch.setattr(SIMULATED.rules, "ends_failed_captures", request.param)
    elif request.param is not (torch.__version__ >= (2, 12)):
        pytest.skip("another version of PyTorch")


@pytest.mark.usefixtures("_a_failed_capture")
@pytest.mark.parametrize("build", [Waits, Decides])
def test_after_a_capture_that_failed_runs_are_trained_as_graphs_and_fused(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    waiting = train_alone(replicate(0, build), DEVICE)

    alone = train_alone(replicate(0, lambda: built_in(dropout=0.3)), DEVICE)
    together = train_together([replicate(seed) for seed in SEEDS], DEVICE, no_gain(tmp_path))

    assert "eager" == waiting.path
    assert waiting.note.startswith("not graph: a step")
    assert ("graph", "") == (alone.path, alone.note)
    assert ["fused"] * 3 == [one.path for one in together]
    assert can_train_more(DEVICE)


@pytest.mark.usefixtures("_a_failed_capture")
def test_a_capture_that_failed_keeps_no_memory() -> None:
    train_alone(replicate(0, Waits), DEVICE)  # libraries take what they keep for good
    before = torch.cuda.memory_reserved()

    for seed in SEEDS:
        train_alone(replicate(seed, Waits), DEVICE)

    assert before == torch.cuda.memory_reserved()


@simulated
def test_where_the_allocator_cannot_be_put_right_the_run_is_trained_and_the_process_takes_no_other(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SIMULATED is not None
    monkeypatch.setattr(SIMULATED.rules, "ends_failed_captures", False)
    monkeypatch.setattr(memory, "under_way", [])
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *_: memory.end_pool((0, 0)))

    waiting = train_alone(replicate(0, Waits), DEVICE)

    assert "eager" == waiting.path
    assert not isinstance(waiting.ended, BaseException)
    assert not can_train_more(DEVICE)


class Fails(nn.Module):
    """Raises an error where it is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = built_in()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("mine")
        return logits


@pytest.mark.usefixtures("_a_failed_capture")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_in_a_capture_is_told_as_it_is(backend: Backend) -> None:
    """In a lane of it too, where the lanes of the runs that follow are not in the capture."""
    with pytest.raises(PathUnavailable, match="a step cannot be captured: mine"):
        finished(train_fused([member(seed, Fails) for seed in SEEDS], backend=backend, study_seed=STUDY_SEED))


@pytest.mark.usefixtures("_a_failed_capture")
def test_runs_whose_capture_ends_in_an_error_are_trained_eagerly(tmp_path: Path) -> None:
    runs = [replicate(seed, Fails) for seed in SEEDS]

    trained = list(train_together(runs, DEVICE, no_gain(tmp_path)))

    assert ["eager"] * 3 == [one.path for one in trained]
    assert ["not fused: a step cannot be captured: mine"] * 3 == [one.note.partition(";")[0] for one in trained]
    assert can_train_more(DEVICE)


def test_a_fresh_process_is_set_up_for_a_run() -> None:
    script = "import torch; from ablation.worker.devices import set_up; set_up(torch.device('cuda:0'), threads=1)"

    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT)


def test_bf16_is_coarser_than_fp32() -> None:
    exact, *coarse = (
        finished(train_graph(member(0, lambda: built_in(dropout=0.0), precision=precision), study_seed=STUDY_SEED))[0]
        for precision in ("fp32", "bf16")
    )

    assert exact[0][0].train["loss"] != coarse[0][0][0].train["loss"]
    assert exact[0][0].train["loss"] == pytest.approx(coarse[0][0][0].train["loss"], rel=0.05)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("training", TRAININGS)
def test_a_training_gone_on_with_is_the_one_that_was_not_interrupted(path: str, training: str) -> None:
    train, count = PATHS[path]

    def members() -> list[Member]:
        return [member(seed, epochs=3, **TRAININGS[training]) for seed in range(count)]

    _, undisturbed = finished(train(members(), None))
    kept = Kept(until=2)
    with pytest.raises(Interruption):
        finished(train(members(), kept))
    torch.manual_seed(1)

    curve, again = finished(train(members(), kept))

    assert [3] == [metrics[0].epoch for metrics in curve]
    for one, other in zip(undisturbed, again, strict=True):
        assert one.metrics["test_loss"] == pytest.approx(other.metrics["test_loss"], rel=1e-2)
        assert SIMULATED is None or same(one, other)


@pytest.mark.parametrize("paths", [("graph", 1), ("fused", 3)], ids=["graph", "fused"])
def test_a_job_goes_on_by_the_path_that_it_was_interrupted_on(
    paths: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints_module, "MOST_SHARE", float("inf"))
    path, count = paths

    def job() -> list[Replicate]:
        return [replicate(seed, folder=tmp_path / str(seed), epochs=4) for seed in range(count)]

    def trained(runs: list[Replicate]) -> list[Trained]:
        fusing = no_gain(tmp_path)
        return [train_alone(runs[0], DEVICE)] if path == "graph" else list(train_together(runs, DEVICE, fusing))

    interrupted = job()
    for one in interrupted:
        one.folder.path.mkdir()
    interrupted[-1].fails_in_epoch, interrupted[-1].error = 3, Preempted()
    with pytest.raises(Preempted):
        trained(interrupted)

    runs = job()
    results = trained(runs)

    assert [path] * count == [one.path for one in results]
    assert [[1, 2, 3, 4]] * count == [[metrics.epoch for metrics in run.epochs] for run in runs]
    first = [metrics.train["loss"] for metrics in interrupted[0].epochs[:2]]
    assert first == [metrics.train["loss"] for metrics in runs[0].epochs[:2]]  # they were kept, not trained again


@pytest.mark.parametrize("backend", [None, *BACKENDS], ids=str)
def test_every_replay_draws_dropout_anew(backend: Backend | None) -> None:
    """On one batch, without learning, a loss changes by its dropout alone."""

    def still(seed: int) -> Member:
        data = on_gpu(make_data(train_images=8))
        model = begun(seed, lambda: built_in(dropout=0.5, normalization="none")).cuda()
        settings = settings_of(batch_size=8, epochs=8, learning_rate=0.0, optimizer="sgd")
        return Member(model=model, data=data, settings=settings, seed=seed)

    if backend is None:
        curve, _ = finished(train_graph(still(0), study_seed=STUDY_SEED))
    else:
        curve, _ = finished(train_fused([still(seed) for seed in SEEDS], backend=backend, study_seed=STUDY_SEED))

    for losses in zip(*([metrics.train["loss"] for metrics in epoch] for epoch in curve), strict=True):
        assert len(set(losses)) == 8


OUT_OF_RANGE = """
import os, sys

sys.path[:0] = ["tests"]
import test_training_gpu as gpu

alone = gpu.train_alone(gpu.replicate(0, gpu.Asserts), gpu.DEVICE)
print(alone.path, type(alone.ended).__name__, "assert" in str(alone.ended), gpu.can_train_more(gpu.DEVICE), flush=True)
os._exit(0)  # a process whose device is lost may abort as it ends
"""


class Asserts(nn.Module):
    """Reads outside of a table, from its third step on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = built_in()
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("table", torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images) + self.table[self.steps].sum()
        self.steps += self.training
        return logits


def test_an_assertion_in_a_kernel_ends_the_run_and_the_use_of_the_device() -> None:
    found = subprocess.run(
        [sys.executable, "-c", OUT_OF_RANGE], check=True, cwd=PROJECT, capture_output=True, text=True
    )

    assert "graph AcceleratorError True False" == found.stdout.strip()


@simulated
def test_an_assertion_that_shows_only_after_the_step_is_no_failure_of_the_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SIMULATED is not None
    lost = SIMULATED.device
    monkeypatch.setattr(lost, "is_dead", False)
    step = Replayed(lambda: setattr(lost, "is_dead", True), Captures(DEVICE, ()), warm_ups=1)

    with pytest.raises(torch.AcceleratorError, match="device-side assert"):
        step()


@simulated
def test_as_many_runs_fit_as_are_said_to(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = member(0, batch_size=3)
    monkeypatch.setattr(memory, "total", memory.reserved + (4 << 20))
    room = members_that_fit(one)
    assert room is not None
    members = [member(seed, batch_size=3) for seed in range(room)]

    curve, _ = finished(train_fused(members, backend="grouped", study_seed=0))

    assert 2 == len(curve)
    assert room > 3


@simulated
def test_as_many_runs_fit_whatever_cudnn_takes_to_time_its_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, timed = member(0), dataclasses.replace(member(0), cudnn_benchmark=True)
    expected = members_that_fit(plain)
    tried: list[str] = []

    @contextlib.contextmanager
    def timing() -> Iterator[None]:
        if not tried:
            tried.append("algorithms")
            torch.empty(64 << 20, dtype=torch.uint8, device=DEVICE)
        yield

    monkeypatch.setattr(resident, "algorithms_timed", timing)

    found = members_that_fit(timed)

    assert ["algorithms"] == tried
    assert expected is not None
    assert expected == pytest.approx(found, rel=0.01)


@simulated
def test_without_room_for_all_half_are_trained_at_a_time(
    memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choosing, "BACKENDS", ("grouped",))
    monkeypatch.setattr(paths, "members_that_fit", lambda *_, **__: None)  # what is said to fit may not
    memory.reset_peaks()
    before = memory.reserved
    list(train_together([replicate(seed) for seed in range(2)], DEVICE, no_gain(tmp_path)))
    monkeypatch.setattr(memory, "total", round(before + 1.2 * (memory.peak_needed - before)))

    trained = list(train_together([replicate(seed) for seed in range(4)], DEVICE, no_gain(tmp_path)))

    assert ["fused"] * 4 == [one.path for one in trained]
    assert ["runs together: 2"] * 4 == [one.note.partition(",")[0] for one in trained]
    assert can_train_more(DEVICE)


def course_network(count: int, precision: Precision, backend: Backend) -> ResidentSteps:
    """Return the steps of `count` fused runs of the course assignment's network, one of them taken."""
    sizes = dataclasses.replace(TRIED, batch_size=64, steps=4)
    data = random_data(DEVICE, sizes)
    members = [case_member(seed, DEVICE, sizes, data=data, precision=precision) for seed in range(count)]
    steps = fused_steps(members, backend=backend, study_seed=0, loss=functional.cross_entropy)
    steps._step(64)
    return steps


@simulated
@pytest.mark.parametrize(("precision", "kernels", "bytes_moved"), [("fp32", 64, 4.2e9), ("bf16", 91, 2.75e9)])
def test_a_fused_step_of_32_runs_takes_few_kernels_and_bytes_and_copies_no_gradient(
    precision: Precision, kernels: int, bytes_moved: int
) -> None:
    steps = course_network(32, precision, "grouped")

    with Traffic() as traffic:
        steps._step(64)

    assert traffic.kernels <= kernels
    assert traffic.bytes <= bytes_moved
    weights = {tuple(parameter.shape) for parameter in steps._models.parameters(slice(0, 32))}
    assert [] == [copy for copy in traffic.copies if copy.shape in weights and copy.source == copy.target]
