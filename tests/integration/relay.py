"""A relay that behaves as the one between Windows and WSL2 does.

A thread for each connection, one loop in it, blocking calls, small buffers: while it waits for one end to take what
came from the other, it takes nothing itself. A port is there some time after the worker has opened it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_BUFFER_BYTES = 16 * 1024
#: As long as it takes until a port of the other side is found.
DELAY_SECONDS = 0.2


class Relay:
    """Listens at ports of one address, and relays to the same ports of another.

    Parameters
    ----------
    here, there : str
        IPv4 addresses.
    """

    def __init__(self, here: str, there: str) -> None:
        self._here = here
        self._there = there
        self._listeners: dict[int, socket.socket] = {}
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        #: Connections relayed so far, by port.
        self.count: dict[int, int] = {}
        #: Bytes relayed so far.
        self.nbytes = 0
        #: Makes other bytes of those that go there, by port; and of those that come back.
        self.change: tuple[dict[int, Callable[[bytes], bytes]], dict[int, Callable[[bytes], bytes]]] = ({}, {})

    def open(self, port: int) -> None:
        """Relay a port from now on."""
        listener = socket.create_server((self._here, port))
        self._listeners[port] = listener
        self._start(self._accept, listener, port)

    def follow(self, pid: int, stop: threading.Event) -> None:
        """Relay each port that a process opens, some time after it has, until told to stop."""
        seen: dict[int, float] = {}
        while not stop.wait(0.02):
            for port in listened(pid, self._there):
                since = seen.setdefault(port, time.monotonic())
                if port not in self._listeners and time.monotonic() - since >= DELAY_SECONDS:
                    self.open(port)

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            for pair in self._pairs:
                for end in pair:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut all connections, and listen no more."""
        for listener in self._listeners.values():
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *about: object) -> None:
        thread = threading.Thread(target=work, args=about, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, port: int) -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            self.count[port] = self.count.get(port, 0) + 1
            self._start(self._relay, end, port)

    def _relay(self, end: socket.socket, port: int) -> None:
        with end, socket.socket() as other, contextlib.suppress(OSError):
            for one in (end, other):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            other.connect((self._there, port))
            pair = (end, other)
            with self._lock:
                self._pairs.add(pair)
            try:
                self._pump(end, other, port)
            finally:
                with self._lock:
                    self._pairs.discard(pair)

    def _pump(self, end: socket.socket, other: socket.socket, port: int) -> None:
        while True:
            for one in select.select([end, other], [], [])[0]:
                raw = one.recv(_BUFFER_BYTES)
                if not raw:
                    return
                change = self.change[one is other].get(port)
                # Here it stands still if that end waits for this one to be read first.
                (other if one is end else end).sendall(raw if change is None else change(raw))
                self.nbytes += len(raw)


def listened(pid: int, address: str) -> set[int]:
    """Return the TCP ports that a process listens at, at an IPv4 address."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
    inodes = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        host, port = words[1].split(":")
        if host == wanted and words[3] == "0A":
            inodes.add((words[9], int(port, 16)))
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(str(entry.readlink()))
    return {port for inode, port in inodes if f"socket:[{inode}]" in own}


@contextlib.contextmanager
def relayed(pid: int, here: str = "127.0.0.2", there: str = "127.0.0.1") -> Iterator[Relay]:
    """Relay what a process listens at to another address, with equal ports."""
    relay, stop = Relay(here, there), threading.Event()
    thread = threading.Thread(target=relay.follow, args=(pid, stop), daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        stop.set()
        thread.join()
        relay.close()
