"""A proxy on this machine that breaks its connections when so many bytes have gone through: a bad network."""

import socket
import threading
from contextlib import suppress

PIECE = 65536


class BreakingProxy:
    """Forwards to a port of this machine. `allow` is how many bytes clients may send from now on; None: any number.

    Past that every connection is cut, in the middle of whatever it carries, and new ones are too.
    """

    def __init__(self, target: int) -> None:
        self.sent = 0
        self.allow: int | None = None
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for one, other, counted in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._carry, args=(one, other, counted), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                if counted and not self._may_pass(len(piece)):
                    break
                target.sendall(piece)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _may_pass(self, size: int) -> bool:
        if self.allow is None:
            self.sent += size
            return True
        if self.allow < size:
            return False
        self.allow -= size
        self.sent += size
        return True
