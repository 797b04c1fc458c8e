"""Finds, imports, calls and identifies the code that a study file names; standard library only.

`package.module:attribute` is looked for in the study's folders and then among the installed packages,
`path/to/file.py:attribute` in the study's folders. Nothing is to be inherited from or registered.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.code.calling import bound, running
from ablation.code.carrying import CarriedCode, carried_code, check_packages
from ablation.code.loading import is_importing, load_code
from ablation.code.names import code_names, code_problem, is_code, metric_code_names
from ablation.code.sources import code_digest, code_parts, find_place, settings_read

__all__ = [
    "NO_FOLDERS",
    "CarriedCode",
    "CodeFolders",
    "bound",
    "check_packages",
    "code_names",
    "code_problem",
    "is_code",
    "is_importing",
    "metric_code_names",
    "running",
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

    def settings_read(self, name: str) -> frozenset[str] | None:
        """Return the keys of its first argument that a function reads; None where its source does not tell them all.

        What it calls its fourth argument and the further ones counts too. Nothing is executed.
        """
        return settings_read(name, self.folders)

    def files(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the files of the study's own that the names lead to, by their paths in the first folder with them."""
        found = {}
        for file in code_parts(names, self.folders)[0]:
            homes = [folder.resolve() for folder in self.folders if file.is_relative_to(folder.resolve())]
            found[str(file.relative_to(homes[0])) if homes else file.name] = file
        return found


NO_FOLDERS = CodeFolders()
