"""A process beside this one that answers lines, one after another: started, asked, ended when it takes too long, and replaced when it is gone.

Both ends are here. A companion says that it takes a line up before it does, so that the time of its start counts for nobody, and a
line that none took up is given to the next. It ends by itself when nothing comes for long, and when its input closes because
the parent is gone. Knows neither what is asked nor what the answers mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

__all__ = ["Companion", "CompanionBusy", "CompanionEnded", "CompanionFailed", "CompanionTooSlow", "answer_lines"]

# It must find the same modules as the parent, however the parent was told of them.
_START = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "importlib.import_module(sys.argv[2]).main(*sys.argv[3:])"
)
_TAKEN = b"taken\n"
_LONGEST_START_S = 120.0
"""How long one may take to start, and to come to the end of what it does meanwhile, on a busy machine."""


class CompanionFailed(Exception):
    """Expected error: the process is gone, or could not be started."""


class CompanionEnded(CompanionFailed):
    """Expected error: the process ended while it was at a line: it ran out of memory, or was killed."""


class CompanionTooSlow(CompanionFailed):
    """Expected error: the process took longer than it may, and was ended."""


class CompanionBusy(CompanionFailed):
    """Expected error: others were asking it all the time."""


class Companion:
    """A process that runs `main` of a module, started when it is needed, and again after it has gone.

    >>> companion = Companion("actserve_server.kernels.cold")
    >>> companion.ask(b"line", within_s=10)
    b'answer'
    >>> companion.close()

    Threads may share one; their lines are answered one after another.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._arguments: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stays = False
        self._closing = False

    def start(self, *arguments: str) -> None:
        """Start it now, and again as soon as one had to be ended, with arguments for `main`; returns at once."""
        with self._lock:
            self._stays, self._arguments = True, arguments
            self._start_again()

    def ask(self, line: bytes, within_s: float, *, wait_s: float = -1.0) -> bytes:
        """The answer to a line, without its end; `within_s` begins when the line is taken up.

        Raises CompanionFailed: CompanionEnded, CompanionTooSlow, or CompanionBusy where others' lines took longer than `wait_s`.
        """
        if not self._lock.acquire(timeout=wait_s):
            raise CompanionBusy("the lines before it have taken all the time")
        try:
            return self._ask(line + b"\n", within_s)
        except BaseException:
            # An answer that comes later must not pass for another's.
            self._end()
            self._start_again()
            raise
        finally:
            self._lock.release()

    def close(self, *, for_good: bool = False) -> None:
        """End it; a line that it is at fails. Unless it is `for_good`, a later line starts another."""
        self._closing = True
        process = self._process
        if process is not None:
            _kill(process)
        with self._lock:
            self._stays = False
            self._end()
            self._closing = for_good

    @property
    def pid(self) -> int | None:
        """The process, where there is one."""
        process = self._process
        return None if process is None else process.pid

    def _ask(self, line: bytes, within_s: float) -> bytes:
        for _ in range(2):
            process = self._running()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(line)
                process.stdin.flush()
            if _read_line(process, _LONGEST_START_S, len(_TAKEN)) == _TAKEN:
                answer = _read_line(process, within_s)
                if not answer:
                    raise CompanionEnded("it ended")
                return answer[:-1]
            # It had gone, or went while it was idle, and another is as good.
            self._end()
        raise CompanionFailed("it ended before it began")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closing:
            raise CompanionFailed("it is closed")
        if self._process is None:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START, json.dumps(sys.path), self._module, *self._arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    # An interrupt typed at a terminal is the parent's to handle: it may be draining.
                    start_new_session=True,
                )
            except OSError as error:
                raise CompanionFailed(str(error)) from error
        return self._process

    def _start_again(self) -> None:
        if self._stays:
            with contextlib.suppress(CompanionFailed):
                self._running()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)


def _read_line(process: subprocess.Popen[bytes], within_s: float, most: int = 1 << 16) -> bytes:
    """A line, or nothing where the process ends before its end. Raises CompanionTooSlow."""
    assert process.stdout is not None
    deadline = time.monotonic() + within_s
    gathered = b""
    while not gathered.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0.0))
        if not ready:
            raise CompanionTooSlow(f"no answer in {within_s:g} s")
        part = os.read(process.stdout.fileno(), most)
        if not part:
            return b""
        gathered += part
    return gathered


# ---- the other end -------------------------------------------------------------------------------------------------


def answer_lines(
    answer: Callable[[bytes], bytes],
    *,
    idle_s: float | None,
    meanwhile: Callable[[], bool] = lambda: False,
    is_worn: Callable[[], bool] = lambda: False,
) -> None:
    """What `main` of a companion's module runs: lines in, answers out, until the input closes or nothing comes for `idle_s`.

    While nothing is asked `meanwhile` does a step of what is useful, and returns whether there is more to do. Where it `is_worn` a
    fresh process takes the place of this one, between two lines, and the parent notices nothing.
    """
    # Whatever a library prints must not pass for an answer.
    to_parent = os.dup(1)
    os.dup2(2, 1)
    # Without a buffer: a line in one would not be seen by `select`, nor by a fresh process.
    lines = os.fdopen(os.dup(0), "rb", buffering=0)
    more = True
    while True:
        if is_worn():
            os.dup2(to_parent, 1)
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606  # as this one was started
        if not select.select([lines], [], [], 0.0)[0]:
            if more:
                more = meanwhile()
                continue
            if not select.select([lines], [], [], idle_s)[0]:
                return
        line = lines.readline()
        if not line:
            return
        try:
            _say(to_parent, _TAKEN)
            _say(to_parent, answer(line[:-1]) + b"\n")
        except BrokenPipeError:  # the parent was killed, and its input with it
            return
        more = True


def _say(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]
