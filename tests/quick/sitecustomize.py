"""Spares the processes of a test what costs them most and is not its subject: figures, and a compiler nobody uses.

Python imports this before anything else wherever this folder is on PYTHONPATH, in spawned workers too. Figures become
files of a few bytes. torch keeps its compiler away from its own functions, and imports all of it for that, which takes
longer than importing torch; here it takes these functions as they are.
"""

import struct
import sys
import zlib
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


def png() -> bytes:
    """Return a picture of one white pixel: MLflow reads the figure that it is given to show."""
    parts = {b"IHDR": struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b"\0\xff"), b"IEND": b""}
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def undraw(drawing: ModuleType) -> None:
    """Have figures written as files of a few bytes."""

    def save(_figure: Any, path: Path) -> None:
        path.write_bytes(b"<svg/>" if path.suffix == ".svg" else png())

    def write_confusion(path: Path, *_: Any, **__: Any) -> None:
        save(None, path)

    vars(drawing).update(save=save, write_confusion=write_confusion)


def uncompile(module: ModuleType) -> None:
    """Have torch's functions left as they are that its compiler would be kept away from."""
    vars(module).update(_disable_dynamo=lambda function=None, recursive=True: function or (lambda same: same))


CHANGES = {"ablation.drawing": undraw, "torch._compile": uncompile}


class Changing(MetaPathFinder):
    """Changes a module when it has been imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        change = CHANGES.pop(name, None)
        spec = find_spec(name) if change is not None else None
        if change is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Changing())
