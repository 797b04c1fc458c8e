"""Tells what a run's folder has that the coordinator has not been sent yet: epochs as they are measured."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.executors.nodes.files import CarriedWrong
from ablation.storage.files import write_whole
from ablation.storage.run_folder import EPOCHS, RESULT, STARTED, RunFolder


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the coordinator has of a folder: so many bytes of epochs, by their digest, and a `started.json`."""

    size: int
    digest: str
    started: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderNews:
    """What is new in a folder: `started.json`, where it has changed, and epochs from an offset on.

    `is_anew` where what was sent before of its epochs holds no more.
    """

    started: bytes | None
    epochs: bytes
    offset: int
    is_anew: bool

    def plain(self) -> dict[str, Any]:
        return {"started": self.started, "epochs": self.epochs, "offset": self.offset, "is_anew": self.is_anew}

    @classmethod
    def from_plain(cls, plain: object) -> "FolderNews":
        """Read what a node sent.

        Raises:
            CarriedWrong: it is no such thing.
        """
        match plain:
            case {
                "started": (bytes() | None) as started,
                "epochs": bytes(epochs),
                "offset": int(offset),
                "is_anew": bool(is_anew),
            } if offset >= 0:
                return cls(started=started, epochs=epochs, offset=offset, is_anew=is_anew)
        raise CarriedWrong("it sends news of a run that are none")

    def write(self, folder: Path) -> None:
        """Have the run's folder here say the same.

        An attempt never has the epochs of the one before: those go first.

        Raises:
            CarriedWrong: they leave a gap after what is here.
        """
        folder.mkdir(parents=True, exist_ok=True)
        epochs = folder / EPOCHS
        if self.is_anew:
            epochs.unlink(missing_ok=True)
        if self.started is not None:
            (folder / RESULT).unlink(missing_ok=True)  # it is trained again
            write_whole(folder / STARTED, self.started.decode(errors="replace"))
        if not (self.epochs or epochs.exists()):
            return
        epochs.touch()
        if self.offset > epochs.stat().st_size:
            raise CarriedWrong("it sends news of a run that leave a gap")
        with epochs.open("r+b") as file:
            file.seek(self.offset)
            file.write(self.epochs)
            file.truncate()


class FolderWatch:
    """What of one run's folder was sent, and has arrived."""

    def __init__(self, folder: Path) -> None:
        self.run = RunFolder(path=folder)
        self._arrived = _seen(folder)  # it was sent from there
        self._sent: tuple[int, _Seen] | None = None
        self.is_dirty = True

    def confirm(self, serial: int) -> None:
        """Take note of the last answer that has arrived; what was in a later one is sent again."""
        if self._sent is not None:
            sent_in, sent = self._sent
            self._sent = None
            if sent_in <= serial:
                self._arrived = sent
            else:
                self.is_dirty = True

    def news(self, serial: int) -> FolderNews | None:
        """Return what is new, in the answer of that number; None where nothing is."""
        self.is_dirty = False
        epochs, started = _read(self.run.path / EPOCHS), _read(self.run.path / STARTED)
        before = self._arrived
        is_anew = hashlib.sha256(epochs[: before.size]).hexdigest() != before.digest
        now = _Seen(len(epochs), hashlib.sha256(epochs).hexdigest(), started)
        if now == before:
            return None
        self._sent = (serial, now)
        offset = 0 if is_anew else before.size
        told = started if started != before.started else None
        return FolderNews(started=told, epochs=epochs[offset:], offset=offset, is_anew=is_anew)


def _seen(folder: Path) -> _Seen:
    epochs = _read(folder / EPOCHS)
    return _Seen(len(epochs), hashlib.sha256(epochs).hexdigest(), _read(folder / STARTED))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
