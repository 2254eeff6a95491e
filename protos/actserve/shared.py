"""Memory that a client and a server on one host share: how it is made, mapped, and asked for.

The server makes a region, an anonymous file (memfd) that is sealed against growing and shrinking, and passes its descriptor over
a Unix socket that lies beside the one of gRPC. So there is no name in any file system, the memory is gone when both ends have closed
it, nobody can reach the region of another, and a truncation can't crash who reads. Both ends use this module. It knows the operating
system, and neither gRPC nor what is computed.

    client                      server
       ── connects ──────────────▶
       ◀─ Hello ──────────────────
       ── Request(CREATE, n) ─────▶
       ◀─ Answer(id) + descriptor
       ── Request(RELEASE, id) ───▶   no answer
       ── closes ─────────────────▶   all regions of the connection are gone
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import struct
import sys
import weakref
from typing import Any, NamedTuple

SUPPORTED = sys.platform == "linux" and hasattr(os, "memfd_create")
"""Whether this system has sealed anonymous files."""

SUFFIX = ".shm"
"""The broker's socket is called as gRPC's, and this."""

ID_BYTES = 16
"""128 random bits: who knows them was given them."""

_MAGIC = b"actshm\x00\x02"
"""The last byte is the version: both ends must be of the same one, or else the client does without. It also covers what a job says of its
places (`SharedMemory`): a server of version 1 would overlook that a region begins in the middle of a tensor."""

_HELLO = struct.Struct("<8sQ")
_REQUEST = struct.Struct(f"<BQ{ID_BYTES}s")
_ANSWER = struct.Struct(f"<BQ{ID_BYTES}s")

CREATE, RELEASE = 1, 2
"""What a client may ask."""

GRANTED, LIMIT_REACHED, REFUSED = 0, 1, 2
"""What a server may answer: the region; that there is no room for it; that the request made no sense."""

# <fcntl.h> of Linux; Python 3.11's fcntl has them only where it was built against a new enough C library.
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW = 1, 2, 4
_SEALS = _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW


class ProtocolError(OSError):
    """Unexpected error: the other end of the socket does not speak this protocol, or not this version."""


class Hello(NamedTuple):
    """What a server says first."""

    most_bytes: int
    """How much one client may have, all together."""

    def pack(self) -> bytes:
        """The message."""
        return _HELLO.pack(_MAGIC, self.most_bytes)

    @classmethod
    def unpack(cls, raw: bytes) -> Hello:
        """Read a message. Raises ProtocolError."""
        if len(raw) != _HELLO.size or raw[: len(_MAGIC)] != _MAGIC:
            raise ProtocolError("not a broker of shared memory, or of another version")
        return cls(_HELLO.unpack(raw)[1])


class Request(NamedTuple):
    """What a client asks: CREATE so many bytes, or RELEASE a region."""

    what: int
    nbytes: int = 0
    region: bytes = bytes(ID_BYTES)

    def pack(self) -> bytes:
        """The message."""
        return _REQUEST.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Request:
        """Read a message. Raises ProtocolError."""
        if len(raw) != _REQUEST.size:
            raise ProtocolError(f"a request of {len(raw)} bytes")
        return cls(*_REQUEST.unpack(raw))


class Answer(NamedTuple):
    """What a server answers to CREATE; the descriptor comes along where it is GRANTED."""

    outcome: int
    nbytes: int = 0
    region: bytes = bytes(ID_BYTES)

    def pack(self) -> bytes:
        """The message."""
        return _ANSWER.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Answer:
        """Read a message. Raises ProtocolError."""
        if len(raw) != _ANSWER.size:
            raise ProtocolError(f"an answer of {len(raw)} bytes")
        return cls(*_ANSWER.unpack(raw))


LARGEST_MESSAGE = max(_HELLO.size, _REQUEST.size, _ANSWER.size) + 1
"""What to receive at most; one byte more than any message, so that a longer one shows."""


def endpoint() -> socket.socket:
    """A socket of the kind that both ends use: each message is a packet, so none needs to be cut."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def rounded(nbytes: int) -> int:
    """The size of the region for so many bytes: one of eight sizes between powers of two, so that regions can be used again.

    >>> rounded(100_000_000)
    100663296

    At most an eighth is lost, or what is lacking to a page.
    """
    step = max(1 << max(nbytes.bit_length() - 4, 0), mmap.PAGESIZE)
    return -(-nbytes // step) * step


def create(nbytes: int) -> int:
    """Make a region, whose pages are all there, and return its descriptor. Raises OSError where there is no memory for it."""
    descriptor = os.memfd_create("actserve", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, nbytes)
        # A lack of memory is an error here, and would be the end of whoever touches a page that is not there later.
        os.posix_fallocate(descriptor, 0, nbytes)
        fcntl.fcntl(descriptor, _F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check(descriptor: int, nbytes: int) -> None:
    """That what was received is a region of that size, which nobody can change. Raises ProtocolError."""
    try:
        seals = fcntl.fcntl(descriptor, _F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & _SEALS != _SEALS or os.fstat(descriptor).st_size != nbytes:
        raise ProtocolError("what the server sent is no sealed region of the size that was asked for")


class _Libc:
    """mmap of the C library: Python's own keeps a descriptor open for each mapping, and holds the interpreter while pages are mapped."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self.mmap = library.mmap
        self.mmap.restype = ctypes.c_void_p
        self.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self.munmap = library.munmap
        self.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Mapping:
    """A region in the memory of this process, from now until nothing refers to it. `numpy.asarray` makes it an array of bytes.

    Raises OSError when it can't be mapped. The descriptor is not needed afterwards.
    """

    _libc: _Libc | None = None

    def __init__(self, descriptor: int, nbytes: int) -> None:
        libc = Mapping._libc = Mapping._libc or _Libc()
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | mmap.MAP_POPULATE
        address = libc.mmap(None, nbytes, protection, flags, descriptor, 0)
        if address is None or address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.address = int(address)
        self.nbytes = nbytes
        # The kernel does it at the end of the process anyway, when arrays may still be in use.
        weakref.finalize(self, libc.munmap, address, nbytes).atexit = False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"version": 3, "shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False)}


__all__ = [
    "CREATE",
    "GRANTED",
    "ID_BYTES",
    "LARGEST_MESSAGE",
    "LIMIT_REACHED",
    "REFUSED",
    "RELEASE",
    "SUFFIX",
    "SUPPORTED",
    "Answer",
    "Hello",
    "Mapping",
    "ProtocolError",
    "Request",
    "check",
    "create",
    "endpoint",
    "rounded",
]
