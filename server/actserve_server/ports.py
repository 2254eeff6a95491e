"""A port held for several processes that listen on it: found once, and refused to whoever does not belong to them.

Knows sockets, and neither processes nor gRPC. Linux gives a port to several sockets when each of them has SO_REUSEPORT and
they belong to one user, so that two servers started by mistake would share one unnoticed: hence the port is taken *without*
the option, which fails when anybody has it, and is opened to others afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from actserve_server.config import ConfigError

__all__ = ["Held", "answers"]

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def answers(path: str) -> bool:
    """Whether somebody listens on the Unix socket at a path; what a server that was killed left there does not count.

    >>> answers("/nowhere")
    False
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except (BlockingIOError, TimeoutError):
            return True  # somebody who does not get to it
        except OSError:
            return False
        return True


_PROBE_S = 1.0


class Held:
    """A TCP address that is bound until `close`, and on which nobody listens by it.

    >>> with Held("127.0.0.1:0") as held:
    ...     held.address
    '127.0.0.1:...'

    Other sockets of this user with SO_REUSEPORT may listen there; one without is refused. Raises ConfigError when the address is
    in use, or not one of this machine.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._sockets: list[socket.socket] = []
        number = int(port)
        try:
            # A name may stand for several addresses, of which the machine need not have all.
            for family, _, _, _, where in socket.getaddrinfo(
                host.strip("[]"), number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                try:
                    taken = _taken(family, (where[0], number, *where[2:]))
                except OSError as error:
                    if error.errno not in _NOT_HERE:
                        raise
                    continue
                self._sockets.append(taken)
                number = taken.getsockname()[1]
            if not self._sockets:
                raise OSError
        except OSError:
            self.close()
            raise ConfigError(
                f"--address: can't listen on {address}; is it in use, or not an address of this machine?"
            ) from None
        self.address = f"{host}:{number}"

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        for taken in self._sockets:
            taken.close()


def _taken(family: int, where: tuple[object, ...]) -> socket.socket:
    taken = socket.socket(family, socket.SOCK_STREAM)
    with contextlib.ExitStack() as stack:
        stack.callback(taken.close)
        try:
            taken.bind(where)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            # Connections of a server that has just ended linger; with this option they don't count, but who listens does.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(where)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stack.pop_all()
    return taken
