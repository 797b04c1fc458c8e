"""Identifies runs by a versioned hash of all that can alter their result, and the locked part of a plan by another."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ablation.records import Locked

IDENTITY_VERSION = 1


def run_identity(
    configuration: Mapping[str, Any], *, data_digest: str, seed: int, code_digest: str | None = None
) -> str:
    """Return the identity of a run: 32 hexadecimal digits.

    `configuration` is a variant's (data, model, training with its threads, the study's seed); neither the study's
    name nor its factors, list of seeds or metric count, so a study may grow without training anything twice.
    The digest of a file of weights counts as that of code does, and where the file lies does not.
    """
    return _digest(
        {
            "version": IDENTITY_VERSION,
            "configuration": without_places(configuration),
            "data": data_digest,
            "seed": seed,
            "code": code_digest,
        }
    )


def without_places(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a variant's configuration without the path of its model's weights."""
    model = configuration.get("model") or {}
    if "weights" not in model:
        return dict(configuration)
    return {**configuration, "model": {**model, "weights": "from a file"}}


def locked_hash(locked: Locked) -> str:
    """Return the hash of what a plan locks before its first run."""
    return _digest({"version": IDENTITY_VERSION, "locked": locked.plain()})


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
