"""The wheel: what is in it, and that it runs in an environment of its own, away from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import PROJECT
from ruamel.yaml import YAML

import ablation

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def test_the_citation_names_the_version_and_the_license_of_the_package() -> None:
    citation = YAML(typ="safe").load(PROJECT / "CITATION.cff")

    assert (ablation.__version__, PYPROJECT["project"]["license"]) == (citation["version"], citation["license"])
    assert (PROJECT / "LICENSE").read_text().startswith(f"{citation['license']} License\n")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout; skipped where there is nothing to build it with."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_the_license(wheel: Path) -> None:
    files = {
        str(path.relative_to(PROJECT))
        for path in (PROJECT / "ablation").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    with zipfile.ZipFile(wheel) as held:
        names = set(held.namelist())
    about = f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    assert files == {name for name in names if not name.startswith(about)}
    assert {f"{about}/licenses/LICENSE", f"{about}/entry_points.txt"} <= names
    assert wheel.name.startswith("ablation_studies-")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_installed_wheel_runs_the_quick_study_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """Its environment is fresh, but for the dependencies, which are those of the one that runs the tests."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    uv, pip = ["uv", "pip", "install", "--python"], [sys.executable, "-m", "pip", "--python"]
    install = [*uv, str(python)] if shutil.which("uv") else [*pip, str(python), "install"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    shutil.copy(PROJECT / "studies" / "quick.yaml", tmp_path)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ABLATION_", "PYTHONPATH"))
    }

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    found = run(str(python), "-c", "import ablation; print(ablation.__file__)")
    outcome = json.loads(
        run(
            str(home / "bin" / "ablation"),
            "study",
            "quick.yaml",
            "--seeds",
            "2",
            "--set",
            "training.epochs=1",
            "--json",
        )
    )

    assert Path(found.strip()).is_relative_to(home)
    assert (8, 8) == (outcome["runs"], outcome["done"])
    assert (Path(outcome["report"]) / "report.html").is_file()
