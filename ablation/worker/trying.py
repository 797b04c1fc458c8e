"""Tries a variant before a study starts: one batch on the CPU, so that what is wrong is said at once and by name."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from ablation.code import CodeFolders, code_names, is_code, is_weights, running
from ablation.datasets import Dataset
from ablation.errors import AblationError, CodeInvalid, ComponentInvalid, VariantFails
from ablation.models import build_model, example_input, fastest_layout, load_weights
from ablation.records import DataShape, EngineTraining, ModelSettings, Settings, TaskName, Variant
from ablation.storage.temporary import temporary_folder
from ablation.training import train
from ablation.training.class_weights import class_weights_of
from ablation.training.optimizers import FUSED, try_step
from ablation.training.precision import logits_of
from ablation.training.schedules import SCHEDULES, learning_rates
from ablation.training.settings import Loss
from ablation.training.tasks import make_objective
from ablation.worker.data import first_batch, made_up_data
from ablation.worker.failures import MetricsUnfit
from ablation.worker.own_training import MAX_BATCHES, Report, load_training, train_own
from ablation.worker.own_trials import TrialReport, judged
from ablation.worker.setup import loss_of, seed_generators, training_settings

TRIED_EXAMPLES = 16


def needs_trying(settings: Settings) -> bool:
    """Whether something of a variant is not built in, or was taken out of its model."""
    model = settings.model
    edits = (model.remove, model.replace, model.frozen) if model is not None else ()
    is_odd = model is not None and (any(edits) or model.name.startswith("torchvision:"))
    return is_odd or bool(code_names(settings)) or _has_choices_of_torch(settings)


def _has_choices_of_torch(settings: Settings) -> bool:
    """Whether PyTorch's optimizers and schedules say what they can be given, or the data which classes there are."""
    training = settings.training
    if not isinstance(training, EngineTraining):
        return False
    is_stepped = training.schedule not in SCHEDULES
    is_odd = training.optimizer not in FUSED or bool(training.optimizer_arguments)
    return is_odd or is_stepped or training.class_weights != "none"


def try_variant(
    variant: Variant,
    shape: DataShape,
    *,
    dataset: Dataset | None,
    code: CodeFolders,
    study: str = "",
    tuned_by: str | None = None,
) -> bool:
    """Train a variant on one batch on the CPU, made up where there is no data set yet, and evaluate it on two examples.

    Return whether its model starts from the same weights with two seeds.

    A user's training function is looked at, and called only where it takes `max_batches`, and the data are there or
    not asked for. `study` is the name of the study, which it is told. It must report or return `tuned_by`, where its
    study is tuned.

    Raises:
        VariantFails: with the user's traceback.
    """
    try:
        if variant.settings.is_own_training:
            return _try_own_training(variant, shape, dataset, code, study, tuned_by)
        return _try_training(variant.settings, shape, dataset, code)
    except ComponentInvalid as error:
        parts = [f"factors.{name}" for name, level in variant.levels.items() if level in ("absent", "replaced")]
        raise VariantFails(variant.name, f"{error} ({', '.join(parts)})" if parts else str(error)) from error
    except AblationError as error:
        raise VariantFails(variant.name, str(error)) from error


def _try_training(settings: Settings, shape: DataShape, dataset: Dataset | None, code: CodeFolders) -> bool:
    data_settings, model_settings = settings.sections()
    loss = loss_of(settings.engine, code)
    whole = training_settings(settings)
    learning_rates(whole, steps_per_epoch=1)
    try_step(whole)
    chosen = replace(whole, epochs=1, epoch_choice="last", patience=None)
    other, model = (_begun(model_settings, shape, code, seed=seed) for seed in (1, 0))
    is_same_start = _are_equal(other, model)
    del other
    count = min(chosen.batch_size, TRIED_EXAMPLES)
    layout = fastest_layout(model_settings, torch.device("cpu"))
    if dataset is not None:
        data = first_batch(dataset, data_settings, count, layout=layout)
    else:
        data = made_up_data(shape, count, torch.device("cpu"), layout=layout)
    tried = model_settings.name
    own = (name for name in code_names(settings) if not is_weights(name))
    name = tried if is_code(tried) else next(own, tried)
    with running(name, path="model.name", doing="it was trained on one batch"):
        _check_outputs(model, example_input(shape, 2), shape)
        told = _told(loss, settings.engine.loss) if loss is not None else None
        objective = make_objective(shape, settings.engine.loss)
        epochs = train(
            model,
            data,
            chosen,
            study_seed=0,
            seed=0,
            loss=told,
            objective=objective,
            class_weights=class_weights_of(chosen.class_weights, data, objective, classes=len(shape.classes)),
        )
        for _ in epochs:
            pass
    return is_same_start


