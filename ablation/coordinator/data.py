"""Prepares the data sets of a study's variants, and sees that what differs in their data can be compared."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ablation.coordinator.planning import NO_DATA
from ablation.datasets import Dataset, describe, make_split, outline_of, prepare
from ablation.errors import DataIncomparable
from ablation.records import DATA, DataFacts, DataOutline, DataSettings, OtherData, Variant
from ablation.storage.state import State
from ablation.study import Study

_NO_OUTLINE = DataOutline(shape=NO_DATA.shape, train_images=0, test_images=0)
Datasets = Mapping[str, Dataset]
"""Prepared data sets by the `source` of the sections that they are read for."""


def prepare_data(study: Study, state: State) -> Datasets:
    """Prepare each data set that a variant is trained on, once, its splits checked.

    There is none where a training function reads its own.

    Raises:
        DataIncomparable: variants would be tested on other targets than the baseline, or the same data stands twice.
        DataUnavailable, DataInvalid, CodeInvalid.
    """
    datasets: dict[str, Dataset] = {}
    seed, replicates = study.spec.study_seed, study.variants[0].settings.replicates
    for section in _sections(study):
        dataset = datasets.get(section.source) or prepare(
            section, cache=state.data, code=study.code, study_seed=seed, replicates=replicates
        )
        datasets[section.source] = dataset
        make_split(dataset, section, study_seed=seed, seed=0, replicates=replicates)
    if len(datasets) > 1:
        check_comparable(study, outlines_of(datasets))
        _check_distinct(study, datasets)
    return datasets


def describe_data(study: Study, state: State) -> dict[str, DataOutline]:
    """Return the shape and size of each data set that a variant is trained on, by source, without preparing any.

    Raises:
        DataIncomparable, DataUnavailable, DataInvalid, CodeInvalid: see `prepare_data`.
    """
    sections = {section.source: section for section in reversed(_sections(study))}
    outlines = {
        source: describe(
            section,
            cache=state.data,
            code=study.code,
            study_seed=study.spec.study_seed,
            replicates=study.variants[0].settings.replicates,
            has_targets=len(sections) > 1,
        )
        for source, section in sections.items()
    }
    if len(outlines) > 1:
        check_comparable(study, outlines)
    return outlines


def other_data(study: Study, datasets: Datasets) -> tuple[OtherData, ...]:
    """Return the data sets beside the baseline's, each with the variants that are trained on it."""
    if len(datasets) < 2:
        return ()
    outlines = outlines_of(datasets)
    found: dict[str, OtherData] = {}
    for variant in study.variants[1:]:
        source = _source(variant)
        if source == _source(study.variants[0]):
            continue
        known = found.get(source)
        if known is None:
            remarks = tuple(_remarks(variant, _reference(variant, study), outlines))
            name = variant_data_text(variant, _reference(variant, study))
            known = OtherData(name=name, facts=datasets[source].facts, variants=(), remarks=remarks)
        found[source] = replace(known, variants=(*known.variants, variant.name))
    return tuple(found.values())


def outlines_of(datasets: Datasets) -> dict[str, DataOutline]:
    """Return the outlines of prepared data sets, with the digests of their targets."""
    return {source: outline_of(dataset, has_targets=True) for source, dataset in datasets.items()}


def data_differences(study: Study, outlines: Mapping[str, DataOutline]) -> list[str]:
    """Say of each data set beside the baseline's what its difference means for what is compared."""
    if len(outlines) < 2:
        return []
    others = first_of_data(study)[1:]
    return [remark for variant in others for remark in _remarks(variant, _reference(variant, study), outlines)]


def check_comparable(study: Study, outlines: Mapping[str, DataOutline]) -> None:
    """See that every variant is tested on the baseline's targets.

    Raises:
        DataIncomparable: one is not, and in what its targets differ.
    """
    for variant in study.variants[1:]:
        baseline = _reference(variant, study)
        own, mine = (outlines[_source(each)] for each in (variant, baseline))
        if own.shape.classes != mine.shape.classes or _tested(own) != _tested(mine):
            raise DataIncomparable(variant_data_text(variant, baseline), _target_differences(own, mine))
        is_folded = baseline.settings.replicates is not None
        if is_folded and (own.train_images, own.train_targets) != (mine.train_images, mine.train_targets):
            what = (
                "its targets are not those of the baseline's data, or stand in another order, so its folds are others"
            )
            raise DataIncomparable(variant_data_text(variant, baseline), what)
        if is_folded and own.train_groups != mine.train_groups:
            what = "its groups are not those of the baseline's data, so its folds are others"
            raise DataIncomparable(variant_data_text(variant, baseline), what)


