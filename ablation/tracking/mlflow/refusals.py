"""Tells what a store refuses for good, for what it is told, from what fails for how the store is."""

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE, ErrorCode
from sqlalchemy.exc import DataError, SQLAlchemyError

ARTIFACT_STORES = frozenset({"azure", "boto3", "botocore", "google", "paramiko"})
TOO_LARGE = frozenset({413, 414})
"""What a proxy answers that takes no file so large."""
REFUSALS = frozenset(map(ErrorCode.Name, (BAD_REQUEST, INVALID_PARAMETER_VALUE)))
"""What MLflow answers where it will answer so again."""


def is_of_a_store(error: Exception) -> bool:
    """Whether MLflow, or what it keeps runs and files in, has failed; every kind of store has errors of its own."""
    home = type(error).__module__.partition(".")[0]
    return isinstance(error, MlflowException | SQLAlchemyError | ImportError | OSError) or home in ARTIFACT_STORES


def is_refusal(error: Exception) -> bool:
    """Whether a store will refuse the same again: what it is told, not how it is, is at fault."""
    if isinstance(error, OSError) and getattr(getattr(error, "response", None), "status_code", 0) in TOO_LARGE:
        return True
    if isinstance(error, MlflowException):
        cause = error.__cause__  # MLflow answers BAD_REQUEST where a database's connection was lost, too
        return is_refusal(cause) if isinstance(cause, Exception) else error.error_code in REFUSALS
    is_of_the_values = isinstance(error, ValueError | TypeError | LookupError) and not isinstance(error, OSError)
    return is_of_the_values or isinstance(error, DataError)
