"""Describes report.json: the JSON schema of what an analysis is written as, made from its records."""

from typing import Any

from pydantic import TypeAdapter

from ablation.analysis.analysis_record import Analysis

SCHEMA_VERSION = 7
"""Counts up whenever a field of report.json is renamed, removed or gets another meaning; new fields leave it."""


def report_schema() -> dict[str, Any]:
    """Return the JSON schema of report.json; descriptions are the records' docstrings."""
    schema = TypeAdapter(Analysis).json_schema(mode="serialization")
    schema["title"] = "report.json of an ablation study"
    schema["properties"] = {"schema_version": {"const": SCHEMA_VERSION}, **schema["properties"]}
    schema["required"] = ["schema_version", *schema["required"]]
    return schema
