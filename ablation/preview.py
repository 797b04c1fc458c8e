"""Shows a study before it costs anything: its variants, what changed in each, its model's components, its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablation.coordinator.planning import NO_DATA, data_remarks, measured_models
from ablation.errors import NoModel
from ablation.records import Component, DataOutline, ModelSummary
from ablation.storage.state import State
from ablation.study import Study

if TYPE_CHECKING:
    from ablation.datasets import SplitSizes
    from ablation.models import ModelChanges


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPreview:
    """A variant before anything is trained; `seconds` estimates one run of it, None where it was not measured.

    `changes` says what its model has lost and gained beside the baseline's.
    """

    name: str
    levels: Mapping[str, Any]
    size: ModelSummary
    changes: ModelChanges
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A study before it costs anything; `data` is None where a training function of the user's reads its own.

    `splits` are what a run has of it, and `notes` say how it is found and read. `same_starts` are the variants whose
    models start from the same weights with every seed.
    """

    study: Study
    variants: tuple[VariantPreview, ...]
    data: DataOutline | None
    splits: SplitSizes | None
    notes: tuple[str, ...]
    same_starts: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        return len(self.variants) * self.study.spec.seeds

    @property
    def tuning_runs(self) -> int:
        """How many runs tuning trains at most, before any is compared."""
        tune = self.study.spec.tune
        return len(self.study.design_variants()) * tune.trials * tune.seeds if tune is not None else 0


def preview_study(study: Study, *, state: State, device: str | None) -> Preview:
    """Count a study's parameters and FLOPs, and time a few steps of each variant where a device is given.

    It reads of the data set only what it must to know its shape and size, and writes nothing. A training function of
    the user's is not timed.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid, CodeInvalid, VariantFails, VariantsAlike, DeviceUnavailable: the
            study cannot run here.
    """
    from ablation.datasets import split_sizes
    from ablation.worker import needs_trying, try_variant

    data = study.variants[0].settings.data
    outline = _outline(study, state)
    same_starts = tuple(
        variant.name
        for variant in study.design_variants()
        if needs_trying(variant.settings) and try_variant(variant, outline.shape, dataset=None, code=study.code)
    )
    return Preview(
        study=study,
        variants=_variants(study, outline, device=device),
        data=outline if data is not None else None,
        splits=split_sizes(outline, data) if data is not None else None,
        notes=(*data_remarks(study), *outline.notes),
        same_starts=same_starts,
    )


def _variants(study: Study, outline: DataOutline, *, device: str | None) -> tuple[VariantPreview, ...]:
    from ablation.models import model_changes
    from ablation.worker import estimate_seconds

    sizes = measured_models(study, outline.shape)
    is_timed = device is not None and not study.is_own_training
    return tuple(
        VariantPreview(
            name=variant.name,
            levels=variant.levels,
            size=sizes[variant.name],
            changes=model_changes(sizes[study.variants[0].name], sizes[variant.name]),
            seconds=estimate_seconds(variant.settings, outline, device=device, code=study.code)
            if is_timed and device is not None
            else None,
        )
        for variant in study.variants
    )


def study_components(study: Study, *, state: State) -> tuple[Component, ...]:
    """Return the modules of the baseline's model: what each costs, and whether it can be removed.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid, CodeInvalid: the model cannot be built for the study's data.
        NoModel: none is built, as a training function of the user's makes its own.
    """
    from ablation.models import build_model, list_components

    settings = study.variants[0].settings
    model = settings.model
    if settings.is_own_training or model is None or settings.data is None:
        raise NoModel(study.name)
    shape = _outline(study, state).shape
    return list_components(lambda: build_model(model, shape, code=study.code), shape)


def _outline(study: Study, state: State) -> DataOutline:
    from ablation.datasets import describe

    data = study.variants[0].settings.data
    if data is None:
        return DataOutline(shape=NO_DATA.shape, train_images=0, test_images=0)
    return describe(data, cache=state.data, code=study.code)
