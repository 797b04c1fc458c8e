"""Writes a commented study file from a few choices, for `ablation define`."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.study.file import plain_text, value_text
from ablation.study.sections import OF_MODELS, SECTIONS, Cnn, Section, Training, names_of

_HEADER = """\
# A study file of ablation: a baseline, the parts to vary and the seeds.
# Run it with `ablation study {path}`; `ablation plan {path}` shows what it would cost.
"""


def study_text(
    *,
    path: str,
    name: str,
    data: str,
    root: str | None,
    factors: Mapping[str, Sequence[Any]],
    seeds: int | Sequence[int] | Mapping[str, Any],
    epochs: int,
) -> str:
    """Return a study file whose baseline has the first level of each factor.

    `factors` are paths below `model`; a factor with one level is no factor and only sets the baseline.
    """
    model = {"name": "cnn", **{factor.removeprefix("model."): levels[0] for factor, levels in factors.items()}}
    varied = {factor: levels for factor, levels in factors.items() if len(levels) > 1}
    lines = [
        _HEADER.format(path=" ".join(path.splitlines())),
        f"name: {plain_text(name)}",
        "description: Which of these parts help, and by how much?",
        "",
        *_section("data", _data_model(data), {"name": data, **({"root": root} if root else {})}),
        *_section("model", Cnn, model, title="the baseline, which every variant is compared with"),
        *_section("training", Training, {"epochs": epochs}),
        "# The parts to vary: paths into this file, the baseline's level among them.",
        "factors:",
        *(f"  {factor}: [{', '.join(map(_text, levels))}]" for factor, levels in varied.items()),
        "design: factorial            # every combination of levels",
        f"seeds: {_text(seeds):<22} # runs per variant; the same seed means the same data order in every variant",
        "",
        "# A difference of less than `meaningful` does not matter to you; decide it before the first run.",
        "metric: {name: test_accuracy, direction: maximize, meaningful: 0.005}",
        "# questions:                 # default: one per factor, its average effect on the metric",
        *(f"#   - effect: {factor}" for factor in varied),
        *([f"#   - interaction: [{', '.join(list(varied)[:2])}]"] if len(varied) > 1 else []),
        "# alpha: 0.05                # chance of a wrong answer among all questions",
    ]
    return "\n".join(lines) + "\n"


def _data_model(name: str) -> type[Section]:
    return next(model for model in SECTIONS["data"] if name in names_of(model))


def _section(key: str, model: type[Section], given: Mapping[str, Any], *, title: str = "") -> list[str]:
    """Return a section with the given keys set and every other key as a comment with its default."""
    lines = [f"{key}:" + (f"{'':<22}# {title}" if title else "")]
    ordered = sorted(model.model_fields.items(), key=lambda item: (item[0] != "name", item[0] in OF_MODELS))
    for field, info in ordered:
        value = given.get(field, None if info.is_required() else info.default)
        text = f"{'' if field in given else '# '}{field}:" + (f" {_text(value)}" if value is not None else "")
        lines.append(f"  {text:<34} # {info.description}" if info.description else f"  {text}")
    return [*lines, ""]


def _text(value: Any) -> str:
    return plain_text(value) if isinstance(value, str) else value_text(value)
