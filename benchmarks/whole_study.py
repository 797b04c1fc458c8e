"""Times a whole study, from the command to its report, beside a shell loop over a conventional script.

    python -m benchmarks.whole_study --output benchmarks/results

It needs the project's requirements, no data, and is run from the repository's root. Both sides train depth × norm ×
seeds on the same images, with crop and flip, batch size, optimizer and epochs alike:

- `ours`: `python -m ablation study FILE` with a fresh state folder and a fresh MLflow store, which ends with a report.
- `loop`: a shell loop that runs `benchmarks/conventional_script.py` once per run, one after the other, each with all
  cores and two loader processes, into a fresh MLflow store; no report.

Each side is run once before, small and not counted, with a folder of compiled modules that both read then, as they lie
in an installation that was used before, whatever this one's are. The sides are run in turn; which begins changes from
turn to turn. `--only` times one side alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.tracking import MlflowClient

from ablation.provenance import LIBRARIES
from ablation.storage.databases import sqlite_address
from benchmarks.arrays import write_arrays
from benchmarks.machine import environment, write_record
from benchmarks.turns import ratio, spread, spread_text

Side = Callable[[Path, Path, argparse.Namespace], None]
"""Called with an empty folder, that of the arrays, and the options."""
STUDY = "whole-study"
LOOP = """
set -eu
for depth in $DEPTHS; do for norm in $NORMS; do for seed in $SEEDS; do
    "$PYTHON" -m benchmarks.conventional_script \
        --data "$DATA" --depth "$depth" --norm "$norm" --seed "$seed" --epochs "$EPOCHS"
done; done; done
"""


def main() -> None:
    options = parse_options()
    where = environment(options, libraries=LIBRARIES)
    print(json.dumps(where, indent=1), flush=True)
    sides = {name: side for name, side in SIDES.items() if options.only in (None, name)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        write_arrays(path / "arrays", train=options.train_images, test=options.test_images, source=options.data)
        compile_modules(sides, path, options)
        for turn in range(options.turns):
            for name in sorted(sides, reverse=turn % 2 == 0):
                place = path / f"{name}-{turn}"
                place.mkdir()
                seconds[name].append(timed(sides[name], place, path / "arrays", options))
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    result = summarize(seconds, options)
    print_result(result)
    if options.output is not None:
        write_record(options.output, {"environment": where, "result": result}, name="whole-study", kind="cpu")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--norms", nargs="+", choices=("none", "batch"), default=["none", "batch"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train-images", type=int, default=2_000)
    parser.add_argument("--test-images", type=int, default=500)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--data", type=Path, help="folder of {train,test}_{images,labels}.npy to draw the images from")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def compile_modules(sides: Mapping[str, Side], path: Path, options: argparse.Namespace) -> None:
    """Let Python keep what it compiles, from here on, and run each side once."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(path / "compiled")
    small = argparse.Namespace(**{**vars(options), "norms": options.norms[:1], "seeds": 1, "epochs": 1})
    write_arrays(path / "few-arrays", train=128, test=64)
    for name, side in sides.items():
        place = path / f"{name}-compiling"
        place.mkdir()
        side(place, path / "few-arrays", small)


def timed(side: Side, place: Path, arrays: Path, options: argparse.Namespace) -> float:
    """Run a side in an empty folder; return its seconds, once it is seen that it recorded every run."""
    begun = time.perf_counter()
    side(place, arrays, options)
    seconds = time.perf_counter() - begun
    recorded = finished_runs(store(place))
    expected = run_count(options)
    if recorded < expected:
        raise SystemExit(f"{place.name} recorded {recorded} finished runs of {expected}")
    return seconds


def ours(place: Path, arrays: Path, options: argparse.Namespace) -> None:
    file = place / f"{STUDY}.yaml"
    file.write_text(json.dumps(study_document(arrays, options)), encoding="utf-8")
    command = [sys.executable, "-m", "ablation", "study", str(file), "--device", "cpu"]
    command += ["--state-dir", str(place / "state"), "--tracking-uri", store(place)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if not (place / "state" / "reports" / STUDY / "report.md").exists():
        raise SystemExit("the study left no report")


def study_document(arrays: Path, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "name": STUDY,
        "data": {
            "name": "benchmarks.arrays:load",
            "root": str(arrays),
            "validation": "none",
            "augmentation": "crop-flip",
        },
        "model": {
            "name": "cnn",
            "depth": options.depths[0],
            "normalization": options.norms[0],
            "normalization_placement": "after",
        },
        "training": {"epochs": options.epochs, "batch_size": 64, "optimizer": "adam", "learning_rate": 1e-3},
        "factors": {
            path: levels
            for path, levels in (("model.depth", options.depths), ("model.normalization", options.norms))
            if len(levels) > 1
        },
        "seeds": options.seeds,
    }


def loop(place: Path, arrays: Path, options: argparse.Namespace) -> None:
    values = {
        "PYTHON": sys.executable,
        "DATA": str(arrays),
        "DEPTHS": " ".join(map(str, options.depths)),
        "NORMS": " ".join(options.norms),
        "SEEDS": " ".join(map(str, range(options.seeds))),
        "EPOCHS": str(options.epochs),
        "MLFLOW_TRACKING_URI": store(place),
    }
    subprocess.run(["sh", "-c", LOOP], check=True, env={**os.environ, **values}, stdout=subprocess.DEVNULL)


SIDES: Mapping[str, Side] = {"ours": ours, "loop": loop}


def store(place: Path) -> str:
    return sqlite_address(place / "mlflow.db")


def finished_runs(uri: str) -> int:
    client = MlflowClient(tracking_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return len(client.search_runs(experiments, "attributes.status = 'FINISHED'", max_results=50_000))


def run_count(options: argparse.Namespace) -> int:
    return len(options.depths) * len(options.norms) * options.seeds


def summarize(seconds: Mapping[str, list[float]], options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"runs": run_count(options), "seconds": seconds}
    if len(seconds) == len(SIDES):
        found["loop / ours"] = ratio(seconds["loop"], seconds["ours"])
    return found


def print_result(result: Mapping[str, Any]) -> None:
    print(f"\n{result['runs']} runs, seconds of the whole")
    for name, values in result["seconds"].items():
        print(f"{name}: {spread_text(spread(values))}; {spread(values)['median'] / result['runs']:.2f} a run")
    if "loop / ours" in result:
        print(f"loop / ours: {spread_text(result['loop / ours'])}")


if __name__ == "__main__":
    main()
