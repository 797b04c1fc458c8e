"""Lays out which variant has which part of the model, beside what it reaches and costs: the table reviewers know."""

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import VariantRow
from ablation.report.names import is_absent
from ablation.report.numbers import NONE, ratio_text
from ablation.report.table import Table
from ablation.report.tables import baseline_difference_cells, mean_and_sd, variant_text
from ablation.study.level_names import level_text, short_names

THERE, ABSENT = "✓", NONE


def parts(analysis: Analysis) -> Table:
    """Return a row per variant and a column per part, ✓ where it is there; no rows where no factor is a part.

    A part that is not there, but something else in its place, has its level's name.

    Parameters and FLOPs are as changes from the baseline's, where the models were measured.
    """
    metric = analysis.metric
    names = short_names(analysis.parts)
    sizes = tuple(size for size in ("parameters", "flops") if all(getattr(row, size) for row in analysis.variants))
    head = (
        "variant",
        *(names[part] for part in analysis.parts),
        f"{metric.label}, mean ± SD",
        "difference to baseline",
        "95 % interval",
        *({"parameters": "parameters", "flops": "FLOPs"}[size] for size in sizes),
    )
    baseline = next(row for row in analysis.variants if row.is_baseline)
    rows = tuple(
        (
            variant_text(row),
            *(_sign(row, part, analysis) for part in analysis.parts),
            mean_and_sd(row.spreads.get(metric.name), metric),
            *baseline_difference_cells(row, analysis),
            *("" if row.is_baseline else ratio_text(getattr(row, size) / getattr(baseline, size)) for size in sizes),
        )
        for row in analysis.variants
    )
    return Table(
        head=head,
        rows=rows if analysis.parts else (),
        text_columns=1 + len(analysis.parts),
        centred=len(analysis.parts),
    )


def _sign(row: VariantRow, part: str, analysis: Analysis) -> str:
    level = row.levels[part]
    if level == analysis.factors[part][0]:
        return THERE
    return ABSENT if is_absent(level) else level_text(level)
