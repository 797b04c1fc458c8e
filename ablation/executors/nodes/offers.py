"""What a node offers of a job's runs: their last common checkpoint while they run, at the end all that they left."""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.executors.nodes.files import PIECE, check_name, described, files_of_ended, is_of_a_run, read_piece
from ablation.executors.nodes.refusing import Refused
from ablation.storage.run_folder import RunFolder

Description = dict[str, list[dict[str, Any]]]
"""By leave: its files, see CarriedFile."""


class Offers:
    """What is offered now of folders by their names; `beside` returns a place for what is to stay meanwhile."""

    def __init__(self, folders: Mapping[str, Path], *, beside: Callable[[], Path]) -> None:
        self._folders, self._beside = folders, beside
        self._offered: dict[str, Path] = {}
        self._kept: Path | None = None

    def common_epoch(self) -> int:
        """Return the latest epoch after which all runs kept a checkpoint, 0 where there is none."""
        epochs = [{epoch for epoch, _, _ in _run(folder).kept_checkpoints()} for folder in self._folders.values()]
        return max(set.intersection(*epochs), default=0) if epochs else 0

    def checkpoint(self) -> Description:
        """Describe the last checkpoint that all runs have; it stays until the next offer, whatever they do."""
        self.withdraw()
        names, beside = self._common_checkpoints(), self._beside()
        self._kept, there = beside, {}
        for number, (leave, name) in enumerate(names.items()):
            kept = beside / str(number)
            (kept / name).parent.mkdir(parents=True)
            with contextlib.suppress(OSError):  # it was replaced meanwhile: there is another one soon
                _keep(self._folders[leave] / name, kept / name)
                there[leave] = kept
        if len(there) < len(self._folders):
            return {}
        self._offered = there
        return {leave: _described(kept, [names[leave]]) for leave, kept in there.items()}

    def ended(self) -> Description:
        """Describe all that runs left which have ended."""
        self.withdraw()
        self._offered = dict(self._folders)
        return {leave: _described(folder, files_of_ended(folder)) for leave, folder in self._folders.items()}

    def pieces(self, wanted: Sequence[tuple[str, str, int]]) -> list[bytes]:
        """Return pieces, each of a folder's file from an offset on; fewer where they are long."""
        found, left = [], PIECE
        for leave, name, offset in wanted:
            if leave not in self._offered or not is_of_a_run(name):
                raise Refused("stale", "it is not offered any more")
            check_name(name)
            found.append(read_piece(self._offered[leave] / name, offset))
            left -= len(found[-1])
            if left <= 0:
                break
        return found

    def withdraw(self) -> None:
        kept, self._kept, self._offered = self._kept, None, {}
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)

    def _common_checkpoints(self) -> dict[str, str]:
        """Return each run's checkpoint after the latest epoch that they have in common, by its name in the folder."""
        latest, found = self.common_epoch(), {}
        for leave, folder in self._folders.items():
            for epoch, _, file in _run(folder).kept_checkpoints():
                if epoch == latest:
                    found[leave] = file.relative_to(folder).as_posix()
        return found if latest else {}


def _run(folder: Path) -> RunFolder:
    return RunFolder(path=folder)


def _described(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    return [described(folder, name).plain() for name in names]


def _keep(file: Path, beside: Path) -> None:
    """Keep a file that may be removed while it is read."""
    try:
        os.link(file, beside)
    except PermissionError:  # a file system without links
        shutil.copyfile(file, beside)
