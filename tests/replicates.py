"""Runs as the ladder of paths trains them, in a folder of their own, without a study."""

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from torch.nn import functional
from trainings import SHAPE, STUDY_SEED

from ablation.records import EpochMetrics
from ablation.storage.run_folder import RunFolder
from ablation.training import Loss, Member, Snapshot
from ablation.worker.setup import Beginning


class Replicate:
    """A run of a seed; `fails_in_epoch` is when it raises `error`, 0 for never."""

    def __init__(
        self,
        seed: int,
        member: Callable[[int], Member],
        *,
        folder: Path | None = None,
        loss: Loss = functional.cross_entropy,
    ) -> None:
        self.seed, self.member, self.loss = seed, member, loss
        self.epochs: list[EpochMetrics] = []
        self.fails_in_epoch = 0
        self.error: Exception = ValueError("no luck")
        self.folder = RunFolder(path=folder or Path(tempfile.mkdtemp()))  # a slow training keeps a checkpoint in it
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self.folder.path)
        self.identity, self.seconds = str(seed), 0.0

    def begin(self) -> Beginning:
        return Beginning(member=self.member(self.seed), study_seed=STUDY_SEED, loss=self.loss, shape=SHAPE)

    def begin_anew(self) -> None:
        self.epochs.clear()

    def go_on(self, snapshot: Snapshot, seconds: float, *, is_latest: bool) -> None:
        self.epochs, self.seconds = list(snapshot.curve), seconds

    def writing(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def check_owned(self) -> None:
        pass

    def take(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)
        if metrics.epoch == self.fails_in_epoch:
            raise self.error
