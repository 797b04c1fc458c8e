"""Runs the chaos test with many seeds, longer than CI has time for.

`python tests/chaos/many.py --seeds 20 --duration 120` prints for each seed what happened how often, how long it took,
what went wrong, and what the killed workers cost. With a folder to keep (--keep), the story of each seed is written
there, with all that the command printed.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "quick"), str(TESTS.parent)]

from chaos_study import Size, Undisturbed, undisturbed  # noqa: E402 - found by the line above
from forking import SERVER, Starter  # noqa: E402 - found by the line above
from harness import Chaos  # noqa: E402 - found by the line above
from lost_time import Lost, summary  # noqa: E402 - found by the line above
from targets import Server  # noqa: E402 - found by the line above

SIZE = Size(images=1400, epochs=10)
"""Of runs of about three seconds on one core."""


def main() -> None:
    arguments = _arguments()
    lost: list[Lost] = []
    kills = failed = 0
    with TemporaryDirectory() as name, Starter(Path(name), more=SERVER) as starter:
        folder = Path(name).resolve()
        (folder / "data").mkdir()
        calm = undisturbed(folder / "undisturbed", folder / "data", size=SIZE)
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            chaos = _run_seed(folder / f"seed-{seed}", seed, arguments, starter, calm=calm)
            lost += chaos.lost_time.lost
            kills += chaos.lost_time.kills
            failed += bool(chaos.problems)
    _say(f"\n{arguments.seeds - failed} of {arguments.seeds} seeds passed; {summary(lost, kills=kills)}")
    sys.exit(1 if failed else 0)


def _run_seed(folder: Path, seed: int, arguments: argparse.Namespace, starter: Starter, *, calm: Undisturbed) -> Chaos:
    folder.mkdir()
    data_cache = folder.parent / "data"
    server = Server(folder, starter)
    chaos = Chaos(folder, data_cache, starter, server=server, seed=seed, duration_s=arguments.duration, calm=calm)
    begun = time.monotonic()
    try:
        chaos.run()
    except Exception as error:  # noqa: BLE001 - the other seeds are run all the same
        chaos.problems.append(f"{type(error).__name__}: {error}")
    seconds = time.monotonic() - begun
    counts = ", ".join(f"{count} × {kind}" for kind, count in sorted(chaos.happened.items()))
    _say(f"seed {seed}: {'FAILED' if chaos.problems else 'passed'} in {seconds:.0f} s; {counts}")
    _say(f"  {summary(chaos.lost_time.lost, kills=chaos.lost_time.kills)}")
    for problem in chaos.problems:
        _say(f"  {problem}")
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        (arguments.keep / f"seed-{seed}.txt").write_text(chaos.story(with_outputs=True))
    return chaos


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is run by hand


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--duration", type=float, default=120.0, help="seconds of trouble for each")
    parser.add_argument("--keep", type=Path, help="folder for the stories")
    return parser.parse_args()


if __name__ == "__main__":
    main()
