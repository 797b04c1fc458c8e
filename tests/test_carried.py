"""A study's runs are trained where nothing of ours but the worker can be imported, and recorded where all is."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from bench import Bench
from conftest import TINY
from PIL import Image
from test_training import NOT_NEEDED_TO_TRAIN

from ablation.stopping import Preempted
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.study import Study
from ablation.worker import DeviceLost
from benchmarks.carried import main, pack
from benchmarks.carried import train as train_here

ROOT = Path(__file__).parents[1]
TRAINING = """
import sys
absent, sys.argv = sys.argv[1].split(), ["carried", "train", *sys.argv[2:]]
sys.modules.update(dict.fromkeys(absent))  # None: importing it raises
from benchmarks.carried import main
sys.exit(main())
"""


def train(
    folder: Path, *options: str, fuse: int = 1, may_import: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    absent = " ".join(name for name in NOT_NEEDED_TO_TRAIN if name not in may_import)
    command = [sys.executable, "-c", TRAINING, absent, str(folder), "--device", "cpu", "--fuse", str(fuse), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study as it is carried: eight runs."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "tiny.yaml").write_bytes(TINY)
    pack(folder / "tiny.yaml", folder / "carried", state=State(folder=folder / "state"))
    return folder / "carried"


def folders(carried: Path) -> list[RunFolder]:
    return [RunFolder(path=path) for path in sorted((carried / "runs").iterdir())]


@pytest.mark.slow
def test_what_was_trained_elsewhere_is_recorded_and_not_trained_again(
    bench: Bench, tiny: Study, packed: Path, tmp_path: Path
) -> None:
    carried = shutil.copytree(packed, tmp_path / "carried")

    done = train(carried)
    shutil.copytree(carried / "runs", bench.state.folder / "runs")
    bench.run(tiny)

    assert "8 of 8 runs have a result" in done.stdout, done.stderr
    assert 0 == done.returncode
    assert [] == bench.trained
    assert 8 == len(bench.metrics(tiny))


@pytest.mark.slow
def test_runs_are_trained_together_until_each_has_a_result_and_say_what_was_not_drawn(
    packed: Path, tmp_path: Path
) -> None:
    carried = shutil.copytree(packed, tmp_path / "carried")
    (carried / "runs.json").write_text(json.dumps(json.loads((carried / "runs.json").read_text())[:2]))
    train(carried, fuse=2)
    first, second = folders(carried)
    before = first.result()
    (second.path / "result.json").unlink()

    done = train(carried)

    assert "2 of 2 runs have a result" in done.stdout, done.stderr
    assert before is not None
    assert first.result().ended_ms == before.ended_ms
    assert second.result().ended_ms > before.ended_ms
    pictures = "confusion_train.png and confusion_test.png"
    assert (f"{pictures} are left out: matplotlib is not installed where the run was trained",) == before.left_out
    assert not list(carried.rglob("*.png"))


IMAGES = """
name: photos
data: {name: images, root: photos, validation: none}
model: {name: cnn, depth: 1, width: 2, dense: [4]}
training: {epochs: 1, batch_size: 4}
factors: {model.normalization: [none, batch]}
seeds: 1
"""


def write_images(folder: Path, colour: int) -> None:
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (folder / place).mkdir(parents=True)
        for index in range(4):
            image = Image.new("RGB", (8, 8), (colour, 40 * number, 9 * index))
            image.save(folder / place / f"{index}.png")


@pytest.fixture(scope="module")
def packed_without_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_images(folder / "photos", colour=200)
    (folder / "photos.yaml").write_text(IMAGES)
    pack(folder / "photos.yaml", folder / "carried", state=State(folder=folder / "state"), has_data=False)
    return folder / "carried"


@pytest.mark.slow
def test_data_that_were_not_carried_are_prepared_by_pillow_and_filelock_where_runs_are_trained(
    packed_without_data: Path, tmp_path: Path
) -> None:
    carried = shutil.copytree(packed_without_data, tmp_path / "carried")
    write_images(tmp_path / "moved", colour=200)

    done = train(carried, "--data", str(tmp_path / "moved"), may_import=("PIL", "filelock"))

    assert "2 of 2 runs have a result" in done.stdout, done.stderr
    assert not (carried / "data").exists()


def test_runs_are_not_trained_on_other_data_than_they_were_planned_with(
    packed_without_data: Path, tmp_path: Path
) -> None:
    carried = shutil.copytree(packed_without_data, tmp_path / "carried")
    write_images(tmp_path / "others", colour=100)

    with pytest.raises(SystemExit, match="others holds other data than the runs of"):
        train_here(carried, device="cpu", fuse=1, source=tmp_path / "others")
    assert not (carried / "runs").exists()


@pytest.mark.slow
def test_a_package_that_preparing_data_takes_and_is_not_there_is_named(
    packed_without_data: Path, tmp_path: Path
) -> None:
    carried = shutil.copytree(packed_without_data, tmp_path / "carried")
    write_images(tmp_path / "moved", colour=200)

    done = train(carried, "--data", str(tmp_path / "moved"), may_import=("filelock",))

    assert "takes the package PIL, which is not installed here; install it, or `pack` without" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "options", "said"),
    [
        ("carried", ("--device", "cuda:99"), "there is no device 'cuda:99' here"),
        ("carried", ("--device", "nowhere"), "there is no device 'nowhere' here"),
        ("carried", ("--fuse", "0"), "'0' is not a number of runs, at least 1"),
        (".", (), "is not a folder that `pack` wrote: it has no runs.json"),
    ],
)
def test_what_cannot_be_trained_is_said_before_any_run(
    packed: Path, tmp_path: Path, folder: str, options: Sequence[str], said: str
) -> None:
    shutil.copytree(packed, tmp_path / "carried")

    done = train(tmp_path / folder, *options)

    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 != done.returncode
    assert not (tmp_path / "carried" / "runs").exists()


@pytest.mark.parametrize("ending", [Preempted(), KeyboardInterrupt(), DeviceLost("an assert")], ids=repr)
def test_a_training_that_ends_early_says_that_the_same_command_goes_on(
    packed: Path, monkeypatch: pytest.MonkeyPatch, ending: BaseException
) -> None:
    def end(*_: object) -> NoReturn:
        raise ending

    monkeypatch.setattr("benchmarks.carried.run_jobs", end)
    monkeypatch.setattr("sys.argv", ["carried", "train", str(packed), "--device", "cpu"])

    with pytest.raises(SystemExit, match="the same command goes on"):
        main()


def test_a_folder_that_is_there_is_not_packed_into(packed: Path, tmp_path: Path) -> None:
    before = sorted(packed.rglob("*"))

    with pytest.raises(SystemExit, match="is there already; name a folder that is not"):
        pack(packed.parent / "tiny.yaml", packed, state=State(folder=tmp_path / "state"))
    assert sorted(packed.rglob("*")) == before


OWN = """
name: own
data: {name: digits, validation: 0.2}
model: {name: cnn, depth: 1, width: 2}
training: {epochs: 1}
factors: {training.weight_decay: [0.0, 0.1]}
"""


@pytest.mark.parametrize(
    "text",
    [
        OWN.replace("name: cnn, depth: 1, width: 2", "name: 'my_model.py:Net'"),
        OWN.replace("epochs: 1", "epochs: 1, loss: 'my_model.py:loss'"),
        f"{OWN}tune: {{trials: 2, training.learning_rate: {{log: [1e-4, 1e-2]}}}}",
    ],
    ids=["model", "loss", "tuning"],
)
def test_a_study_that_needs_more_than_a_worker_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    (tmp_path / "my_model.py").write_text("class Net: ...\ndef loss(logits, labels): ...\n")

    with pytest.raises(SystemExit, match=r"as it (tunes|names my_model\.py:\w+); train it by `ablation study"):
        pack(tmp_path / "own.yaml", tmp_path / "carried", state=State(folder=tmp_path / "state"))
