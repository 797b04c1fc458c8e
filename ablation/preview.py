"""Shows a study before it costs anything: its variants, what changed in each, its model's components, its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablation.coordinator.planning import data_remarks, measured_models, outline_of, trains_model
from ablation.errors import NoModel
from ablation.lookup import few
from ablation.records import (
    Component,
    DataOutline,
    DataShape,
    ModelSummary,
    Replicates,
    TaskName,
    same_starts_text,
    seeds_text,
)
from ablation.storage.state import State
from ablation.study import Study
from ablation.study.labels import file_labels

if TYPE_CHECKING:
    from ablation.analysis.power import QuestionPower
    from ablation.datasets import SplitSizes
    from ablation.models import ModelChanges
    from ablation.report.table import Table

MOST_NAMED = 4
"""Parts of a model that are named of those that changed alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPreview:
    """A variant before anything is trained; `seconds` estimates one run of it, None where it was not measured.

    `changes` says what its model has lost and gained beside the baseline's, `label` what people call it.
    """

    name: str
    label: str
    levels: Mapping[str, Any]
    size: ModelSummary
    changes: ModelChanges
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPreview:
    """A data set that some variants are trained on instead of the baseline's; `name` says what is other in it."""

    name: str
    data: DataOutline
    splits: SplitSizes


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Preview:
    """A study before it costs anything; `data` is None where a user's training function reads its own.

    `splits` are what a run has of it, and `notes` say how it is found and read. `same_starts` are the variants whose
    models start from the same weights with every seed. `power` is what each comparison can find. `other_data` is what
    variants are trained on instead of the baseline's data.
    """

    study: Study
    variants: tuple[VariantPreview, ...]
    data: DataOutline | None
    splits: SplitSizes | None
    notes: tuple[str, ...]
    same_starts: tuple[str, ...] = ()
    power: tuple[QuestionPower, ...] = ()
    other_data: tuple[OtherPreview, ...] = ()

    @property
    def runs(self) -> int:
        """How many runs are compared at most: those up to the last look."""
        return len(self.variants) * self.study.spec.most_seeds

    @property
    def tuning_runs(self) -> int:
        """How many runs tuning trains at most, before any is compared."""
        tune = self.study.spec.tune
        return len(self.study.design_variants()) * tune.trials * tune.seeds if tune is not None else 0

    @property
    def seconds(self) -> float | None:
        """How long all runs take to train, one after the other; None where a variant was not timed."""
        return self.seconds_up_to(self.study.spec.most_seeds)

    def seconds_up_to(self, seeds: int) -> float | None:
        """Return how long so many seeds of every variant take to train, and the tuning before them."""
        known = [variant.seconds for variant in self.variants if variant.seconds is not None]
        if len(known) < len(self.variants):
            return None
        return sum(known) * seeds + sum(known) / len(known) * self.tuning_runs

    def __repr__(self) -> str:
        return f"<Preview {self.lines_above()[0]}>"

    def _repr_html_(self) -> str:
        from ablation.report.fragments import fragment

        return fragment([*self.lines_above(), *self.lines_below()], self.table())

    @property
    def replicates(self) -> Replicates | None:
        """The folds that take the place of seeds, where they do."""
        return self.study.variants[0].settings.replicates

    def lines_above(self) -> list[str]:
        """Return what stands above the table: how many runs, and the data they are trained on."""
        looks, variants = self.study.spec.looks, len(self.variants)
        counts = " to ".join(str(variants * seeds) for seeds in sorted({looks[0], looks[-1]}))
        each = self.replicates or seeds_text(looks)
        first = f"{self.study.name}: {variants} variants × {each} = {counts} runs"
        return [first, *_data_lines(self)]

    def table(self) -> Table:
        """Return a row per variant: its size, time and changes, as far as there are any."""
        from ablation.report.table import Table

        is_changed = any(variant.changes.gone or variant.changes.replaced for variant in self.variants)
        is_measured = any(variant.size.layers for variant in self.variants)
        noun = self.data.shape.inputs.removesuffix("s") if self.data is not None else "image"
        sizes = ("parameters", f"FLOPs per {noun}") if is_measured else ()
        is_timed = any(variant.seconds is not None for variant in self.variants)
        times = ("time per run",) if is_timed else ()
        changes = ("changes",) if is_changed else ()
        head = ("variant", *changes, *sizes, *times)
        rows = tuple(_row(variant, self, is_measured, is_timed, is_changed) for variant in self.variants)
        return Table(head=head, rows=rows, text_columns=1 + len(changes))

    def lines_below(self) -> list[str]:
        """Return what stands below the table: tuning, what the seed does not change, the time, and what is found."""
        from ablation.report.power_text import power_lines

        lines = _tuning_lines(self)
        if self.same_starts:
            lines += [f"{same_starts_text(self.same_starts)}."]
        found = power_lines(self.power, questions=len(self.study.questions), is_folded=self.replicates is not None)
        return [*lines, *_time_lines(self), *found]


