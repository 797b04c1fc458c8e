"""What is brought to a node for its jobs: in pieces, checked, then where jobs find it; and given to other nodes."""

import threading
from collections.abc import Sequence

from ablation.executors.nodes.files import Incoming, checked, read_piece
from ablation.executors.nodes.folder import NodeFolder
from ablation.executors.nodes.refusing import Refused, writing


class Arrivals:
    """Data and code on their way to a node's folder, by what each delivery is called; in any thread."""

    def __init__(self, folder: NodeFolder) -> None:
        self._folder = folder
        self._under_way: dict[str, Incoming] = {}
        self._changed = threading.Lock()

    def expect(self, *, files: Sequence[object]) -> str:
        """Make room for files, and return what their delivery is called."""
        incoming = Incoming(self._folder.beside(), checked(list(files), is_taken=lambda _: True))
        with writing():
            incoming.begin()
        with self._changed:
            self._under_way[incoming.folder.name] = incoming
        return incoming.folder.name

    def put(self, *, delivery: str, name: str, offset: int, data: bytes) -> None:
        """Take a piece of a file."""
        with self._changed:
            incoming = self._known(self._under_way.get(delivery))
        with writing():
            incoming.write(name, offset, data)

    def complete(self, *, delivery: str, need: str) -> None:
        """Put what has arrived where jobs find it.

        Raises:
            CarriedWrong: it is not what was announced.
        """
        with self._changed:
            incoming = self._known(self._under_way.pop(delivery, None))
        try:
            with writing():
                self._folder.incoming(need, incoming)
        finally:
            incoming.discard()

    def piece_of_need(self, *, need: str, name: str, offset: int) -> bytes:
        """Return a piece of what is here, for another node."""
        path = self._folder.found(need, name)
        if path is None:
            raise Refused("stale", f"{need} is not here")
        return read_piece(path, offset)

    def _known(self, incoming: Incoming | None) -> Incoming:
        if incoming is None:
            raise Refused("stale", "nothing of that name is on its way")
        return incoming