def dataset_of(variant: Variant, datasets: Datasets) -> Dataset | None:
    """Return the data set that a variant is trained on, None where a training function reads its own."""
    return datasets.get(_source(variant))


def facts_of(variant: Variant, datasets: Datasets) -> DataFacts:
    """Return what is recorded of the data that a variant is trained on."""
    dataset = dataset_of(variant, datasets)
    return dataset.facts if dataset is not None else NO_DATA


def outline_for(variant: Variant, outlines: Mapping[str, DataOutline]) -> DataOutline:
    """Return the outline of the data that a variant is trained on; an empty one where a function reads its own."""
    return outlines.get(_source(variant), _NO_OUTLINE)


def first_of_data(study: Study) -> list[Variant]:
    """Return the first variant of each data set, the baseline first."""
    first: dict[str, Variant] = {}
    for variant in study.variants:
        first.setdefault(_source(variant), variant)
    return list(first.values())


def variant_data_text(variant: Variant, baseline: Variant) -> str:
    """Return `data.features few`: the arguments in which a variant's data differs from the baseline's.

    Of several data sets, their names come first: `photos, data.features few`.
    """
    own, base = (dict(each.settings.data.arguments) if each.settings.data else {} for each in (variant, baseline))
    names = [str(variant.levels[DATA])] if DATA in variant.levels else []
    is_one = variant.levels.get(DATA) == baseline.levels.get(DATA)
    changed = [f"data.{name} {own.get(name)}" for name in own if is_one and own[name] != base.get(name)]
    return ", ".join([*names, *changed])


def _reference(variant: Variant, study: Study) -> Variant:
    """Return the first variant on the same of several data sets, else the baseline."""
    return next(each for each in study.variants if each.levels.get(DATA) == variant.levels.get(DATA))


def _sections(study: Study) -> list[DataSettings]:
    return [variant.settings.data for variant in study.variants if variant.settings.data is not None]


def _source(variant: Variant) -> str:
    return variant.settings.data.source if variant.settings.data is not None else ""


def _check_distinct(study: Study, datasets: Datasets) -> None:
    """Refuse an argument that leaves the data the same, where nothing else reads it."""
    if study.is_own_training:
        return
    first: dict[str, Variant] = {}
    for variant in study.variants:
        twin = first.setdefault(datasets[_source(variant)].facts.digest, variant)
        if _source(twin) != _source(variant):
            names = [variant_data_text(one, other) for one, other in ((variant, twin), (twin, variant))]
            raise DataIncomparable(names[0], "", twin=names[1])


def _tested(outline: DataOutline) -> tuple[int, str]:
    """Return how many targets runs are tested on, and their digest; over folds all examples are tested on."""
    if not outline.test_images:
        return outline.train_images, outline.train_targets
    return outline.test_images, outline.test_targets


def _target_differences(own: DataOutline, mine: DataOutline) -> str:
    if (count := _tested(own)[0]) != (known := _tested(mine)[0]):
        return f"it has {count:,} test examples, and the baseline's data {known:,}"
    if own.shape.classes != mine.shape.classes:
        return f"it has {len(own.shape.classes)} classes, not those of the baseline's data"
    return "its test targets are not those of the baseline's data, or stand in another order"


def _remarks(variant: Variant, baseline: Variant, outlines: Mapping[str, DataOutline]) -> Iterator[str]:
    """Say where a seed does not train on, and hold out, the same examples as it does of the baseline's data."""
    own, mine = outlines[_source(variant)], outlines[_source(baseline)]
    named = variant_data_text(variant, baseline)
    if own.train_images != mine.train_images:
        counts = f"{own.train_images:,} training {own.shape.inputs}, the baseline's data {mine.train_images:,}"
    elif own.train_targets != mine.train_targets:
        counts = "other training targets than the baseline's data, or the same in another order"
    else:
        return
    yield (
        f"the data of {named} has {counts}: with the same seed other examples are held out for validation and come in "
        "another order, so a difference holds that too"
    )
