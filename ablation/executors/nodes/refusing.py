"""What a node says when it does not do what it was asked."""

import contextlib
from collections.abc import Iterator

from ablation.errors import CarriedError, is_no_room


class Refused(CarriedError):
    """A node does not do what it was asked: `kind` is `busy`, `stale`, `ending`, `full` or `wrong`."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Refuse what cannot be written here."""
    try:
        yield
    except OSError as error:
        raise Refused("full" if is_no_room(error) else "wrong", f"its folder cannot be used: {error}") from error
