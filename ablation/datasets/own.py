"""Calls a user's function for a data set: arrays of inputs, and their targets."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from numpy.typing import NDArray

from ablation.code import CodeFolders, bound, running
from ablation.datasets.arrays import GROUPS, data_notes, shape_of, targets_digest, write_arrays
from ablation.datasets.cache import Written
from ablation.datasets.image_files import state_of_any
from ablation.datasets.own_arrays import read_arrays
from ablation.datasets.places import is_there, real_path
from ablation.datasets.splits import NOT_DIVIDED, Division
from ablation.records import IGNORED, DataOutline, DataSettings, TaskName, recordable_text

PATH = "data.name"


def own_arguments(settings: DataSettings, *, place: Path | None) -> dict[str, Any]:
    """Return what a `data` section gives to the user's function: its root, where it has one, and keys of its own.

    A root that is at a `place` is given as that; what is nowhere may be no path, and is given as it stands.
    """
    root = os.fspath(place) if place is not None and is_there(place) else settings.root
    return {**settings.arguments, **({"root": root} if root else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What the function that `code_name` names returns when it is called with `arguments`, by name.

    It is called again where its code, an argument, or a file at `root` is another one. What else it reads is not seen:
    files and folders that a data set is made from are to be named as `root`.
    """

    code_name: str
    arguments: Mapping[str, Any]
    code: CodeFolders
    task: TaskName = "classification"
    ignore_index: int = IGNORED
    division: Division = NOT_DIVIDED

    @property
    def name(self) -> str:
        """The names of the file and the function, such as can stand in a path."""
        location, _, attribute = self.code_name.rpartition(":")
        file = PurePath(location.replace("\\", "/")).name.removesuffix(".py")
        return re.sub(r"[^\w.-]", "_", f"{file}.{attribute}")

    @property
    def where(self) -> str:
        return self.code_name

    def key(self) -> str:
        arguments = json.dumps(self.arguments, sort_keys=True, default=repr)
        root = self.arguments.get("root")
        state = state_of_any(real_path(Path(root).expanduser())) if isinstance(root, str | Path) else ""
        kind = f" {self.task} {self.ignore_index}" if self.task != "classification" else ""
        return f"own 1 {self.code.digest([self.code_name])} {arguments} {state}{kind}{self.division.key}"

    def outline(self) -> DataOutline:
        arrays, classes = self._read()
        return DataOutline(
            shape=shape_of(arrays, classes, task=self.task, ignore_index=self.ignore_index),
            train_images=len(arrays["train_images"]),
            test_images=len(arrays["test_images"]),
            notes=self._notes(arrays, classes),
            train_targets=targets_digest(arrays["train_labels"]),
            test_targets=targets_digest(arrays["test_labels"]),
            train_groups=targets_digest(arrays[GROUPS]) if GROUPS in arrays else "",
        )

    def write(self, folder: Path) -> Written:
        arrays, classes = self._read()
        write_arrays(folder, arrays)
        return Written(
            classes=classes,
            notes=self._notes(arrays, classes),
            task=self.task,
            ignore_index=self.ignore_index,
            is_undivided=self.division.is_folded,
        )

    def _notes(self, arrays: Mapping[str, NDArray[Any]], classes: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(recordable_text, classes))
        return data_notes(arrays, names, task=self.task, ignore_index=self.ignore_index)

    def _read(self) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
        load = self.code.load(self.code_name, path=PATH)
        arguments = bound(load, self.arguments, offered={}, section="data")
        with running(self.code_name, path=PATH):
            loaded = load(**arguments)
        return read_arrays(
            loaded, source=self.where, task=self.task, ignore_index=self.ignore_index, division=self.division
        )
