"""Derives the seed of each random stream from what it is for, never from the variant that uses it.

A stream's seed is a hash of (study seed, purpose, indices). Seed index 3 therefore means the same validation split,
initialization, data order, augmentation and dropout in every variant, so differences between variants are paired.
"""

import hashlib
from enum import StrEnum


class Purpose(StrEnum):
    """What a random stream is for."""

    SUBSET = "subset"
    VALIDATION = "validation"
    TRAINING_SAMPLE = "training sample"
    INITIALIZATION = "initialization"
    ORDER = "data order"
    AUGMENTATION = "augmentation"
    DROPOUT = "dropout"
    TUNING = "tuning"
    TEST = "test"
    FOLDS = "folds"


def stream_seed(study_seed: int, purpose: Purpose, *indices: int) -> int:
    """Return the seed, in [0, 2**63), of the stream for a purpose and indices (seed index, epoch)."""
    text = "/".join(["ablation-stream-1", str(study_seed), purpose.value, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
