"""The state folder: where data caches, run folders, locks and reports lie."""

import contextlib
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ablation.errors import StateUnavailable
from ablation.records import is_identity, is_study_name
from ablation.storage.permissions import make_folder, nearest_folder
from ablation.storage.run_folder import About, RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state folder; Optuna's database lies in it too, unless it is elsewhere."""

    folder: Path

    def make(self) -> None:
        """Make the folder where it is missing, and see that files can be made in it.

        Raises:
            StateUnavailable: they cannot.
        """
        try:
            make_folder(self.folder)
        except OSError as error:
            raise StateUnavailable(self.folder, error) from None
        self.check()

    def check(self) -> None:
        """See that files can be made in the folder, or where it would be made; nothing is left there.

        Raises:
            StateUnavailable: they cannot.
        """
        try:
            tempfile.TemporaryFile(dir=nearest_folder(self.folder)).close()
        except OSError as error:
            raise StateUnavailable(self.folder, error) from None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def backends(self) -> Path:
        """Return the file of what was measured of ways to fuse runs."""
        return self.folder / "backends.json"

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    def begun(self, study: str, identity: str) -> "RunFolder":
        """Return where a study trains a run: its own, as two studies may train the same run at the same time."""
        return RunFolder(path=self.folder / "begun" / study / identity)

    def finished(self, study: str, identity: str) -> "RunFolder | None":
        """Return the folder of a run that has a result, whichever study trained it, or None."""
        kept = RunFolder(path=self.folder / "runs" / identity)
        return next((folder for folder in (kept, self.begun(study, identity)) if folder.result() is not None), None)

    def has_kept(self, identity: str) -> bool:
        """Whether a run has a result here that some study has recorded."""
        return RunFolder(path=self.folder / "runs" / identity).result() is not None

    def unrecorded(self, study: str) -> int:
        """Return how many runs of a study have ended here and are not recorded."""
        folders = (self.folder / "begun" / study).glob("*")
        return sum(RunFolder(path=path).ended() is not None for path in folders)

    def begun_studies(self) -> tuple[str, ...]:
        """Return the studies that have runs here which are not recorded to their end."""
        return tuple(sorted({path.parent.name for path in (self.folder / "begun").glob("*/*")}))

    def keep(self, study: str, identity: str) -> None:
        """Move a recorded run to where every study finds it, unless it is there; nothing is kept of a failed one."""
        begun, kept = self.begun(study, identity), self.folder / "runs" / identity
        kept.parent.mkdir(exist_ok=True)
        if RunFolder(path=kept).result() is None:
            shutil.rmtree(kept, ignore_errors=True)
        begun.sweep()
        if begun.result() is not None and not kept.exists():
            begun.path.rename(kept)
        else:
            shutil.rmtree(begun.path, ignore_errors=True)
        self.forget_begun(study)

    def folders_of(self, study: str, identities: Collection[str]) -> tuple[Path, ...]:
        """Return what lies here of a study: runs under way and of its tuning, its report, and runs by identity.

        A name or an identity that is none has nothing here: names are typed and identities come from the tracker, and
        what is found is moved and removed.
        """
        if not is_study_name(study):
            return ()
        kept = [self.folder / "runs" / identity for identity in sorted(filter(is_identity, identities))]
        begun = sorted(path for kind in ("begun", "tuning") for path in (self.folder / kind / study).glob("*"))
        found = [*kept, *begun, self.report(study), self._deleted(study)]
        return tuple(path for path in found if path.exists())

    def remove(self, study: str, identities: Collection[str]) -> None:
        """Remove what lies here of a study for good.

        Raises:
            OSError: a folder cannot be removed.
        """
        if not is_study_name(study):
            return
        for path in self.folders_of(study, identities):
            shutil.rmtree(path)
        with contextlib.suppress(OSError):  # others were set aside too, or none
            self._deleted(study).parent.rmdir()
        self.forget_begun(study)
        self.forget_tuning(study)

    def set_aside(self, study: str, identities: Collection[str]) -> Path | None:
        """Put a study's runs where no study finds them, and return where that is; None where there are none."""
        place, moved = self._deleted(study), False
        for path in self.folders_of(study, identities):
            if path not in (place, self.report(study)):
                to = place / path.relative_to(self.folder).parts[0] / path.name
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(to, ignore_errors=True)
                path.rename(to)
                moved = True
        self.forget_begun(study)
        self.forget_tuning(study)
        return place if moved else None

    def take_back(self, study: str) -> None:
        """Put runs that were set aside where they were, but for those that have been trained again since."""
        for path in sorted(self._deleted(study).glob("*/*")):
            kind = path.parent.name
            to = self.folder / kind / path.name if kind == "runs" else self.folder / kind / study / path.name
            if not to.exists():
                to.parent.mkdir(parents=True, exist_ok=True)
                path.rename(to)
        shutil.rmtree(self._deleted(study), ignore_errors=True)

    def _deleted(self, study: str) -> Path:
        return self.folder / "deleted" / study

    def forget_begun(self, study: str) -> None:
        """Remove the folder of a study's runs under way once it is empty."""
        with contextlib.suppress(OSError):  # there is none, or others have begun
            (self.folder / "begun" / study).rmdir()

    def tuning(self, study: str, identity: str) -> "RunFolder":
        """Return where a study's tuning trains: its own, as where a trial was stopped depends on those before it."""
        return RunFolder(path=self.folder / "tuning" / study / identity)

    def unrecorded_tuning(self, study: str) -> "tuple[tuple[RunFolder, About], ...]":
        """Return the folders of a study's tuning that have ended and are not recorded, and what they are of."""
        found = [RunFolder(path=path) for path in sorted((self.folder / "tuning" / study).glob("*"))]
        ended = [(folder, folder.about()) for folder in found if folder.ended() is not None]
        return tuple((folder, about) for folder, about in ended if about is not None)

    def forget_tuning(self, study: str) -> None:
        """Remove what a study's tuning left, once its settings are frozen in the plan."""
        shutil.rmtree(self.folder / "tuning" / study, ignore_errors=True)

    def report(self, study: str) -> Path:
        return self.folder / "reports" / study
