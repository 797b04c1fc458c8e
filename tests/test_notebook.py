"""A notebook as researchers have it: a real kernel, a study in it, the stop button in the middle of a run."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import SPARED
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

pytestmark = pytest.mark.slow

TRAIN = """
import time
from pathlib import Path

HERE = Path(__file__).parent

def train(settings, seed, report):
    while settings["training"]["x"] == 2 and not (HERE / "quick").exists():
        (HERE / "begun").touch()
        time.sleep(0.05)
    report(score=0.5, place=len(settings["training"]["place"]))
    return {"score": settings["training"]["x"] + seed % 97 / 100}
"""
BEGIN = """
import ablation
STUDY = {
    "name": "own",
    "training": {"name": "t.py:train", "x": 1, "place": "here"},
    "factors": {"training.x": [1, 2]},
    "metric": {"name": "score", "direction": "maximize"},
    "seeds": 2,
}
"""
RUN = """
result = ablation.run(STUDY, name="NAME", set={"training.place": "NAME"}, executor="NAME", workers=1)
"""
KEPT = 'kept = ablation.open("NAME"); print(kept.ended["done"], kept.record.status)'
AGAIN = f"open('quick', 'w').close()\n{RUN}\nresult"
SHOWN = 'result.figure("forest")'
FORGOTTEN = "import os; os.remove('quick'); os.remove('begun')"
EXECUTORS = ("inline", "processes")
"""How the study is run, one after the other: in the kernel itself, and in its workers."""


@pytest.fixture(scope="module")
def outputs(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[Any]]]:
    """The outputs of a notebook's cells by executor: stopped, what was kept, run again, a figure."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "t.py").write_text(TRAIN)
    shutil.copy(empty_store, folder / "mlflow.db")
    cells = [
        BEGIN,
        *(text.replace("NAME", name) for name in EXECUTORS for text in (RUN, KEPT, AGAIN, SHOWN, FORGOTTEN)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("PYTHONPATH", SPARED)
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.delenv("ABLATION_STATE_DIR", raising=False)
        found = asyncio.run(executed(cells, folder, stopped=(1, 6), when=folder / "begun"))
    return {name: found[first : first + 4] for name, first in zip(EXECUTORS, (1, 6), strict=True)}


@pytest.mark.parametrize("executor", EXECUTORS)
class TestNotebook:
    def test_the_stop_button_keeps_what_had_ended(self, executor: str, outputs: Any) -> None:
        stopped, kept, *_ = outputs[executor]

        assert "KeyboardInterrupt" == stopped[-1]["ename"]
        assert "1 KILLED" == kept[0]["text"].strip()

    def test_the_same_cell_resumes_and_shows_its_answers_as_a_table(self, executor: str, outputs: Any) -> None:
        again = outputs[executor][2]

        page = again[-1]["data"]["text/html"]
        assert "4 done, 0 diverged, 0 failed of 4 runs" in page
        assert "<table>" in page

    def test_progress_is_one_output_that_is_written_over(self, executor: str, outputs: Any) -> None:
        again = outputs[executor][2]

        assert ["display_data", "execute_result"] == [one["output_type"] for one in again]
        assert "x=2/seed-1: score" in again[0]["data"]["text/plain"]
        assert "4 done, 0 diverged, 0 failed of 4 runs" in again[0]["data"]["text/plain"]

    def test_a_figure_is_a_picture_without_pyplot(self, executor: str, outputs: Any) -> None:
        assert "image/png" in outputs[executor][3][0]["data"]


async def executed(cells: list[str], folder: Path, *, stopped: tuple[int, ...], when: Path) -> list[list[Any]]:
    """Return the outputs of each cell; some are interrupted when a file is there."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}})
    async with client.async_setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if index not in stopped:
                await client.async_execute_cell(cell, index)
                continue
            interrupting = asyncio.create_task(interrupted(client, when))
            with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
                await client.async_execute_cell(cell, index)
            await interrupting
    return [cell.outputs for cell in notebook.cells]


async def interrupted(client: NotebookClient, when: Path) -> None:
    while not when.exists():
        await asyncio.sleep(0.05)
    assert client.km is not None
    await client.km.interrupt_kernel()
