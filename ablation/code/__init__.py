"""Finds, imports, calls and identifies the code that a study file names; standard library only.

`package.module:attribute` is looked for in the study's folders and then among the installed packages,
`path/to/file.py:attribute` in the study's folders. Nothing is to be inherited from or registered.
"""

import inspect
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.code.calling import bound, running
from ablation.code.carrying import CarriedCode, carried_code, check_packages
from ablation.code.loading import is_importing, load_code
from ablation.code.names import code_names, code_problem, is_code, is_weights, metric_code_names, weights_name
from ablation.code.reading import returned_names, settings_taken
from ablation.code.sources import code_digest, code_parts, find_place, source_of
from ablation.code.training_calls import (
    OFFERED,
    UNREAD,
    TrainingCall,
    call_problems,
    own_settings,
    sections_read,
    signature_in_source,
    training_call,
    training_signature,
)

__all__ = [
    "NO_FOLDERS",
    "OFFERED",
    "UNREAD",
    "CarriedCode",
    "CodeFolders",
    "TrainingCall",
    "bound",
    "call_problems",
    "check_packages",
    "code_names",
    "code_problem",
    "is_code",
    "is_importing",
    "is_weights",
    "metric_code_names",
    "own_settings",
    "running",
    "training_call",
    "training_signature",
    "weights_name",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFolders:
    """Where files and modules are looked for, first to last: the study file's folder, the working directory."""

    folders: tuple[Path, ...] = ()

    def load(self, name: str, *, path: str) -> Any:
        """Import what `name` names and return it; `path` is the key of the study file that errors name.

        A file is imported once per process for the same content, its own and its siblings'. The folder of a file and
        these folders come first in sys.path while it is imported and are last in it afterwards, so that an import
        inside a function still finds what is there, and no library finds it in place of another.

        Raises:
            CodeInvalid: it is not there, cannot be imported (with the traceback in the user's code), or not callable.
        """
        return load_code(name, self.folders, path=path)

    def file(self, name: str) -> Path | None:
        """Return the file that the code behind a name begins in, None where it is installed, or not there."""
        return find_place(name.rpartition(":")[0], self.folders).file

    def digest(self, names: Iterable[str]) -> str | None:
        """Return 32 hexadecimal digits that change with the code behind the names; None where there are no names.

        It is of the bytes of the named files or modules and of every module of the study's own that they import,
        however indirectly, as their import statements say; nothing is executed. An installed package counts by its
        version. Where the files lie does not count. What cannot be seen: imports made by a call (importlib, plugins),
        and files that the code reads.
        """
        return code_digest(names, self.folders)

    def packages(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the installed packages that the code behind the names imports, each with its version."""
        return code_parts(names, self.folders)[1]

    def carried(self, names: Iterable[str]) -> CarriedCode:
        """Return what is to be brought to another machine for these names, where `digest` says the same of it then.

        Raises:
            CodeInvalid: a name is an absolute path, which is no other machine's.
        """
        return carried_code(names, self.folders)

    def training_signature(self, name: str) -> inspect.Signature | None:
        """Return the signature of a training function as its source has it; None where that does not tell it.

        Nothing is executed.
        """
        return signature_in_source(*source_of(name, self.folders))

    def returned_names(self, name: str) -> tuple[str, ...]:
        """Return the keys of the mapping that a function returns, where its source tells; nothing is executed."""
        return returned_names(*source_of(name, self.folders))

    def settings_taken(self, name: str, section: str) -> dict[str, Any]:
        """Return the keys that a function takes of a section of its first argument, an ellipsis for no default.

        Nothing is executed.
        """
        return settings_taken(*source_of(name, self.folders), section)

    def training_call(self, name: str, keys: Collection[str]) -> TrainingCall | None:
        """Return how a training function is called, as its source has it, with these keys of the `training` section.

        None where its source does not tell, or it cannot be called so; nothing is executed.
        """
        signature = self.training_signature(name)
        is_callable = signature is not None and not any(call_problems(signature, keys, name=name))
        return training_call(signature, keys, name=name) if is_callable else None

    def settings_read(self, name: str, keys: Collection[str] = ()) -> frozenset[str] | None:
        """Return the sections that a training function reads of its settings, and what else it is offered by name.

        `keys` are those of the `training` section. None where its source does not tell; nothing is executed.
        """
        return sections_read(*source_of(name, self.folders), keys)

    def files(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the files of the study's own that the names lead to, by their paths in the first folder with them."""
        found = {}
        for file in code_parts(names, self.folders)[0]:
            homes = [folder.resolve() for folder in self.folders if file.is_relative_to(folder.resolve())]
            found[str(file.relative_to(homes[0])) if homes else file.name] = file
        return found


NO_FOLDERS = CodeFolders()
