"""Runs the chaos test of nodes with many seeds, longer than CI has time for.

`python tests/cluster/many.py --seeds 20 --duration 60` prints for each seed how long it took and what went wrong; with
a folder to keep (--keep), the story of each seed is written there.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "quick"), str(TESTS / "chaos"), str(TESTS.parent)]

from cluster_bed import Bed  # noqa: E402 - found by the line above
from cluster_chaos import NodesChaos  # noqa: E402 - found by the line above
from cluster_study import Alone, alone  # noqa: E402 - found by the line above
from forking import Starter  # noqa: E402 - found by the line above

from ablation.storage.first_start import make_whole  # noqa: E402 - found by the line above
from ablation.tracking.mlflow.schema import mlflow_schema  # noqa: E402 - found by the line above


def main() -> None:
    arguments = _arguments()
    failed = 0
    with TemporaryDirectory() as name, Starter(Path(name)) as starter:
        folder = Path(name).resolve()
        (folder / "data").mkdir()
        make_whole(folder / "store.db", mlflow_schema)
        expected = alone(folder / "alone", folder / "data", seeds=arguments.study_seeds)
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            failed += not _passes(seed, folder, starter, arguments, expected)
    _say(f"\n{arguments.seeds - failed} of {arguments.seeds} seeds passed")
    sys.exit(1 if failed else 0)


def _passes(seed: int, folder: Path, starter: Starter, arguments: argparse.Namespace, expected: Alone) -> bool:
    bed = Bed(folder / f"seed-{seed}", folder / "data", folder / "store.db", starter)
    bed.take(str(bed.cluster.file), "--seeds", str(arguments.study_seeds))
    chaos, begun = NodesChaos(bed, seed=seed, duration_s=arguments.duration), time.monotonic()
    try:
        problems = chaos.run(expected)
    except Exception as error:  # noqa: BLE001 - the other seeds are run all the same
        problems = [f"{type(error).__name__}: {error}"]
    finally:
        story = chaos.story()
        bed.close()
    _say(f"seed {seed}: {'FAILED' if problems else 'passed'} in {time.monotonic() - begun:.0f} s; {chaos.summary()}")
    for problem in problems:
        _say(f"  {problem}")
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        (arguments.keep / f"seed-{seed}.txt").write_text("\n".join([story, *problems]))
    return not problems


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is run by hand


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of trouble for each")
    parser.add_argument("--study-seeds", type=int, default=12, help="of the study: it has two variants")
    parser.add_argument("--keep", type=Path, help="folder for the stories")
    return parser.parse_args()


if __name__ == "__main__":
    main()
