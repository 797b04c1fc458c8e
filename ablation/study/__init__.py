"""From a study file and the command line's overrides to a checked study: its settings, variants and runs."""

import hashlib
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablation.code import NO_FOLDERS, CodeFolders, code_names, metric_code_names
from ablation.errors import AblationError, Problem, SettingsForeign, StudyFileError
from ablation.lookup import differences, flatten, is_same, replaced
from ablation.records import DATA, Locked, PlannedRun, Variant
from ablation.study.checks.baseline import setting
from ablation.study.checks.design import asked_factors
from ablation.study.checks.factors import whole_settings
from ablation.study.checks.whole import check
from ablation.study.data_sets import is_list_of_data, with_first_data
from ablation.study.design import asked_questions, make_variant, variants_of
from ablation.study.factors import labelled_level, labels_by_level, recipe_of
from ablation.study.file import (
    MAX_BYTES,
    MAX_DEPTH,
    Document,
    Location,
    document_of,
    is_unicode,
    location_of,
    path_of,
    read_document,
    read_value,
    value_text,
)
from ablation.study.identity import locked_hash, run_identity
from ablation.study.level_names import level_text
from ablation.study.spec import (
    FIXED,
    MAX_NAME,
    NAME_CHARACTERS,
    Question,
    StudySpec,
    filled,
    recipe_fields,
)

__all__ = [
    "Override",
    "Question",
    "Study",
    "StudySpec",
    "Variant",
    "load_study",
    "locked_hash",
    "overrides_of",
    "parse_override",
    "parse_study",
    "read_value",
    "study_of_values",
]

NO_OTHERS: Mapping[str, str] = {}
FROM_MAPPING = "the study given as a mapping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One change to a study file made from outside; `value` is plain, as YAML gives it."""

    path: str
    value: Any


