"""Holds every choice of names to what carries it out: a name that nothing implements is in no list."""

import importlib
import pkgutil
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
import pytest

import ablation.study.spec
from ablation.analysis.answer_records import Verdict
from ablation.cli import main
from ablation.cli.tables import FAILURES
from ablation.code import NO_FOLDERS
from ablation.coordinator.tuning import objective_of
from ablation.datasets import _source
from ablation.datasets.splits import Division
from ablation.executors import EXECUTORS
from ablation.models.build import BUILT_IN
from ablation.models.cnn import ACTIVATIONS, NORMS_1D, NORMS_2D, PLACEMENTS
from ablation.models.torchvision_models import STEMS
from ablation.records import (
    SIGNS,
    TASKS,
    DataSettings,
    Direction,
    Failure,
    MetricEpochs,
    Outcome,
    TargetScaling,
    TaskName,
    TuningTrial,
    Unit,
)
from ablation.records.data import _OUTPUT_SHAPES
from ablation.records.runs import _IS_RESULT
from ablation.report import FORMATS, figures, numbers, tuning_tables
from ablation.report.prose.verdicts import VERDICT_WORDS
from ablation.scheduling.trials import PRUNERS, SAMPLERS, STATES
from ablation.study import torch_names
from ablation.study.design import DESIGNS
from ablation.study.sections import SECTIONS, Section, built_in_names
from ablation.training import batches, loop, precision, schedules, settings
from ablation.training.paths import BACKENDS, Backend
from ablation.training.settings import TrainingSettings
from ablation.training.tasks import OBJECTIVES
from ablation.training.together.operations import _CONVOLUTIONS, Convolution
from ablation.worker import own_metrics
from ablation.worker import tuning_runs as trials
from ablation.worker.data import MADE_UP_TARGETS
from ablation.worker.trying import OUTPUTS

METRICS = TASKS["classification"].metrics

IMPLEMENTED: Mapping[str, Collection[Any]] = {
    "Cnn.activation": ACTIVATIONS,
    "Cnn.name": BUILT_IN,
    "Cnn.normalization": NORMS_2D,
    "Cnn.normalization_placement": PLACEMENTS,
    "DataSection.augmentation": batches.AUGMENTATIONS,
    "DataSection.validation": ("none",),
    "MetricChoice.direction": SIGNS,
    "StudySpec.design": DESIGNS,
    "StudySpec.metrics": SIGNS,
    "Torchvision.normalization": NORMS_2D,
    "Torchvision.stem": STEMS,
    "Training.epoch_choice": loop.EPOCH_CHOICES,
    "Training.class_weights": ("none", "balanced"),
    "Training.gradient_clipping": ("none",),
    "Training.patience": ("none",),
    "Training.ema": ("none",),
    "OwnMetric.direction": SIGNS,
    "OwnMetric.epochs": get_args(MetricEpochs),
    "OwnMetric.given": own_metrics.GIVEN,
    "OwnData.target_scaling": get_args(TargetScaling),
    "OwnData.task": OBJECTIVES,
    "Training.loss": {loss for task in TASKS.values() for loss in task.losses},
    "Training.precision": precision.PRECISIONS,
    "Training.schedule_unit": schedules.UNITS,
    "Tuning.pruner": PRUNERS,
    "Tuning.sampler": SAMPLERS,
}
ANY_IS_DONE = {
    "Cnn.kernel": "the padding follows from any odd number",
    "SearchSpace.log": "there is one word, beside bounds",
}
DATA = ("Digits.name", "Cifar10.name", "Images.name")


