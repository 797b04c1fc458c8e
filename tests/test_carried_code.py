"""The user's code is the same code on another machine: its digest says so there."""

import shutil
from pathlib import Path

import pytest

from ablation.code import CodeFolders, check_packages
from ablation.errors import CodeInvalid, CodeMissing


def _written(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _brought(code: CodeFolders, names: list[str], to: Path) -> CodeFolders:
    carried = code.carried(names)
    for name, path in carried.files.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to / name)
    return CodeFolders(folders=tuple(to / folder for folder in carried.folders))


@pytest.mark.parametrize(
    ("files", "folders", "name"),
    [
        ({"net.py": "import blocks\ndef net(): ...", "blocks.py": "import json"}, ["."], "net.py:net"),
        ({"net.py": "def net(): ...", "other.py": "x = 1"}, [".", "elsewhere"], "net.py:net"),
        ({"study/net.py": "import shared\ndef net(): ...", "shared.py": ""}, ["study", "."], "net.py:net"),
        (
            {"pkg/__init__.py": "", "pkg/models.py": "", "pkg/studies/__init__.py": "x = 1"}
            | {"pkg/studies/net.py": "from ..models import *\nfrom . import x\ndef net(): ..."},
            ["pkg/studies"],
            "net.py:net",
        ),
        ({"lib/__init__.py": "from .deep import net", "lib/deep.py": "def net(): ..."}, ["."], "lib:net"),
        ({"a/net.py": "def net(): return 1", "b/net.py": "def net(): return 2"}, ["b", "a"], "net.py:net"),
    ],
    ids=["sibling", "unused", "two folders", "package", "module", "first folder wins"],
)
def test_code_that_is_brought_elsewhere_has_the_same_digest(
    tmp_path: Path, files: dict[str, str], folders: list[str], name: str
) -> None:
    _written(tmp_path / "here", files)
    here = CodeFolders(folders=tuple(tmp_path / "here" / folder for folder in folders))

    there = _brought(here, [name], tmp_path / "there")

    assert here.digest([name]) == there.digest([name])
    assert there.load(name, path="model.name").__name__ == "net"


def test_a_module_on_pythonpath_is_brought_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _written(tmp_path, {"here/net.py": "import beyond_it\ndef net(): ...", "path/beyond_it.py": "x = 1"})
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    here = CodeFolders(folders=(tmp_path / "here",))
    digest = here.digest(["net.py:net"])

    there = _brought(here, ["net.py:net"], tmp_path / "there")
    monkeypatch.undo()

    assert digest == there.digest(["net.py:net"])


def test_what_is_brought_is_called_by_its_content_and_its_places(tmp_path: Path) -> None:
    _written(tmp_path, {"a/net.py": "x = 1", "b/net.py": "x = 1", "c/net.py": "x = 2"})

    a, b, c = (CodeFolders(folders=(tmp_path / name,)).carried(["net.py:x"]).digest for name in "abc")

    assert a == b != c


def test_an_absolute_path_is_no_name_for_another_machine(tmp_path: Path) -> None:
    _written(tmp_path, {"net.py": "def net(): ..."})

    with pytest.raises(CodeInvalid, match="is an absolute path, which other machines do not have; put the file below"):
        CodeFolders(folders=(tmp_path,)).carried([f"{tmp_path / 'net.py'}:net"])


def test_a_package_of_another_version_is_told_with_both() -> None:
    versions = {"timm": "0.9"}

    with pytest.raises(CodeMissing, match=r"it has timm 0\.9, and the study's code was identified with timm 1\.0\.3"):
        check_packages(["timm 1.0.3"], version=versions.__getitem__)
    check_packages(["timm 0.9", "odd is not installed"], version=versions.__getitem__)
    check_packages(["numpy 1, scipy 2"], version={"numpy": "1", "scipy": "2"}.__getitem__)
