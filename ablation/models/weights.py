"""Gives a model the weights of a file: a state dict, read as tensors alone, that fits it name by name."""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablation.code import NO_FOLDERS, CodeFolders, weights_name
from ablation.errors import ModelInvalid
from ablation.models.component_names import listed
from ablation.records import NO_WEIGHTS

WEIGHTS = "model.weights"
MAX_BYTES = 4 * 2**30
WAY = "save it with torch.save(model.state_dict(), FILE)"
OTHER_HEAD = (
    "every tensor must fit: where a part is to begin anew, such as a head for other classes, load the file in a model "
    "function of your own"
)


def load_weights(model: nn.Module, path: str, *, code: CodeFolders = NO_FOLDERS) -> nn.Module:
    """Put the tensors of a state dict into a model, and return it; it stays as it is where the path is NO_WEIGHTS.

    A relative path is looked for where the study's code is.

    Raises:
        ModelInvalid: there is no such file, it is no state dict, or it does not fit the model, by the names.
    """
    if path == NO_WEIGHTS:
        return model
    file = _file(path, code)
    state = _state(file, path)
    _check_fit(model.state_dict(), state, path)
    model.load_state_dict(state)
    return model


def _file(path: str, code: CodeFolders) -> Path:
    found = code.file(weights_name(path))
    if found is None:
        written = Path(path).expanduser()
        places = [written] if written.is_absolute() else [folder / written for folder in code.folders]
        there = next((place for place in places if place.exists()), None)
        if there is not None:
            what = "a folder" if there.is_dir() else "no regular file"
            raise _refused(path, f"is {what}; name the file of a state dict")
        looked = " or ".join(dict.fromkeys(str(place.parent) for place in places)) or "any folder"
        raise _refused(path, f"is not there (looked in {looked}); {WAY}")
    try:
        size = found.stat()
        if not stat.S_ISREG(size.st_mode) or size.st_size > MAX_BYTES:
            raise _refused(path, f"has {size.st_size / 2**30:.1f} GiB; a file of weights has at most 4 GiB")
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    return found


def _state(file: Path, path: str) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    except Exception as error:
        message = f"is no file of tensors alone, as torch.load(weights_only=True) reads it; {WAY}"
        raise _refused(path, message) from error
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise _refused(path, f"holds {type(found).__name__}, not a mapping of names to tensors; {WAY}")
    wrong = [name for name, value in found.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if wrong:
        raise _refused(path, f"has values that are not finite in {listed(wrong)}")
    return dict(found)


def _check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: str) -> None:
    missing, unknown = [name for name in own if name not in given], [name for name in given if name not in own]
    shapes = [
        f"{name} of shape {tuple(given[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    problems = [
        *([f"it lacks {listed(missing)}"] if missing else []),
        *([f"the model has no {listed(unknown)}"] if unknown else []),
        *(
            [f"it has {', '.join(shapes[:3])}" + (f" and {len(shapes) - 3} more" if len(shapes) > 3 else "")]
            * bool(shapes)
        ),
    ]
    if problems:
        raise _refused(path, f"does not fit the model: {'; '.join(problems)}; {OTHER_HEAD}")


def _refused(path: str, message: str) -> ModelInvalid:
    return ModelInvalid(f"{path!r} {message}", path=WEIGHTS)
