"""What MLflow's database consists of; its own client makes it where it will lie, and leaves it half made if killed."""

from functools import cache
from typing import Any, cast

from alembic.script import ScriptDirectory
from mlflow.store.db import utils

from ablation.storage.first_start import Schema

database = cast("Any", utils)
"""Untyped, and private in part: nothing public makes the tables and closes the file after that."""


@cache
def mlflow_schema() -> Schema:
    script = ScriptDirectory.from_config(database._get_alembic_config(db_url=""))
    (head,) = script.get_heads()
    return Schema(
        tables=frozenset(database.Base.metadata.tables),
        indexes=frozenset(),  # they come with the revisions
        head=head,
        earlier=frozenset(revision.revision for revision in script.walk_revisions()) - {head},
        harmless={"experiments": "experiment_id = 0", "workspaces": "name = 'default'"},
        make=_make,
    )


def _make(address: str) -> None:
    engine = database.create_sqlalchemy_engine(address)
    try:
        database._initialize_tables(engine)
    finally:
        engine.dispose()
