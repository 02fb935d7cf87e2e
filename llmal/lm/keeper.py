"""Keeps a server as a child and ends it, with all its children, when llmal ends, however llmal ends.

Run as a script of its own with nothing but the standard library: `keeper.py LOG COMMAND...`. Standard input
is a pipe whose other end llmal holds: it closes when llmal ends, even by `kill -9`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

GRACE_S = 10.0
"""Seconds a server gets to end by itself before it is killed."""

LOOK_EVERY_S = 0.2
"""Seconds between two looks at child and parent."""

MOST_LOG_BYTES = 20_000_000
"""The log starts over beyond this size."""

SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""Ends of the names of environment variables whose values never reach the log."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal a process gets when its parent dies (Linux)."""


def main(log: str, command: list[str]) -> int:
    """Run the command until it ends, or the parent does, or a signal asks; returns its exit code."""
    parent, stop = os.getppid(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a group of its own, so that all its children can be ended with it
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    assert child.stdout is not None
    copying = threading.Thread(target=_copy, args=(child.stdout, Path(log)), daemon=True)
    copying.start()
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    while child.poll() is None and not stop.wait(LOOK_EVERY_S):
        if os.getppid() != parent:  # the pipe may live on in a forked child of llmal
            break
    _end(child)
    copying.join(timeout=2.0)
    return child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, then kill what is left of its group: workers outlive a server that is killed."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            sys.stderr.write("killed after the grace period\n")
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def _end_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_for_end_of_input(stop: threading.Event) -> None:
    while os.read(0, 1024):
        continue
    stop.set()


def _copy(lines: IO[bytes], log: Path) -> None:
    """Write the server's lines to the log without the secrets among them."""
    secrets = [
        value.encode() for name, value in os.environ.items() if name.endswith(SECRETS) and len(value) >= 8
    ]
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb", buffering=0) as out:
        for line in lines:
            for secret in secrets:
                line = line.replace(secret, b"[key]")
            if out.tell() > MOST_LOG_BYTES:
                out.truncate(0)
            out.write(line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
