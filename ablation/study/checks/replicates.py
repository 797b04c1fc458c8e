"""Refuses folds and drawn test splits beside what they cannot go with, before any data is read."""

from collections.abc import Iterator, Mapping
from typing import Any

from ablation.study.factors import levels_of
from ablation.study.file import Location
from ablation.study.sections import DividedData, section_of

Found = tuple[Location, str]
OF_FOLDS = "`replicates` takes every example as a test example once per repeat"


def replicate_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Yield what neither `replicates` nor `data.test` goes with."""
    data, replicates = values.get("data"), values.get("replicates")
    given: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    is_divided = issubclass(section_of("data", values), DividedData)
    if "test" in given and isinstance(given.get("name"), str) and not is_divided:
        yield ("data", "test"), f"{given['name']} has a test split of its own; leave test out"
    if replicates is None:
        return
    if values.get("seeds") is not None:
        yield (
            ("replicates",),
            "stands in the place of `seeds`, and the file has both: leave one out (folds are the replicates)",
        )
    if data is None:
        yield ("replicates",), "divides the study's data set, and the study has no `data`; name it, or use `seeds`"
        return
    if isinstance(data, list | tuple):
        yield ("replicates",), "divides one data set, and the study has several; name one, or use `seeds`"
        return
    if isinstance(given.get("name"), str) and not is_divided:
        yield (
            ("replicates",),
            f"{given['name']} has a test split of its own, and folds are for data without one; use `seeds`",
        )
    if given.get("test") is not None:
        yield ("data", "test"), f"{OF_FOLDS}; leave test out, or use `seeds`"
    if values.get("tune") is not None:
        yield (
            ("tune",),
            f"{OF_FOLDS}, so tuning would have seen what it is tested on; tune with `seeds` and `data.test` instead",
        )
    factors = values.get("factors")
    levels = levels_of(factors["data.limit"]) if isinstance(factors, Mapping) and "data.limit" in factors else ()
    if levels:
        yield (
            ("factors", "data.limit"),
            "folds are parts of the examples that limit leaves, so variants would be tested on different ones",
        )
