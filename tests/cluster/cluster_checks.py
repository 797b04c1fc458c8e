"""What must hold of a study that ran on a cluster, whatever happened there: checks return in words what is wrong."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from checks import problems_at_the_end
from cluster_study import STUDY, Alone, files_in
from engine import Node


def problems_of_cluster(alone: Alone, *, address: str, state: Path, nodes: Sequence[Node]) -> list[str]:
    """Compare a study that has ended with what it comes to alone, and look for what it left at its nodes."""
    return [
        *problems_at_the_end(STUDY, expected=alone.trainings, address=address, state=state),
        *unequal_files(files_in(state), alone.files),
        *(problem for node in nodes for problem in left_at(node)),
    ]


def unequal_files(found: Mapping[str, Mapping[str, str]], expected: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for identity, files in expected.items():
        left = found.get(identity, {})
        yield from (f"{identity}: {name} is not as alone" for name in files if left.get(name) != files[name])
        yield from (f"{identity}: alone there is no {name}" for name in left.keys() - files.keys())


def left_at(node: Node) -> Iterator[str]:
    """Find what jobs left: their folders, and what was on its way; data and code stay for the next study."""
    left = [path for kind in ("of/*/begun", "of/*/tuning", "incoming") for path in node.kept.glob(f"{kind}/**/*")]
    yield from (f"{node.folder.name}: {path.relative_to(node.kept)} is left" for path in left if path.is_file())
