"""Sees that a study can run here before anything is created: devices, storage, data, a batch of each variant."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from ablation.code import CarriedCode, check_packages
from ablation.coordinator.data import Datasets, dataset_of, facts_of, first_of_data, other_data, prepare_data
from ablation.coordinator.planning import data_remarks, plan_of
from ablation.coordinator.progress import Progress
from ablation.coordinator.request import Request
from ablation.datasets import Dataset
from ablation.records import DataFacts, OtherData, same_starts_text
from ablation.scheduling import check_storage, default_storage
from ablation.storage.temporary import remove_left_behind
from ablation.study import Study
from ablation.worker import check_device, device_remarks, needs_trying, try_metrics, try_variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A study that can run here; `same_starts` are the variants that start from the same weights with every seed.

    `datasets` are those of the study's variants; none where a training function reads its own data.
    """

    study: Study
    datasets: Datasets
    same_starts: tuple[str, ...]
    code: CarriedCode | None = None
    """The user's code, where it is brought to other machines."""

    @property
    def facts(self) -> DataFacts:
        return facts_of(self.study.variants[0], self.datasets)

    @property
    def other_data(self) -> tuple[OtherData, ...]:
        return other_data(self.study, self.datasets)


def prepare_study(request: Request) -> Generator[Progress, None, Prepared]:
    """Check a study's devices and stores, prepare its data, and try each variant that may fail on one batch."""
    study, slots = request.study, request.executor.slots
    for check in required_of_nodes(study, is_here=request.executor.is_here):
        request.executor.require(check)
    code = None if request.executor.is_here else carried_code(study)
    request.state.make()
    check_storage(request.storage_url, is_rebuilt=request.storage_url == default_storage(request.state.folder))
    datasets = prepare_data(study, request.state)
    notes = dict.fromkeys(note for dataset in datasets.values() for note in dataset.facts.notes)
    others = (remark for other in other_data(study, datasets) for remark in other.remarks)
    for remark in (*device_remarks(study.variants, slots), *data_remarks(study), *notes, *others):
        yield request.note(remark)
    same_starts = yield from _tried(request, datasets)
    prepared = Prepared(study=study, datasets=datasets, same_starts=same_starts, code=code)
    if request.is_fresh:
        plan_of(
            study, data=prepared.facts, other_data=prepared.other_data
        )  # what cannot be planned is refused before anything is deleted
    remove_left_behind()
    for remark in request.tracker.remarks(study.name):
        yield request.note(remark)
    return prepared


def required_of_nodes(study: Study, *, is_here: bool) -> tuple[Callable[[str], object], ...]:
    """Return what is to be checked of each device that trains a study's runs, where it is.

    Other machines must have the packages that the user's code imports, too.
    """
    names = study.code_names()
    packages = () if is_here or not names else (partial(check_packages, study.code.packages(names)),)
    return (partial(check_device, study.variants), *packages)


def carried_code(study: Study) -> CarriedCode | None:
    """Return the user's code as it is brought to other machines; None where there is none.

    Raises:
        CodeInvalid: it cannot be brought there.
    """
    names = study.code_names()
    return study.code.carried(names) if names else None


def _tried(request: Request, datasets: Datasets) -> Generator[Progress, None, tuple[str, ...]]:
    """Try the variants that are more than the built-in model; return those that start alike with every seed."""
    study = request.study
    tried = [variant for variant in study.design_variants() if needs_trying(variant.settings)]
    for variant in first_of_data(study):
        dataset, shape = dataset_of(variant, datasets), facts_of(variant, datasets).shape
        targets = _targets(dataset) if dataset is not None else None
        try_metrics(study.spec.own_metrics, shape, targets=targets, code=study.code)
    if tried:
        yield request.note(f"trying {len(tried)} variants on one batch each")
    alike = tuple(
        variant.name
        for variant in tried
        if try_variant(
            variant,
            facts_of(variant, datasets).shape,
            dataset=dataset_of(variant, datasets),
            code=study.code,
            study=study.name,
            tuned_by=study.tuned_by,
        )
    )
    if alike:
        yield request.note(same_starts_text(alike))
    return alike


def _targets(dataset: Dataset) -> NDArray[Any]:
    """Return targets as metrics are measured on."""
    targets: NDArray[Any] = dataset.test_labels if len(dataset.test_labels) else dataset.train_labels
    return targets
