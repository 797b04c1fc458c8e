"""What a run says of where it comes from, beside the host and the device."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from factories import make_plan

from ablation.code import CodeFolders
from ablation.records import PlannedRun
from ablation.storage.run_folder import RunFolder
from ablation.worker.run import Job, RunRecord


def test_a_run_names_the_packages_that_its_users_code_imports(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import click\n\ndef build():\n    return None\n")
    settings = make_plan().baseline.settings
    assert settings.model is not None
    job = Job(
        planned=PlannedRun(identity="a", variant="baseline", seed=0),
        settings=replace(settings, model=replace(settings.model, name="net.py:build")),
        heldout_split="validation",
        data_folder=None,
        folder=RunFolder(path=tmp_path / "a"),
        device="cpu",
        code=CodeFolders(folders=(tmp_path,)),
    )

    assert f"click {version('click')}" == RunRecord(job).folder.provenance()["code_packages"]