def literals(annotation: Any) -> Iterator[Any]:
    """Yield the names of every Literal in a type, however deep."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    for part in get_args(annotation) if get_origin(annotation) in (Annotated, dict, tuple) else ():
        yield from literals(part)
    if get_origin(annotation) not in (Literal, Annotated, dict, tuple):
        for part in get_args(annotation):
            yield from literals(part)


def sections(kind: type[Section]) -> Iterator[type[Section]]:
    for one in kind.__subclasses__():
        yield one
        yield from sections(one)


def offered() -> dict[str, set[Any]]:
    """Return the names that the schema of study files offers, by the section and field that has them itself."""
    return {
        f"{kind.__name__}.{name}": found
        for kind in {*sections(Section)}
        if kind.__module__.startswith(ablation.study.__name__)
        for name in kind.__annotations__
        if name in kind.model_fields and (found := set(literals(kind.model_fields[name].rebuild_annotation())))
    }


def test_no_choice_of_the_schema_is_without_what_carries_it_out() -> None:
    assert {*IMPLEMENTED, *ANY_IS_DONE, *DATA} == offered().keys()


@pytest.mark.parametrize("choice", IMPLEMENTED)
def test_every_name_that_the_schema_offers_is_implemented_and_every_other_is_not(choice: str) -> None:
    assert set(IMPLEMENTED[choice]) == offered()[choice]


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (torch_names.OWN_SCHEDULES, schedules.SCHEDULES),
        (get_args(TrainingSettings.__annotations__["epoch_choice"]), loop.EPOCH_CHOICES),
        (get_args(TrainingSettings.__annotations__["epoch_choice"]), trials.MEASURED),
        (get_args(TrainingSettings.__annotations__["augmentation"]), batches.AUGMENTATIONS),
        (get_args(settings.Precision), precision.PRECISIONS),
        (NORMS_2D, NORMS_1D),
        (get_args(Direction), SIGNS),
        (get_args(Backend), BACKENDS),
        (get_args(Convolution), _CONVOLUTIONS),
        (TASKS, OBJECTIVES),
        (TASKS, get_args(TaskName)),
        (TASKS, _OUTPUT_SHAPES),
        (TASKS, OUTPUTS),
        (TASKS, MADE_UP_TARGETS),
        (SAMPLERS, tuning_tables._SAMPLERS),
        (PRUNERS, tuning_tables._PRUNERS),
        ((*get_args(Unit), "percent"), (*numbers._VALUES, "seconds")),
        ((*get_args(Unit), "percent", "epochs", "logits"), numbers._SCALES),
        ((*get_args(Failure), None), FAILURES),
        (Verdict, VERDICT_WORDS),
        (Outcome, _IS_RESULT),
        ((*Outcome, "pruned"), get_args(TuningTrial.__annotations__["outcome"])),
        (get_args(TuningTrial.__annotations__["outcome"]), STATES),
    ],
    ids=lambda names: ",".join(map(str, names))[:60],
)
def test_names_that_layers_keep_apart_are_the_same(names: Collection[Any], table: Collection[Any]) -> None:
    assert set(names) == set(table)


@pytest.mark.parametrize("name", METRICS)
def test_tuning_looks_at_what_the_metric_says(name: str) -> None:
    objective, direction = objective_of(name, "classification")

    assert METRICS[name].tuned_by == objective
    assert direction == {"loss": "minimize", "accuracy": "maximize"}[objective]


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, name) for kind in sorted({*sections(Section)}, key=repr) for name in kind.model_fields],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_meaning_that_lists_the_names_of_a_choice_lists_them_all(kind: type[Section], field: str) -> None:
    words = set(re.findall(r"[\w-]+", kind.model_fields[field].description or ""))
    names = {str(name) for name in literals(kind.model_fields[field].rebuild_annotation())}

    assert len(words & names) < 2 or names <= words


def test_every_figure_that_can_be_drawn_has_a_name_and_a_place_in_the_report() -> None:
    modules = [
        importlib.import_module(f"{figures.__name__}.{one.name}") for one in pkgutil.iter_modules(figures.__path__)
    ]
    drawn = {
        made for module in modules for name, made in vars(module).items() if re.fullmatch("[a-z].*_drawings", name)
    }
    template = (Path(figures.__path__[0]).parent / "templates" / "report.md.jinja").read_text(encoding="utf-8")
    shown = re.findall(r"pictures\(figures[.\[\"]+([\w-]+)", template)

    assert drawn == set(figures.KINDS.values())
    assert set(figures.KINDS) - {"forest-column"} == set(shown)  # that one is for papers


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("study", "executor", [f"{name}:WHERE" if kind.package else name for name, kind in EXECUTORS.items()]),
        ("summarize", "form", ("terminal", *FORMATS)),
    ],
)
def test_the_command_line_offers_what_is_implemented(command: str, option: str, names: Collection[str]) -> None:
    kind = next(one.type for one in main.commands[command].params if one.name == option)
    choice = getattr(kind, "_inner", kind)

    assert isinstance(choice, click.Choice)
    assert set(names) == set(choice.choices)


@pytest.mark.parametrize("name", built_in_names("data"))
def test_every_data_set_that_the_schema_offers_has_a_source(name: str, tmp_path) -> None:
    source = _source(DataSettings(name=name, root=str(tmp_path)), cache=tmp_path, code=NO_FOLDERS, division=Division())

    assert source.name == name


@pytest.mark.parametrize("section", SECTIONS)
def test_built_in_names_of_a_section_are_those_of_its_classes(section: str) -> None:
    tagged = {name for kind in SECTIONS[section][:-1] for name in offered().get(f"{kind.__name__}.name", ())}

    assert tagged == {name for name in built_in_names(section) if not name.endswith(":NAME")}
