"""Where a process is to be killed: orders for `injected/sitecustomize.py`, and what it says that was done."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

PRODUCT = Path(__file__).parents[2] / "ablation"

SCHEMA = ("commit create", "commit alter", "commit drop")
"""How the sites begin at which tables are made."""
Role = Literal["coordinator", "worker", "uploads"]
Moment = Literal["before", "after", "amid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A process of this role is killed at the n-th time that it does this; amid is before a file is written whole."""

    role: Role
    site: str
    occurrence: int
    moment: Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a command is to do: be killed there, watch what lies below a folder, write to `control` what it did."""

    kills: Sequence[Kill]
    below: Path
    control: Path

    def to_json(self) -> str:
        kills = [asdict(kill) for kill in self.kills]
        places = {"below": f"{self.below}/", "control": str(self.control), "product": f"{PRODUCT}/"}
        return json.dumps({"kills": kills, **places})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation that a process began: where the product asked for it, and which module did it for it."""

    role: Role
    site: str
    occurrence: int
    lines: str
    module: str
    path: Path


def operations_in(control: Path) -> list[Operation]:
    """Return what the processes of a command began, each one's in its order."""
    found = []
    for log in sorted(control.glob("operations-*.txt")):
        role: Role = next(role for role in get_args(Role) if log.name.startswith(f"operations-{role}-"))
        for line in log.read_text().splitlines():
            site, occurrence, lines, module, path = line.split("\t")
            found.append(
                Operation(role=role, site=site, occurrence=int(occurrence), lines=lines, module=module, path=Path(path))
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A process that was killed: at which operation, and the product's lines that asked for it."""

    role: str
    site: str
    lines: str


def kills_in(control: Path) -> tuple[Death, ...]:
    """Return which processes of a command were killed."""
    found = [path.read_text().split("\t") for path in sorted(control.glob("killed-*.txt"))]
    return tuple(Death(role=role, site=site, lines=lines) for role, site, lines in found)


def summary(deaths: Sequence[Death]) -> str:
    """Say of how many kinds they were."""
    commits = [one for one in deaths if one.site.startswith("commit")]
    tables = sum(one.site.startswith(SCHEMA) for one in commits)
    workers, uploads = (sum(one.role == role for one in deaths) for role in ("worker", "uploads"))
    places = len({(one.role, one.site) for one in deaths})
    return (
        f"{len(deaths)} kills, {workers} of them of workers and {uploads} of what records, at {places} different "
        f"places: {len(commits)} at commits, "
        f"{tables} of these of tables, {len(deaths) - len(commits)} at file operations"
    )


@dataclass(slots=True, kw_only=True)
class Sites:
    """Where processes of a kind of study can be killed: each site, and how often one process came there at most."""

    most: dict[Role, Counter[str]] = field(default_factory=lambda: {role: Counter() for role in get_args(Role)})

    def add(self, operations: Sequence[Operation]) -> None:
        for one in operations:
            self.most[one.role][one.site] = max(self.most[one.role][one.site], one.occurrence)

    def __bool__(self) -> bool:
        return any(self.most.values())

    def draw(
        self, role: Role, chance: random.Random, *, is_first: bool, within: str | tuple[str, ...] = ""
    ) -> Kill | None:
        """Draw a kill, a rare operation as often as not; `within` is what its site must begin with.

        A later execution has less to do than the first, so that it seldom comes to high occurrences.
        """
        sites = sorted(site for site in self.most[role] if site.startswith(within))
        if not sites:
            return None
        weights = [self.most[role][site] for site in sites] if chance.random() < 0.5 else None
        [site] = chance.choices(sites, weights)
        most = self.most[role][site]
        occurrence = 1 if not is_first and chance.random() < 0.5 else chance.randint(1, most)
        moments: list[Moment] = ["before", "after", *(["amid"] if site.startswith("open ") else [])]  # type: ignore[list-item]
        return Kill(role=role, site=site, occurrence=occurrence, moment=chance.choice(moments))
