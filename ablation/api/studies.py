"""Checks a study file, or a mapping with its keys, with the changes of a call; shows it before it costs anything."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.api.arguments import check_kind
from ablation.errors import ArgumentInvalid

if TYPE_CHECKING:
    from ablation.preview import Preview
    from ablation.storage.state import State
    from ablation.study import Study


def checked_study(
    file: str | PathLike[str] | Mapping[str, Any],
    *,
    seeds: int | Mapping[str, Any] | None,
    changes: Mapping[str, Any],
    name: str | None,
) -> Study:
    """Read and check a study with changes by their paths.

    Raises:
        StudyFileError: with every problem found.
        AblationError: the file cannot be read.
    """
    check_kind("file", file)
    check_kind("set", changes)
    from ablation.study import load_study, overrides_of, study_of_values

    overrides = overrides_of({**changes, **({"seeds": seeds} if seeds is not None else {})})
    if isinstance(file, Mapping):
        return study_of_values(file, overrides=overrides, name=name)
    if file == "":
        raise ArgumentInvalid("file", file, "the path of a study file")
    return load_study(Path(file), overrides=overrides, name=name)


def preview(study: Study, device: str, state: State) -> Preview:
    """Return a study before it costs anything, its variants timed on the first of the devices.

    Raises:
        AblationError: the study cannot be run as it is; see `preview_study`.
    """
    from ablation.preview import preview_study
    from ablation.worker import resolve_devices

    return preview_study(study, state=state, device=resolve_devices(device)[0])
