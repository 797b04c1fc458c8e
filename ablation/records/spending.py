"""What a study's executions took in all, and whether the last one ended for its budget."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from ablation.records.metrics import is_number


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfBudget:
    """How an execution ended for its budget: of `limit_s` seconds `spent_s` were spent then.

    `needed_s` is the budget with which the same command is forecast to go on, None where nothing tells it.
    """

    limit_s: float
    spent_s: float
    needed_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """The wall-clock seconds of all executions of a study together, pauses between them left out.

    `limit_s` is the budget of the last one, None where it has none; `out` how it ended for it, None where it did not.
    """

    spent_s: float = 0.0
    limit_s: float | None = None
    out: OutOfBudget | None = None

    @property
    def is_out(self) -> bool:
        return self.out is not None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Spending":
        """Read what `to_json` gave; nothing was spent where it is something else."""
        try:
            values = json.loads(text)
            out = values["out"]
            found = cls(
                spent_s=_seconds(values["spent_s"]),
                limit_s=_optional(values["limit_s"]),
                out=OutOfBudget(
                    limit_s=_seconds(out["limit_s"]),
                    spent_s=_seconds(out["spent_s"]),
                    needed_s=_optional(out["needed_s"]),
                )
                if out is not None
                else None,
            )
        except (KeyError, TypeError, ValueError, RecursionError):
            return cls()
        return found


def _seconds(value: Any) -> float:
    if not is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"no number of seconds: {value!r}")
    return float(value)


def _optional(value: Any) -> float | None:
    return None if value is None else _seconds(value)