def preview_study(
    study: Study, *, state: State, device: str | None, noise: Mapping[str, float] | None = None
) -> Preview:
    """Count a study's parameters and FLOPs, say what it can find, and time a few steps where a device is given.

    `noise` is the SD of one variant's runs from seed to seed, by metric and in its unit.

    It reads of the data set only what it must to know its shape and size, and writes nothing. A training function of
    the user's is not timed.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid, CodeInvalid, VariantFails, VariantsAlike, DeviceUnavailable: the
            study cannot run here.
    """
    from ablation.analysis import StudyLooks
    from ablation.analysis.power import power_of
    from ablation.coordinator.data import data_differences, describe_data, outline_for
    from ablation.datasets import split_sizes
    from ablation.worker import needs_trying, try_metrics, try_variant

    data = study.variants[0].settings.data
    outlines = describe_data(study, state)
    outline = outline_for(study.variants[0], outlines)
    for one in outlines.values() or [outline]:
        try_metrics(study.spec.own_metrics, one.shape, targets=None, code=study.code)
    same_starts = tuple(
        variant.name
        for variant in study.design_variants()
        if needs_trying(variant.settings)
        and try_variant(
            variant,
            outline_for(variant, outlines).shape,
            dataset=None,
            code=study.code,
            study=study.name,
            tuned_by=study.tuned_by,
        )
    )
    return Preview(
        study=study,
        variants=_variants(study, outlines, device=device),
        data=outline if data is not None else None,
        splits=split_sizes(outline, data, study.variants[0].settings.replicates) if data is not None else None,
        other_data=_other_data(study, outlines),
        notes=(*data_remarks(study), *outline.notes, *data_differences(study, outlines)),
        same_starts=same_starts,
        power=power_of(StudyLooks.of(outline_of(study), ()), noise=noise),
    )


def _other_data(study: Study, outlines: Mapping[str, DataOutline]) -> tuple[OtherPreview, ...]:
    """Return the data sets beside the baseline's, each by what is other in it."""
    from ablation.coordinator.data import first_of_data, outline_for, variant_data_text
    from ablation.datasets import split_sizes

    baseline, *others = first_of_data(study)
    return tuple(
        OtherPreview(
            name=variant_data_text(variant, baseline),
            data=(outline := outline_for(variant, outlines)),
            splits=split_sizes(outline, variant.settings.data, variant.settings.replicates),
        )
        for variant in others
        if variant.settings.data is not None
    )


def _variants(study: Study, outlines: Mapping[str, DataOutline], *, device: str | None) -> tuple[VariantPreview, ...]:
    from ablation.coordinator.data import outline_for
    from ablation.models import model_changes
    from ablation.worker import estimate_seconds

    sizes = measured_models(study, lambda variant: outline_for(variant, outlines).shape)
    labels = file_labels(study.spec.document(), study.variants)
    is_timed = device is not None and not study.is_own_training
    return tuple(
        VariantPreview(
            name=variant.name,
            label=labels.variant(variant.name),
            levels=variant.levels,
            size=sizes[variant.name],
            changes=model_changes(sizes[study.variants[0].name], sizes[variant.name]),
            seconds=estimate_seconds(variant.settings, outline_for(variant, outlines), device=device, code=study.code)
            if is_timed and device is not None
            else None,
        )
        for variant in study.variants
    )


def study_components(study: Study, *, state: State) -> tuple[Component, ...]:
    """Return the modules of the baseline's model: what each costs, and whether it can be removed.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid, CodeInvalid: the model cannot be built for the study's data.
        NoModel: none is built, as a user's training function makes its own.
    """
    from ablation.datasets import describe
    from ablation.models import build_model, list_components

    settings = study.variants[0].settings
    model = settings.model
    if model is None or settings.data is None or not trains_model(study):
        raise NoModel(study.name)
    outline = describe(
        settings.data,
        cache=state.data,
        code=study.code,
        study_seed=settings.study_seed,
        replicates=settings.replicates,
    )
    shape = outline.shape
    return list_components(lambda: build_model(model, shape, code=study.code), shape)


def _row(
    variant: VariantPreview, preview: Preview, is_measured: bool, is_timed: bool, is_changed: bool
) -> tuple[str, ...]:
    mark = " (baseline)" if variant is preview.variants[0] else ""
    return (
        f"{variant.label}{mark}",
        *((_changes_text(variant.changes),) if is_changed else ()),
        *((_parameters_text(variant.size), f"{variant.size.flops:,}") if is_measured else ()),
        *((_time_text(variant.seconds),) if is_timed else ()),
    )


def _parameters_text(size: ModelSummary) -> str:
    trained = f" ({size.trainable:,} trained)" if size.trainable is not None else ""
    return f"{size.parameters:,}{trained}"


def _time_text(seconds: float | None) -> str:
    from ablation.report.numbers import duration_text

    return f"about {duration_text(seconds)}" if seconds is not None else ""


