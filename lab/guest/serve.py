"""Runs in the guest: commands, and what WSL does for connections to ``localhost``. Standard library only.

Each connection begins with a line of JSON:

- ``{"run": [WORDS], "environment": {}, "folder": PATH}``: what the command prints follows, then a line ``exit CODE``.
  The command is ended with the connection.
- ``{"ports": true}``: a line of JSON with the ports of 127.0.0.1 that somebody listens at.
- ``{"port": NUMBER}``: the connection goes on to that port.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import threading

PORT = 47100
_LOOPBACK, _LISTEN = "0100007F", "0A"


def main() -> None:
    """Serve until the guest is switched off."""
    server = socket.create_server(("0.0.0.0", PORT))
    print("lab: the guest is ready", flush=True)
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_serve, args=[connection], daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        line = b""
        while not line.endswith(b"\n"):
            if not (byte := connection.recv(1)):
                return
            line += byte
        asked = json.loads(line)
        if "run" in asked:
            _run(connection, asked)
        elif "ports" in asked:
            connection.sendall(json.dumps(_ports()).encode() + b"\n")
        else:
            with socket.create_connection(("127.0.0.1", asked["port"])) as inner:
                inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                relay(connection, inner)


def _run(connection: socket.socket, asked: dict[str, object]) -> None:
    environment = {**os.environ, **asked["environment"]}  # type: ignore[dict-item]
    process = subprocess.Popen(
        asked["run"], cwd=asked["folder"], env=environment, stdin=subprocess.DEVNULL,  # type: ignore[call-overload]
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        while True:
            ready, _, _ = select.select([process.stdout, connection], [], [])
            if connection in ready:
                return  # it is closed
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            connection.sendall(data)
        connection.sendall(f"\nexit {process.wait()}\n".encode())
    finally:
        process.terminate()
        process.wait()


def _ports() -> list[int]:
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return [int(row[1].split(":")[1], 16) for row in rows if row[3] == _LISTEN and row[1].startswith(_LOOPBACK)]


def relay(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on in both directions, by one thread that waits for either side to take them, as wslrelay does."""
    goes_to = {one: other, other: one}
    while goes_to:
        ready, _, _ = select.select(list(goes_to), [], [])
        for source in ready:
            data = source.recv(65536)
            if data:
                goes_to[source].sendall(data)
            else:
                goes_to.pop(source).shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
