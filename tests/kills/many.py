"""Kills many studies at random operations.

`python tests/kills/many.py --studies 30 --kills 100` prints a line per study: its seed, the kind of study, how often it
was killed and what went wrong, with a command to repeat it. With a folder to keep (--keep), the story of each study is
written there, and the folders of those in which something went wrong. It exits with 1 where anything did.
"""

import argparse
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "chaos"), str(TESTS / "quick"), str(TESTS.parent)]

from kill_harness import Calm, Killed, from_json, undisturbed  # noqa: E402 - found by the line above
from kill_injection import Death, summary  # noqa: E402 - found by the line above
from kill_starting import Forking, Plainly  # noqa: E402 - found by the line above
from kill_studies import KINDS, Kind, Shared, empty_store  # noqa: E402 - found by the line above


class Many:
    """Studies one after the other, in a folder, and what they share."""

    def __init__(self, folder: Path, keep: Path | None, *, is_plain: bool) -> None:
        self._folder, self._keep = folder, keep
        (folder / "tmp").mkdir()
        starter = Plainly() if is_plain else Forking(folder / "tmp")
        self._shared = Shared(data=folder / "data", store=folder / "empty.db", starter=starter)
        self._shared.data.mkdir()
        empty_store(self._shared.store)
        self._calm: dict[Kind, Calm] = {}
        self._numbers = 0
        self.failed = self.studies = 0
        self.deaths: list[Death] = []
        self.left: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()

    def run(self, kind: Kind, *, seed: int, kills: int) -> None:
        self._run(f"seed {seed}", Killed(self._next(), self._shared, calm=self._calm_of(kind), kills=kills, seed=seed))

    def repeat(self, text: str) -> None:
        kind, starts = from_json(text)
        self._run("again", Killed(self._next(), self._shared, calm=self._calm_of(kind), starts=starts))

    def _run(self, name: str, study: Killed) -> None:
        begun = time.monotonic()
        try:
            study.run()
        except Exception as error:  # noqa: BLE001 - the other studies are run all the same
            study.problems.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        seconds = time.monotonic() - begun
        how_many = f"{len(study.deaths)} kills in {seconds:.0f} s, {len(study.problems) or 'no'} problems"
        _say(f"{name} ({study.kind}): {how_many}")
        for line in study.story(with_outputs=False).splitlines() if study.problems else []:
            _say(f"  {line}")
        self.deaths, self.studies = self.deaths + study.deaths, self.studies + 1
        self.failed += bool(study.problems)
        self.problems.update(problem.partition(":")[0] for problem in study.problems)
        self.left.update(note.partition(" of ")[2] for note in study.notes)
        self._put_away(name, study)

    def _put_away(self, name: str, study: Killed) -> None:
        folder = self._folder / f"study-{self._numbers}"
        if self._keep is not None:
            kept = self._keep / name.replace(" ", "-")
            kept.mkdir(parents=True, exist_ok=True)
            (kept / "story.txt").write_text(study.story(with_outputs=True))
            if study.problems:
                shutil.copytree(folder, kept / "study", symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(folder)

    def _calm_of(self, kind: Kind) -> Calm:
        if kind not in self._calm:
            self._calm[kind] = undisturbed(self._folder / f"calm-{len(self._calm)}", kind, self._shared, starts=1)
        return self._calm[kind]

    def _next(self) -> Path:
        self._numbers += 1
        return self._folder / f"study-{self._numbers}"


def main() -> None:
    arguments = _arguments()
    kinds = [kind for kind in KINDS if arguments.only in (None, kind.name)]
    with TemporaryDirectory() as name:
        many = Many(Path(name).resolve(), arguments.keep, is_plain=arguments.plainly)
        if arguments.repeat is not None:
            many.repeat(arguments.repeat)
        for number in range(arguments.studies if arguments.repeat is None else 0):
            kind = kinds[(arguments.first_seed + number) % len(kinds)]
            # What is left of the kills, shared among the studies that are left.
            kills = round((arguments.kills - len(many.deaths)) / (arguments.studies - number))
            many.run(kind, seed=arguments.first_seed + number, kills=max(kills, 1))
    for maker, count in many.left.most_common():
        _say(f"left among temporary files: {count} by {maker}")
    for what, count in many.problems.most_common():
        _say(f"problems: {count} of {what}")
    _say(f"{many.studies - many.failed} of {many.studies} studies right after {summary(many.deaths)}")
    sys.exit(1 if many.failed else 0)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is run by hand


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", type=int, default=30, help="how many")
    parser.add_argument("--kills", type=int, default=100, help="how many in all")
    parser.add_argument("--first-seed", type=int, default=0, help="of the first study; it chooses the kind too")
    parser.add_argument("--repeat", help="one study, from what was printed of it")
    parser.add_argument("--only", choices=sorted({kind.name for kind in KINDS}), help="a kind of study")
    parser.add_argument("--plainly", action="store_true", help="start each command anew, which takes longer")
    parser.add_argument("--keep", type=Path, help="folder for the stories, and for studies that went wrong")
    return parser.parse_args()


if __name__ == "__main__":
    main()
