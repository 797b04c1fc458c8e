"""Trains a study's runs on a machine that has torch, torchvision and numpy alone, to be recorded elsewhere.

    python -m benchmarks.carried pack studies/cifar10-depth-norm.yaml carried   # where ablation is installed
    python -m benchmarks.carried train carried --device cuda:0                  # where the card is, in this repository
    cp -r carried/runs .ablation/ && ablation study studies/cifar10-depth-norm.yaml    # records what was trained

`pack` plans the study, prepares its data and writes both into a folder. `train` trains what has no result there yet,
those together that can be; the same command goes on after an interruption. Where the prepared data are too large to be
carried, `pack --without-data` leaves them out and `train --data ARCHIVE` prepares them there, which takes Pillow and
filelock too. A study that tunes is not carried, nor one whose model, loss or training is code of the user's: both need
more than a worker.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation.code import code_names
from ablation.datasets import Dataset, open_dataset, prepare
from ablation.errors import AblationError
from ablation.output import last_line
from ablation.records import PlannedRun, Settings
from ablation.stopping import Preempted, stopping
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.worker import DeviceLost, Fusing, Job, alike, resolve_devices, run_jobs

RUNS, DATA = "runs.json", "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedRun:
    """A planned run, with what a worker needs to train it but the data, of which it has the digest."""

    planned: PlannedRun
    settings: Settings
    heldout_split: str
    data_digest: str

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "CarriedRun":
        planned, settings = PlannedRun(**values["planned"]), Settings.from_plain(values["settings"])
        return cls(**{**values, "planned": planned, "settings": settings})

    def plain(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "settings": self.settings.plain()}


def pack(file: Path, folder: Path, *, state: State, has_data: bool = True) -> None:
    """Write what a card needs for the first look of a study into a new folder, with or without its data.

    Raises:
        SystemExit: the study needs more than a worker, or the folder is there.
        AblationError: the study cannot be planned.
    """
    from ablation.coordinator.planning import plan_of
    from ablation.study import load_study

    if folder.exists():
        raise SystemExit(f"{folder} is there already; name a folder that is not")
    study = load_study(file)
    data = study.variants[0].settings.data
    without_data = [dataclasses.replace(variant.settings, data=None) for variant in study.variants]
    names = {name for settings in without_data for name in code_names(settings)}
    if names or study.spec.tune is not None:
        why = f"names {', '.join(sorted(names))}" if names else "tunes"
        raise SystemExit(f"{file} needs more than a worker, as it {why}; train it by `ablation study {file}`")
    dataset = prepare(data, cache=state.data, code=study.code)
    plan = plan_of(study, data=dataset.facts)
    runs = [
        CarriedRun(
            planned=run,
            settings=plan.variant(run.variant).settings,
            heldout_split=plan.heldout_split,
            data_digest=plan.data.digest,
        )
        for run in plan.runs_to_train()
        if run.seed < plan.locked.schedule[0]  # later looks ask for theirs once these are judged
    ]
    folder.mkdir(parents=True)
    if has_data:
        shutil.copytree(dataset.folder, folder / DATA)
    (folder / RUNS).write_text(json.dumps([run.plain() for run in runs], indent=1), encoding="utf-8")
    print(f"{folder} has {len(runs)} runs; where the card is: benchmarks.carried train {folder.name}")


def train(folder: Path, *, device: str, fuse: int, source: Path | None = None) -> int:
    """Train what has no result yet, on the data of the folder or of `source`; return how many runs still have none.

    Raises:
        SystemExit: the folder is not what `pack` wrote, or the data are not those that the runs were planned with.
        AblationError: the data cannot be prepared, or there is no such device.
        Preempted, KeyboardInterrupt: this process was asked to end.
        DeviceLost: the device computes nothing more in this process.
    """
    device = resolve_devices(device)[0]
    runs = _runs(folder)
    data = _data(folder, runs[0], source)
    for group in _groups(folder, [run for run in runs if _folder(folder, run).result() is None], fuse):
        jobs = [_job(folder, run, device, data) for run in group]
        fusing = Fusing(cache=folder / "backends.json", must_gain=True) if fuse > 1 else None
        for run, result in zip(group, run_jobs(jobs, fusing), strict=True):
            accuracy = result.metrics.get("test_accuracy", float("nan"))
            said = filter(None, [result.path, result.path_note, last_line(result.error)])
            print(f"{run.planned.name}: {result.outcome}, test accuracy {accuracy:.4f}, {', '.join(said)}", flush=True)
    left = sum(_folder(folder, run).result() is None for run in runs)
    print(f"{len(runs) - left} of {len(runs)} runs have a result")
    return left


def _runs(folder: Path) -> Sequence[CarriedRun]:
    try:
        text = (folder / RUNS).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SystemExit(f"{folder} is not a folder that `pack` wrote: it has no {RUNS}") from None
    return tuple(map(CarriedRun.from_plain, json.loads(text)))


def _groups(folder: Path, runs: Sequence[CarriedRun], fuse: int) -> Iterator[Sequence[CarriedRun]]:
    kinds: dict[str, list[CarriedRun]] = {}
    for run in runs:
        kinds.setdefault(alike(run.settings, _folder(folder, run)), []).append(run)
    for same in kinds.values():
        yield from (same[start : start + fuse] for start in range(0, len(same), fuse))


def _folder(folder: Path, run: CarriedRun) -> RunFolder:
    return RunFolder(path=folder / "runs" / run.planned.identity)


def _data(folder: Path, run: CarriedRun, source: Path | None) -> Path:
    """Return the folder of the prepared data."""
    dataset = open_dataset(folder / DATA) if source is None else _prepared(folder, run, source)
    if dataset.facts.digest != run.data_digest:
        raise SystemExit(f"{source or folder / DATA} holds other data than the runs of {folder} were planned with")
    return dataset.folder


def _prepared(folder: Path, run: CarriedRun, source: Path) -> Dataset:
    try:
        data, _ = run.settings.sections()
        return prepare(dataclasses.replace(data, root=str(source.resolve())), cache=folder / "prepared")
    except ModuleNotFoundError as error:
        why = f"preparing {source} takes the package {error.name}, which is not installed here"
        raise SystemExit(f"{why}; install it, or `pack` without --without-data") from None


def _job(folder: Path, run: CarriedRun, device: str, data: Path) -> Job:
    return Job(
        planned=run.planned,
        settings=run.settings,
        heldout_split=run.heldout_split,
        data_folder=data,
        folder=_folder(folder, run),
        device=device,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing, training = commands.add_parser("pack"), commands.add_parser("train")
    packing.add_argument("file", type=Path, help="the study file")
    packing.add_argument("folder", type=Path, help="a folder that is not there yet")
    packing.add_argument("--state-dir", type=Path, default=Path(".ablation"), help="where prepared data lie")
    packing.add_argument("--without-data", action="store_true", help="leave the data out: `train --data` has them")
    training.add_argument("folder", type=Path, help="what `pack` wrote")
    training.add_argument("--data", type=Path, help="the folder or archive that the study's data are prepared from")
    training.add_argument("--device", default="cuda:0")
    training.add_argument("--fuse", type=_at_least_one, default=32, help="runs that are trained together at most")
    options = parser.parse_args()
    try:
        with stopping.listening():
            if options.command == "train":
                return 1 if train(options.folder, device=options.device, fuse=options.fuse, source=options.data) else 0
            pack(options.file, options.folder, state=State(folder=options.state_dir), has_data=not options.without_data)
    except (Preempted, KeyboardInterrupt):
        next_step = (
            "the same command goes on" if options.command == "train" else f"remove {options.folder} if it is there"
        )
        raise SystemExit(f"ended before all was done; {next_step}") from None
    except DeviceLost as error:
        raise SystemExit(f"{error}; the same command goes on") from None
    except (AblationError, OSError) as error:
        raise SystemExit(str(error)) from None
    return 0


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs, at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
