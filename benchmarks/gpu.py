"""Measures all that is claimed of a GPU, in one command and under nine minutes, and writes one result file.

    python -m benchmarks.gpu --output benchmarks/results
    python -m benchmarks.gpu --parts convolutions,fused-bf16 --output benchmarks/results

It needs torch, torchvision and numpy, no installation and no data, and is run from the repository's root. The network
is the course assignment's (364,426 parameters) at batch 64 with crop and flip, on made-up images of CIFAR-10's shape.

Each part is measured by a process of its own with a time limit, and the file is written after each: what hangs or
crashes costs that part alone, and the file has what it said. `--list` says what the parts are. At the end a line for
each goal says whether it is met. `--try` only tries the parts, at small sizes, as `--device cpu` does: no figure of it
means anything.
"""

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.apart import Answer, run_apart
from benchmarks.gpu_case import MEASURED, TRIED, Sizes
from benchmarks.gpu_goals import Verdict, judge
from benchmarks.gpu_parts import PARTS, Part, chosen_parts
from benchmarks.machine import environment, write_record

TRIED_SHARE = 4.0
"""How many times as long a part may take where it is only tried: what stands in for the device is slow."""


def main() -> int:
    options = parse_options()
    if options.list:
        print("\n".join(f"{part.name:20} at most {part.limit_s:3.0f} s  {part.says}" for part in PARTS))
        return 0
    device, is_tried = torch.device(options.device), options.try_only or options.device == "cpu"
    parts = [part for part in chosen_parts(options.parts) if device.type == "cuda" or not part.needs_gpu]
    importlib.import_module("torch._dynamo")  # PyTorch's optimizers do, and each part would for seconds; it asks no GPU
    record: dict[str, Any] = {"environment": environment(options), "is_only_tried": is_tried, "parts": {}}
    answers: dict[str, Answer] = {}
    for part in parts:
        answer = answers[part.name] = _measure(part, device, is_tried=is_tried)
        record["parts"][part.name] = _plain(answer)
        record["goals"] = [dataclasses.asdict(verdict) for verdict in judge(answers)]
        print(f"\n{part.name} ({answer.seconds:.0f} s)\n{_shown(record['parts'][part.name])}", flush=True)
        if options.output is not None:
            write_record(options.output, record, name="gpu", kind=options.device.replace(":", ""))
    _print_goals(judge(answers), is_tried=is_tried)
    return 1 if any(answer.error for answer in answers.values()) else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--parts", type=_names, default=(), help="only these, with commas between; see --list")
    parser.add_argument("--list", action="store_true", help="print the parts and what they may take")
    parser.add_argument("--try", dest="try_only", action="store_true", help="small sizes: figures mean nothing")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _measure(part: Part, device: torch.device, *, is_tried: bool) -> Answer:
    sizes: Sizes = TRIED if is_tried else MEASURED
    limit_s = part.limit_s * (TRIED_SHARE if is_tried else 1)
    return run_apart(partial(part.measure, device, sizes), limit_s=limit_s)


def _plain(answer: Answer) -> Mapping[str, Any]:
    """Return what a part gave as JSON has it, or why it gave nothing."""
    if answer.error is not None:
        return {"seconds": answer.seconds, "error": answer.error, "said": answer.said}
    found = answer.value
    each = [dataclasses.asdict(one) for one in found] if isinstance(found, tuple) else dataclasses.asdict(found)
    return {"seconds": answer.seconds, "found": each}


def _shown(plain: Mapping[str, Any]) -> str:
    """Return a line for each thing that was measured; of what failed, what it said."""
    if "error" in plain:
        return "\n".join(filter(None, [plain["error"], plain["said"]]))
    found = plain["found"]
    return "\n".join(map(json.dumps, found)) if isinstance(found, list) else json.dumps(found, indent=1)


def _print_goals(verdicts: tuple[Verdict, ...], *, is_tried: bool) -> None:
    print("\nGoals" + (", only tried: no figure means anything" if is_tried else ""))
    for verdict in verdicts:
        print(verdict)


if __name__ == "__main__":
    sys.exit(main())
