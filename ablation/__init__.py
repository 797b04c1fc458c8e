"""Ablation studies of neural networks: which parts matter, by how much, how surely, at what cost.

What is imported from here is loaded when it is first used: `import ablation` alone loads nothing else.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablation.api import AblationError, StudyResult, compare, load_model, open, plan, run  # noqa: A004 - as ablation.open

__version__ = "0.1.0"
__all__ = ["AblationError", "StudyResult", "compare", "load_model", "open", "plan", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ablation import api

    globals().update({each: getattr(api, each) for each in __all__})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