def overrides_of(changes: Mapping[str, Any]) -> list[Override]:
    """Return changes by their paths, as Python has them.

    Raises:
        StudyFileError: a value is none that a study file can hold.
    """
    plain = document_of(changes, source="set").values
    return [Override(path=path, value=value) for path, value in plain.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A checked study and its variants, the baseline first; `code` is where the user's own code is looked for.

    `digests` keeps those of the user's code as it was when they were first asked for: what is edited later is found.
    """

    spec: StudySpec
    variants: tuple[Variant, ...]
    code: CodeFolders = NO_FOLDERS
    digests: dict[tuple[str, ...], str | None] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def is_own_training(self) -> bool:
        """Whether a user's training function trains."""
        return self.variants[0].settings.is_own_training

    @property
    def questions(self) -> tuple[Question, ...]:
        """The file's questions, or what its design is for; by default one per factor, its effect on the metric."""
        return asked_questions(self.spec)

    def locked(self) -> Locked:
        """Return what the answers depend on and is decided before the first run, the default questions written out."""
        return Locked(
            seeds=self.spec.most_seeds,
            looks=self.spec.looks if len(self.spec.looks) > 1 else (),
            seed_indices=self.spec.seeds if isinstance(self.spec.seeds, tuple) else (),
            replicates=self.spec.replicates.record if self.spec.replicates is not None else None,
            metric=self.spec.metric.locked(),
            alpha=self.spec.alpha,
            collapse_margin=self.spec.collapse_margin,
            questions=tuple(question.locked() for question in self.questions),
        )

    def design_variants(self) -> tuple[Variant, ...]:
        """Return the design's variants with the file's settings, by the names that they are tuned under."""
        return variants_of(self.spec.model_copy(update={"tune": None}))

    @property
    def tuned_by(self) -> str | None:
        """What a user's training function is tuned by; None where nothing is, or the engine trains."""
        found = self.spec.validation_metric if self.spec.tune is not None else None
        return found[0] if found is not None else None

    def whole_settings(self) -> frozenset[str]:
        """Return the tuned settings that are whole numbers."""
        return (
            whole_settings(self.spec.settings().plain(), self.spec.tune) if self.spec.tune is not None else frozenset()
        )

    def with_settings(self, variant: Variant, settings: Mapping[str, Any]) -> Variant:
        """Return one of the design's variants with other settings, by their paths."""
        return make_variant(self.spec, variant.name, variant.levels, is_baseline=variant.is_baseline, tuned=settings)

    def tuned(self, found: Mapping[str, Mapping[str, Any]]) -> "Study":
        """Return the study with the settings found for each variant, by its name in the design.

        Raises:
            SettingsForeign: a setting is none that the study tunes, or has a value outside its space. They are read
                from a tracker, and no name of code may reach a run from there.
        """
        spaces = self.spec.tune.spaces if self.spec.tune is not None else {}
        for variant, settings in found.items():
            wrong = [path for path, value in settings.items() if path not in spaces or not spaces[path].holds(value)]
            if wrong:
                raise SettingsForeign(self.name, variant, wrong)
        return replace(self, variants=variants_of(self.spec, tuned=found))

    def runs(self, *, data_digest: str, others: Mapping[str, str] = NO_OTHERS) -> tuple[PlannedRun, ...]:
        """Return the runs up to the last look: a whole round of variants for one seed before the next seed's.

        `others` are the digests of other data, by the names of the variants that are trained on it.
        """
        return tuple(
            PlannedRun(
                identity=self.identity(variant, data_digest=others.get(variant.name, data_digest), seed=seed),
                variant=variant.name,
                seed=seed,
            )
            for seed in self.spec.seed_indices
            for variant in self.variants
        )

    def identity(self, variant: Variant, *, data_digest: str, seed: int) -> str:
        """Return the identity of a variant's run, with the digest of user code that it names."""
        digest = self.code_digest(variant)
        return run_identity(variant.configuration, data_digest=data_digest, seed=seed, code_digest=digest)

    def code_names(self) -> set[str]:
        """Return the user's own code that the study names: what its runs are trained with and measured by."""
        of_variants = {name for variant in self.variants for name in code_names(variant.settings)}
        return of_variants | set(metric_code_names(self.spec.own_metrics))

    def code_digest(self, variant: Variant) -> str | None:
        """Return the digest of user code that a variant names, None where it names none."""
        return self._digest(code_names(variant.settings))

    def metric_digest(self) -> str | None:
        """Return the digest of all user code that metrics name, None where there is none."""
        return self._digest(metric_code_names(self.spec.own_metrics))

    def metric_digests(self) -> dict[str, str]:
        """Return the digest of the user's code behind each metric, by name, of those that have any."""
        found = {each.name: self._digest(metric_code_names([each])) for each in self.spec.own_metrics}
        return {name: digest for name, digest in found.items() if digest is not None}

    def _digest(self, code: Sequence[str]) -> str | None:
        names = tuple(code)
        if names not in self.digests:
            self.digests[names] = self.code.digest(names)
        return self.digests[names]


def load_study(
    path: Path,
    *,
    overrides: Sequence[Override] = (),
    levels: Mapping[str, Sequence[Any]] | None = None,
    name: str | None = None,
) -> Study:
    """Read and check a study file; see `parse_study`.

    Raises:
        StudyFileError: with every problem of the file and of the overrides.
        AblationError: the file cannot be read.
    """
    content = _content(path)
    code = CodeFolders(folders=tuple(dict.fromkeys((path.resolve().parent, Path.cwd()))))
    return parse_study(content, source=str(path), overrides=overrides, levels=levels, name=name, code=code)


def _content(path: Path) -> bytes:
    """Return what a study file holds, up to a byte more than it may; a pipe or a device might never end."""
    try:
        if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
            raise AblationError(f"cannot read the study file {path}: it is a pipe or a device; save it as a file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except ValueError:
        raise AblationError(f"cannot read the study file {path}: a path has no NUL") from None
    except OSError as error:
        raise AblationError(f"cannot read the study file {path}: {error.strerror}") from None


def parse_study(
    content: bytes,
    *,
    source: str,
    overrides: Sequence[Override] = (),
    levels: Mapping[str, Sequence[Any]] | None = None,
    name: str | None = None,
    code: CodeFolders = NO_FOLDERS,
) -> Study:
    """Check the content of a study file with overrides, and with other levels of some factors.

    `levels` replaces a factor's levels by its path. One level sets the baseline's and makes it a factor no more; where
    the baseline's level is not among several, the first becomes the baseline's.

    Overrides that change the fixed part (baseline, data, training, metric) make a study of its own, named after them:
    `quick` with `training.epochs=1` is `quick+training.epochs=1`, unless `name` says otherwise.

    Raises:
        StudyFileError: with every problem found.
    """
    document = read_document(content, source=source)
    return _checked_study(document, source=source, overrides=overrides, levels=levels or {}, name=name, code=code)


def study_of_values(values: Mapping[str, Any], *, overrides: Sequence[Override] = (), name: str | None = None) -> Study:
    """Check a study that is given as plain values; code is looked for in the working directory; see `parse_study`.

    Raises:
        StudyFileError: with every problem found.
    """
    document = document_of(values, source=FROM_MAPPING)
    code = CodeFolders(folders=(Path.cwd(),))
    return _checked_study(document, source=FROM_MAPPING, overrides=overrides, levels={}, name=name, code=code)


def _checked_study(
    document: Document,
    *,
    source: str,
    overrides: Sequence[Override],
    levels: Mapping[str, Sequence[Any]],
    name: str | None,
    code: CodeFolders,
) -> Study:
    overrides = [*overrides, *([Override(path="name", value=name)] if name is not None else [])]
    paths = [override.path for override in overrides]
    values = _changed(document.values, overrides, levels)
    factors = [*levels, *(f"factors.{factor}" for factor in levels)]
    changed = [location_of(path) for path in (*paths, *factors)]
    lines = _without(changed, document.lines)
    spec, variants = check(values, source=source, lines=lines, problems=document.problems, code=code)
    if (overrides or levels) and "name" not in paths:
        renaming_nothing = [override for override in overrides if not _may_rename(override)]
        originals = [document.values, _changed(document.values, renaming_nothing, {})]
        spec = spec.model_copy(update={"name": _name_of_its_own(spec, originals, code)})
    return Study(spec=spec, variants=variants, code=code)


def parse_override(text: str) -> Override:
    """Read `PATH=VALUE`.

    Raises:
        StudyFileError: the text has another form.
    """
    path, equals, value = text.partition("=")
    try:
        if not equals or not path.strip():
            raise ValueError("must be PATH=VALUE, such as training.epochs=5")
        if not is_unicode(path):
            raise ValueError("is not Unicode text")
        return Override(path=path.strip(), value=read_value(value))
    except ValueError as error:
        raise StudyFileError("--set", [Problem(message=str(error), path=path_of((text,)))]) from None


def _changed(
    values: Mapping[str, Any], overrides: Sequence[Override], levels: Mapping[str, Sequence[Any]]
) -> Mapping[str, Any]:
    for override in overrides:
        location = location_of(override.path)
        if len(location) > MAX_DEPTH:
            problem = Problem(message=f"is more than {MAX_DEPTH} levels deep", path=path_of((override.path,)))
            raise StudyFileError("--set", [problem])
        values = _replaced(values, location, override)
    for path, chosen in levels.items():
        values = _with_levels(values, path, chosen)
    return values


def _without(changed: Sequence[Location], lines: Mapping[Location, int]) -> dict[Location, int | None]:
    """Return the lines of a file, None where the value is not the file's any more."""
    kept = {
        location: None if any(location[: len(other)] == other for other in changed) else line
        for location, line in lines.items()
    }
    return {**kept, **dict.fromkeys(changed)}


def _replaced(values: Any, location: Location, override: Override) -> Any:
    """Return plain values with the one at a location replaced, its parents made where absent."""
    if not location:
        return override.value
    key, *rest = location
    if isinstance(key, str) and isinstance(values, list) and values:
        message = f"is a list in the study file; say which of it is meant, such as {override.path.partition('.')[0]}[0]"
        raise StudyFileError("--set", [Problem(message=message, path=override.path)])
    if isinstance(key, str):
        mapping = _mapping(values)
        return {**mapping, key: _replaced(mapping.get(key), tuple(rest), override)}
    if not isinstance(values, list) or key >= len(values):
        raise StudyFileError("--set", [Problem(message="the study file has no such item", path=override.path)])
    return [*values[:key], _replaced(values[key], tuple(rest), override), *values[key + 1 :]]


def _with_levels(values: Mapping[str, Any], path: str, levels: Sequence[Any]) -> Mapping[str, Any]:
    factors = _mapping(values.get("factors"))
    each = _settings_of_levels(factors, path, levels)
    if len(levels) != 1:
        first = {} if not each or any(_has(values, settings) for settings in each) else each[0]
        return {**_with(values, first), "factors": {**factors, path: _chosen_levels(factors.get(path), levels)}}
    left = {name: factor for name, factor in factors.items() if name != path}
    fixed = {**_with(values, each[0]), "factors": left}
    questions = values.get("questions")
    if not isinstance(questions, list):
        return fixed
    return {**fixed, "questions": [question for question in questions if path not in asked_factors(question)]}


def _settings_of_levels(factors: Mapping[str, Any], name: str, levels: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return what each chosen level of a factor sets, by paths."""
    recipe = recipe_of(factors.get(name))
    if recipe is None:
        return [{name: level} for level in levels]
    for level in levels:
        if level not in recipe:
            message = f"{value_text(level)} is none of its levels: {', '.join(map(value_text, recipe))}"
            raise StudyFileError(f"the levels of {name}", [Problem(message=message, path=path_of(("factors", name)))])
    return [_mapping(recipe[level]) for level in levels]


def _has(values: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether the file has these settings, or they are none that it could have, which is told later."""
    values = with_first_data(values)
    fields = recipe_fields(values)
    known = {path: fields[path] for path in settings if path in fields}
    return len(known) < len(settings) or all(
        is_same(setting(filled(values), path, field), settings[path]) for path, field in known.items()
    )


def _with(values: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    for path, value in settings.items():
        section, _, key = path.partition(".")
        if section == DATA and is_list_of_data(values):
            values = {**values, DATA: [replaced(each, key, value) for each in values[DATA]]}
        else:
            values = replaced(values, path, value)
    return values


def _chosen_levels(factor: Any, levels: Sequence[Any]) -> Any:
    """Return a factor with other levels, or only some levels of a recipe."""
    recipe = recipe_of(factor)
    chosen = list(levels) if recipe is None else {level: recipe[level] for level in levels}
    return _labelled_levels(factor, chosen) if isinstance(factor, Mapping) and "levels" in factor else chosen


def _labelled_levels(before: Mapping[str, Any], levels: Any) -> Any:
    """Return a factor's new levels, with what is left of its labels."""
    former = labels_by_level(before.get("labels"), [*_levels_in(before)])
    labels = {key: label for key, label in former.items() if labelled_level(key, [*levels])}
    return {**before, "levels": levels, "labels": labels}


def _levels_in(factor: Mapping[str, Any]) -> Sequence[Any]:
    levels = factor.get("levels")
    return [*levels] if isinstance(levels, list | tuple | Mapping) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _may_rename(override: Override) -> bool:
    """Say whether an override may touch the fixed part; where the data is kept is no part of it."""
    section = override.path.partition(".")[0]
    return override.path != "data.root" and section in FIXED


def _name_of_its_own(spec: StudySpec, originals: Sequence[Mapping[str, Any]], code: CodeFolders) -> str:
    """Return the study's name with each setting of the fixed part that the first valid original has otherwise.

    What no name may have (`/` leads to another folder) becomes `-`, and a digest keeps apart what is alike then.
    """
    before = next(filter(None, (_checked(values, code) for values in originals)), spec)
    if not differences(before.fixed(), spec.fixed()):
        return spec.name
    then, now = (dict(flatten(each.model_dump(mode="json", include=set(FIXED)))) for each in (before, spec))

    def changed_among(fixed: Mapping[str, Any]) -> list[str]:
        return sorted(path for path, _ in flatten(fixed) if path in now and not is_same(now[path], then.get(path)))

    # A setting put back to a default that stands in no identity is in the fixed part of before alone.
    changed = changed_among(spec.fixed()) or changed_among(before.fixed())
    name = "+".join([spec.name, *(f"{path}={level_text(now[path])}" for path in changed)])
    safe = re.sub(f"[^{NAME_CHARACTERS}]", "-", name)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name if safe == name and len(name) <= MAX_NAME else f"{safe[: MAX_NAME - 9]}-{digest}"


def _checked(values: Mapping[str, Any], code: CodeFolders) -> StudySpec | None:
    try:
        return check(values, source="", lines={}, code=code)[0]
    except StudyFileError:
        return None
