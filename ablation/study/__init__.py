"""From a study file and the command line's overrides to a checked study: its settings, variants and runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.errors import AblationError, Problem, StudyFileError
from ablation.lookup import differences, replaced
from ablation.results import PlannedRun, Variant
from ablation.study.checking import check
from ablation.study.design import level_text
from ablation.study.file import MAX_BYTES, read_document, read_value
from ablation.study.identity import locked_hash, run_identity
from ablation.study.spec import SECTIONS, Question, StudySpec

__all__ = [
    "Override",
    "Question",
    "Study",
    "StudySpec",
    "Variant",
    "load_study",
    "locked_hash",
    "parse_override",
    "parse_study",
    "read_value",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One change to a study file made on the command line; `value` is plain, as YAML gives it."""

    path: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A checked study and its variants, the baseline first."""

    spec: StudySpec
    variants: tuple[Variant, ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def questions(self) -> tuple[Question, ...]:
        """The file's questions; by default one per factor, its average effect on the metric."""
        return self.spec.questions or tuple(Question(effect=factor) for factor in self.spec.factors)

    def locked(self) -> dict[str, Any]:
        """Return what the answers depend on and is decided before the first run, the default questions written out."""
        questions = [question.model_dump(mode="json") for question in self.questions]
        return {**self.spec.locked(), "questions": questions}

    def runs(self, *, data_digest: str) -> tuple[PlannedRun, ...]:
        """Return the planned runs: a whole round of variants for one seed before the next seed's."""
        return tuple(
            PlannedRun(
                identity=run_identity(variant.configuration, data_digest=data_digest, seed=seed),
                variant=variant.name,
                seed=seed,
            )
            for seed in range(self.spec.seeds)
            for variant in self.variants
        )


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
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AblationError(f"cannot read the study file {path}: {error.strerror}") from None
    return parse_study(content, source=str(path), overrides=overrides, levels=levels, name=name)


def parse_study(
    content: bytes,
    *,
    source: str,
    overrides: Sequence[Override] = (),
    levels: Mapping[str, Sequence[Any]] | None = None,
    name: str | None = None,
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
    values: Mapping[str, Any] = document.values
    for override in overrides:
        values = _overridden(values, override)
    for path, chosen in (levels or {}).items():
        values = _with_levels(values, path, chosen)
    if name is not None:
        values = {**values, "name": name}
    spec, variants = check(values, source=source, lines=document.lines)
    if name is None and (overrides or levels):
        changed = _changed_fixed_part(document.values, spec, source=source, lines=document.lines)
        if changed:
            renamed = "+".join([spec.name, *(f"{path}={_name_text(value)}" for path, value in sorted(changed.items()))])
            spec, variants = check({**values, "name": renamed[:200]}, source=source, lines=document.lines)
    return Study(spec=spec, variants=variants)


def parse_override(text: str) -> Override:
    """Read `PATH=VALUE`.

    Raises:
        StudyFileError: the text has another form.
    """
    path, equals, value = text.partition("=")
    try:
        if not equals or not path.strip():
            raise ValueError("must be PATH=VALUE, such as training.epochs=5")
        return Override(path=path.strip(), value=read_value(value))
    except ValueError as error:
        raise StudyFileError("--set", [Problem(message=str(error), path=text)]) from None


def _overridden(values: Mapping[str, Any], override: Override) -> dict[str, Any]:
    """Set one path; below `factors` and `questions` the rest of the path is one key."""
    section, dot, factor = override.path.partition(".")
    if section == "factors" and dot:
        return {**values, "factors": {**_mapping(values.get("factors")), factor: override.value}}
    return replaced(values, override.path, override.value)


def _with_levels(values: Mapping[str, Any], path: str, levels: Sequence[Any]) -> dict[str, Any]:
    is_factor = len(levels) > 1
    keeps_baseline = is_factor and _baseline_level(values, path) in levels
    changed = dict(values) if keeps_baseline else replaced(values, path, levels[0])
    factors = {key: kept for key, kept in _mapping(values.get("factors")).items() if key != path}
    if is_factor:
        return {**changed, "factors": {**factors, path: list(levels)}}
    questions = [question for question in values.get("questions") or [] if path not in _factors_asked(question)]
    return {**changed, "factors": factors, "questions": questions}


def _baseline_level(values: Mapping[str, Any], path: str) -> Any:
    section, _, key = path.partition(".")
    default = SECTIONS[section][0].model_fields[key].default
    return _mapping(values.get(section)).get(key, default)


def _factors_asked(question: Any) -> list[Any]:
    asked = _mapping(question)
    return [asked.get("effect"), *(asked.get("interaction") or [])]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _changed_fixed_part(
    original: Mapping[str, Any], spec: StudySpec, *, source: str, lines: Mapping[Any, int]
) -> dict[str, Any]:
    """Return the leaves of the fixed part that differ from the file's own; all of it where the file alone is wrong."""
    try:
        before = check(original, source=source, lines=lines)[0].fixed()
    except StudyFileError:
        before = {}
    after = spec.fixed()
    return {path: now for path, (_, now) in differences(before, after).items() if now is not None} if before else {}


def _name_text(value: Any) -> str:
    """Return a value with only the characters that a name may have."""
    return "".join(char if char.isalnum() or char in "._+=,@[]-" else "-" for char in level_text(value))
