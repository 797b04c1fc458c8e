"""Says what a variant's model has gained and lost beside the baseline's, from their summaries."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ablation.records import ModelSummary

REMOVED = "Removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChanges:
    """Modules gone, new and of another type (name, before, after); differences in parameters and FLOPs."""

    gone: tuple[str, ...]
    new: tuple[str, ...]
    replaced: tuple[tuple[str, str, str], ...]
    parameters: int
    flops: int


def model_changes(before: ModelSummary, after: ModelSummary) -> ModelChanges:
    """Compare two models; a module all of whose layers are gone, or new, is named instead of them."""
    old = {layer.name: layer.type for layer in before.layers}
    now = {layer.name: layer.type for layer in after.layers}
    removed = [name for name, kind in now.items() if kind == REMOVED]
    present = {name: kind for name, kind in now.items() if kind != REMOVED}
    return ModelChanges(
        gone=(*removed, *_outermost([name for name in old if _is_gone(name, present, removed)], present)),
        new=tuple(_outermost([name for name in present if name not in old], old)),
        replaced=tuple((name, old[name], kind) for name, kind in present.items() if old.get(name, kind) != kind),
        parameters=after.parameters - before.parameters,
        flops=after.flops - before.flops,
    )


def _is_gone(name: str, present: Mapping[str, str], removed: Iterable[str]) -> bool:
    return name not in present and not any(name == other or name.startswith(f"{other}.") for other in removed)


def _outermost(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return for each name the shortest of its parents that no other name lies in, each once."""
    known = list(others)
    found: list[str] = []
    for name in names:
        parts = name.split(".")
        parents = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        free = (one for one in parents if not any(each == one or each.startswith(f"{one}.") for each in known))
        outermost = next(free, name)  # a module may stand where there was one with modules of its own
        if outermost not in found:
            found.append(outermost)
    return found
