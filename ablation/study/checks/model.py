"""Refuses arguments of a user's model function that have the name of a key which the engine carries out itself."""

from collections.abc import Iterator, Mapping
from typing import Any

from ablation.code import CodeFolders, is_code
from ablation.study.file import Location


def model_problems(values: Mapping[str, Any], code: CodeFolders) -> Iterator[tuple[Location, str]]:
    """Yield the keys of an unchecked `model` section that its function takes as arguments too; nothing is executed."""
    model = values.get("model")
    name = model.get("name") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(name, str) or not is_code(name):
        return
    given = [key for key in ("weights", "frozen") if key in model]
    signature = code.training_signature(name) if given else None
    for key in given if signature is not None else ():
        if signature is not None and key in signature.parameters:
            yield (
                ("model", key),
                f"is a key of every model, carried out once that is built, and {name} has an argument of that name; "
                f"give the argument another name, such as own_{key}",
            )
