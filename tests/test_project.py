"""The project's own files agree with each other: requirements, conda.yaml, MLproject, README and the package."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import PROJECT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from ablation import cli

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
README = (PROJECT / "README.md").read_text()
ARCHITECTURE = (PROJECT / "docs" / "architecture.md").read_text()
MLPROJECT = YAML(typ="safe").load(PROJECT / "MLproject")


def pins(name: str) -> dict[str, set[str]]:
    """Return the pinned versions of each package in a requirements file."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (PROJECT / name).read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


@pytest.mark.parametrize("dependency", PYPROJECT["project"]["dependencies"])
def test_every_dependency_is_pinned_to_a_version_it_allows(dependency: str) -> None:
    requirement = Requirement(dependency)

    versions = pins("requirements.txt")[canonicalize_name(requirement.name)]

    assert all(version in requirement.specifier for version in versions)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("requirements-dask.txt", "requirements.txt"),
        ("requirements-dev.txt", "requirements-dask.txt"),
        ("requirements-templates.txt", "requirements-dev.txt"),
    ],
)
def test_requirements_hold_those_below_them_with_the_same_pins(name: str, others: str) -> None:
    found = pins(name)

    assert {} == {package: versions for package, versions in pins(others).items() if found.get(package) != versions}


def test_the_extra_of_an_engine_is_pinned_to_a_version_it_allows() -> None:
    (requirement,) = map(Requirement, PYPROJECT["project"]["optional-dependencies"]["dask"])

    assert all(version in requirement.specifier for version in pins("requirements-dask.txt")[requirement.name])


@pytest.mark.parametrize("name", sorted(path.name for path in PROJECT.glob("requirements*.txt")))
def test_every_pin_has_hashes_and_no_registry_is_named(name: str) -> None:
    text = (PROJECT / name).read_text()

    assert not re.search(r"https?://", text)
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-z])", text)[1:])


def test_the_gpus_tests_have_nothing_of_the_projects_but_torch_torchvision_and_numpy() -> None:
    named = {canonicalize_name(Requirement(one).name) for one in PYPROJECT["project"]["dependencies"]}
    of_torch = {"torch", "torchvision", "numpy", "pillow", "jinja2", "filelock"}  # the last three, theirs

    assert of_torch == named & set(pins("requirements-gpu.txt"))


def test_conda_takes_the_pinned_requirements_and_a_python_that_the_package_allows() -> None:
    conda = YAML(typ="safe").load(PROJECT / "conda.yaml")
    python = next(item for item in conda["dependencies"] if str(item).startswith("python="))

    assert {"pip": ["-r requirements.txt"]} in conda["dependencies"]
    assert python.partition("=")[2] in SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert re.fullmatch(r"python=3\.\d+\.\d+", python)


@pytest.mark.parametrize("name", MLPROJECT["entry_points"])
def test_every_parameter_of_an_entry_point_is_used_by_its_command(name: str) -> None:
    entry = MLPROJECT["entry_points"][name]

    assert set(entry.get("parameters", {})) == set(re.findall(r"{(\w+)}", entry["command"]))


@pytest.mark.parametrize("name", MLPROJECT["entry_points"])
def test_every_entry_point_is_a_command_with_these_options(name: str) -> None:
    words = shlex.split(MLPROJECT["entry_points"][name]["command"])
    command = cli.main.commands[words[3]]
    known = {option for parameter in command.params for option in parameter.opts}

    assert ["python", "-m", "ablation"] == words[:3]
    assert {word for word in words if word.startswith("--")} <= known


def test_the_readme_installs_the_mlflow_that_is_pinned() -> None:
    assert set(re.findall(r"mlflow==([\d.]+)", README)) == pins("requirements.txt")["mlflow"]


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    assert 2 == len(re.findall(r"^pip install .+", README, re.MULTILINE))


def test_the_tree_has_every_module_in_its_folder() -> None:
    package = PROJECT / "ablation"
    modules = {
        path.relative_to(PROJECT).as_posix()
        for path in package.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }

    assert modules == _modules_of_the_tree()


def test_the_layers_in_the_architecture_are_those_that_are_checked() -> None:
    contract = next(one for one in PYPROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers")

    assert [_siblings(layer) for layer in contract["layers"]] == [
        _siblings(line) for line in _block_of("Layers").splitlines()
    ]


def test_every_file_named_in_the_readme_exists() -> None:
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", README)

    assert [] == [link for link in links if not (PROJECT / link.partition("#")[0]).exists()]


def test_help_imports_none_of_the_heavy_libraries() -> None:
    assert set() == _imported_by(["--help"]) & {
        "torch",
        "mlflow",
        "optuna",
        "pandas",
        "matplotlib",
        "numpy",
        "pydantic",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["define"], ["summarize", "nobody's"], ["status"]],
    ids=lambda arguments: arguments[0],
)
def test_commands_that_train_nothing_do_not_import_torch(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert "torch" not in _imported_by(arguments)


def test_every_command_has_a_help_text() -> None:
    assert all(command.help for command in cli.main.commands.values())
    assert all(
        option.help
        for command in cli.main.commands.values()
        for option in command.params
        if isinstance(option, click.Option)
    )


def _block_of(heading: str) -> str:
    """Return the first code block under a heading of docs/architecture.md."""
    return ARCHITECTURE.partition(f"## {heading}\n")[2].split("```")[1].strip("\n")


def _modules_of_the_tree() -> set[str]:
    """Return the paths of the modules of `ablation/` in docs/architecture.md; two spaces are a folder deeper."""
    modules: set[str] = set()
    folders: list[str] = []
    for line in _block_of("The tree").splitlines():
        entries = re.match(r" *([\w.]+/?(?:, *[\w.]+)*)", line)
        assert entries, f"a line of the tree names no file: {line!r}"
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        for entry in entries[1].split(","):
            if entry.endswith("/"):
                folders.append(entry)
            elif entry.strip().endswith(".py"):
                modules.add("".join(folders) + entry.strip())
    return {module for module in modules if module.startswith("ablation/")}


def _siblings(layer: str) -> set[str]:
    return {name.strip().removeprefix("ablation.").strip("()") for name in re.split("[|:]", layer)}


def _imported_by(arguments: list[str]) -> set[str]:
    """Return the top-level modules that a command leaves imported."""
    code = (
        "import sys, runpy; sys.argv = ['ablation', *sys.argv[1:]]\n"
        "try: runpy.run_module('ablation', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    environment: dict[str, Any] = {"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return set(done.stdout.splitlines()[-1].split())