def _begun(settings: ModelSettings, shape: DataShape, code: CodeFolders, *, seed: int) -> nn.Module:
    seed_generators(seed)
    return load_weights(build_model(settings, shape, code=code), settings.weights, code=code)


def _are_equal(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models have the same parameters and buffers, to the bit."""
    mine, theirs = _tensors(first), _tensors(second)
    return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]


def _told(loss: Loss, name: str) -> Loss:
    """Return a loss whose errors are said to be its own, not the model's."""

    def called(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with running(name, path="training.loss", doing="it was called with logits and labels"):
            return loss(logits, labels)

    return called


def _check_outputs(model: nn.Module, inputs: torch.Tensor, shape: DataShape) -> None:
    was_training = model.training
    with torch.no_grad():
        outputs = logits_of(model.eval()(inputs))
    model.train(was_training)
    given = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    allowed = [(len(inputs), *one) for one in allowed_output_shapes(shape)]
    if given not in allowed:
        way = "" if isinstance(outputs, torch.Tensor) else "; return a tensor, or a mapping that has one as `logits`"
        form, each = OUTPUTS[shape.task]
        what = f"not {form} {allowed[0]}: one per {each}{way}"
        raise ValueError(f"the model gives {given} for {len(inputs)} examples, {what}")


def allowed_output_shapes(shape: DataShape) -> tuple[tuple[int, ...], ...]:
    """Return the shapes that a model's output for one input may have, the usual one first."""
    usual = shape.output_shape
    return (usual, ()) if shape.task == "regression" and usual == (1,) else (usual,)


OUTPUTS: Mapping[TaskName, tuple[str, str]] = {
    "classification": ("logits", "class"),
    "regression": ("predictions", "target"),
    "multilabel": ("logits", "label"),
    "tokens": ("logits", "position and class"),
    "segmentation": ("logits", "class and pixel"),
}
"""What a model gives, and for each of what, by task."""


def _try_own_training(
    variant: Variant, shape: DataShape, dataset: Dataset | None, code: CodeFolders, study: str, tuned_by: str | None
) -> bool:
    """Look at a training function, and call it as far as it can be tried; return whether its model starts alike."""
    settings, name = variant.settings, variant.settings.function.name
    training, model = load_training(settings, code), settings.model
    is_same_start = False
    if training.call.takes("model") and model is not None and settings.data is not None:
        is_same_start = _are_equal(*(_begun(model, shape, code, seed=seed) for seed in (1, 0)))
    elif model is not None and (model.remove or model.replace) and {"absent", "replaced"} & {*variant.levels.values()}:
        raise CodeInvalid(f"{name} takes no `model`, so nothing is removed or replaced in one", path="training.name")
    needs_data = training.call.takes("data") or training.call.takes("model")
    if not training.call.takes(MAX_BATCHES) or (needs_data and dataset is None):
        return is_same_start
    with temporary_folder() as folder, running(name, path="training.name", doing="it was tried"):
        report = Report(folder=folder, on_epoch=lambda _: None, variant=variant.name, study=study)
        if tuned_by is not None:
            report = TrialReport.of(report, objective=tuned_by)
            training = judged(training, report)
        try:
            train_own(training, settings, seed=0, report=report, dataset=dataset, code=code, max_batches=1)
        except MetricsUnfit as error:  # which is what it returned, not what it raised
            raise CodeInvalid(f"{name}, tried on a batch: {error}", path="training.name") from None
    return is_same_start
