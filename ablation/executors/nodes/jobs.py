"""Runs what was sent to a node in a process of its own, which alone unpickles it."""

import os
import pickle
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ablation.executors.interface import Place


def packed(function: Callable[..., Any], args: Sequence[Any]) -> bytes:
    """Return a call as it is sent; anything may be raised where it cannot be pickled."""
    return pickle.dumps((function, tuple(args)))


def run_packed(call: bytes, gpu: str | None, *place: Place) -> bytes:
    """Run a call, on one GPU where it gets one, and return its result, pickled.

    The GPU is the first that the process sees, and the only one: `cuda` means it.
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # heeded as long as nothing has been computed on one
    function, args = pickle.loads(call)  # noqa: S301 - of the coordinator, which may run anything here
    return pickle.dumps(function(*args, *place))


def visible_gpus() -> tuple[tuple[str, ...], str]:
    """Return the GPUs that PyTorch can use, as CUDA_VISIBLE_DEVICES calls them, and why, where there are none."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    gpus = tuple(named[:count]) if len(named) >= count else tuple(map(str, range(count)))
    return gpus, str(said[0].message).splitlines()[0] if said and not count else ""