def _changes_text(changes: ModelChanges) -> str:
    """Return `without blocks.block2, -18,496 parameters, -294,912 FLOPs`; long lists are cut."""
    said = [
        *([f"without {few(changes.gone, most=MOST_NAMED)}"] if changes.gone else []),
        *([f"with {few(changes.new, most=MOST_NAMED)}"] if changes.new else []),
        *([few(_replaced_texts(changes), most=MOST_NAMED)] if changes.replaced else []),
    ]
    if said and changes.parameters:
        said.append(f"{changes.parameters:+,} parameters")
    if said and changes.flops:
        said.append(f"{changes.flops:+,} FLOPs")
    return ", ".join(said)


def _replaced_texts(changes: ModelChanges) -> list[str]:
    """Return each replacement by name, or how many there are of a kind where they are many."""
    kinds = Counter((before, after) for _, before, after in changes.replaced)
    if len(changes.replaced) > MOST_NAMED:
        return [f"{count} × {before} → {after}" for (before, after), count in kinds.items()]
    return [f"{name} {before} → {after}" for name, before, after in changes.replaced]


def _data_lines(preview: Preview) -> list[str]:
    """Return how many inputs each split has and of what size, and what there is to know of how they are read."""
    data, splits, section = preview.data, preview.splits, preview.study.spec.data
    if data is None or splits is None or section is None:
        return []
    others = (f"{other.name}: {_data_text(other.data, other.splits)}" for other in preview.other_data)
    return [
        f"{_data_name(preview) or section.name}: {_data_text(data, splits)}",
        *others,
        *(f"  {note}" for note in preview.notes),
    ]


def _data_name(preview: Preview) -> str:
    """Return what the baseline's data set is called where there are several."""
    return next(iter(preview.study.spec.data_sets), "")


def _data_text(data: DataOutline, splits: SplitSizes) -> str:
    held_out = f", {splits.validation:,} for validation" if splits.validation else ""
    counts = f"{splits.train:,} {data.shape.inputs} to train on{held_out} and {splits.test:,} to test"
    inputs = shape_text(data.shape.features or (data.shape.height, data.shape.width, data.shape.channels))
    targets = TARGETS_TEXTS[data.shape.task](data.shape)
    ids = f" ids below {data.shape.vocabulary:,}" if data.shape.vocabulary else ""
    return f"{counts}; {targets}, {inputs}{ids}"


def _classes_text(shape: DataShape) -> str:
    return f"{len(shape.classes)} classes"


def _numbers_text(shape: DataShape) -> str:
    return f"targets: {shape.outputs} number{'s' * (shape.outputs != 1)}"


def _labels_text(shape: DataShape) -> str:
    return f"{len(shape.classes)} label{'s' * (len(shape.classes) != 1)}, each 0 or 1"


TARGETS_TEXTS: Mapping[TaskName, Callable[[DataShape], str]] = {
    "classification": _classes_text,
    "regression": _numbers_text,
    "multilabel": _labels_text,
    "tokens": lambda shape: f"{_classes_text(shape)}, sequences of {shape.target_shape[0]} tokens",
    "segmentation": lambda shape: f"{_classes_text(shape)} of pixels",
}
"""What a data set's targets are, in words, by task."""


def _tuning_lines(preview: Preview) -> list[str]:
    tune = preview.study.spec.tune
    if tune is None:
        return []
    each = f"{tune.trials} trials" + (f" of {tune.seeds} seeds" if tune.seeds > 1 else "")
    return [
        f"Before that, tuning: {each} of each variant over {', '.join(sorted(tune.spaces))}, on validation; "
        f"at most {preview.tuning_runs} runs."
    ]


def _time_lines(preview: Preview) -> list[str]:
    """Return how long training takes, from the first look to the last where there are several."""
    from ablation.report.numbers import duration_text

    looks = preview.study.spec.looks
    times = [preview.seconds_up_to(seeds) for seeds in (looks[0], looks[-1])]
    texts = dict.fromkeys(duration_text(seconds) for seconds in times if seconds is not None)
    if not texts:
        return []
    return [
        f"About {' to '.join(texts)} of training, one run after the other; workers share it.",
        *_budget_lines(preview),
    ]


def _budget_lines(preview: Preview) -> list[str]:
    """Return which look is the last to fit into the file's budget, where it has one."""
    from ablation.report.numbers import duration_text

    budget, looks = preview.study.spec.budget, preview.study.spec.looks
    if budget is None:
        return []
    fitting = [seeds for seeds in looks if (preview.seconds_up_to(seeds) or 0.0) <= budget.seconds]
    fits = f"up to {fitting[-1]} of {looks[-1]} seeds" if fitting else f"not even the {looks[0]} seeds to begin with"
    return [f"The budget of {duration_text(budget.seconds)} fits {fits}, one run after the other."]


def shape_text(shape: tuple[int, ...] | None) -> str:
    """Return `3×32×32`, nothing where there is no shape."""
    return "×".join(map(str, shape)) if shape else ""
