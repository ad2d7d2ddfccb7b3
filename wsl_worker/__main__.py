"""``python -m wsl_worker``: run a worker until it is told to stop, or until its parent is gone."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any

import zmq

if sys.platform == "win32":
    sys.exit("A worker runs on Linux. Run `sklearn-wsl-gpu setup`, then `sklearn-wsl-gpu worker start` or offload().")

import resource

from sklearn_wsl_gpu.errors import OffloadError
from sklearn_wsl_gpu.keys import ensure_keys, read_worker_keys
from sklearn_wsl_gpu.pool.machine import total_memory
from wsl_worker import listening
from wsl_worker.bulk import Bulk
from wsl_worker.fleet import Fleet
from wsl_worker.front import Front
from wsl_worker.scheduler import Scheduler
from wsl_worker.supervisor import Supervisor

_DESCRIPTORS = 65_536


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wsl_worker", description=__doc__)
    parser.add_argument(
        "--listen",
        default="tcp://127.0.0.1:*",
        help="endpoint to bind: tcp://ADDRESS:PORT; only this machine reaches the default, tcp://127.0.0.1:*",
    )
    parser.add_argument(
        "--stream-port",
        type=int,
        default=0,
        help="port for the arrays of clients that share no memory with the worker (default: any)",
    )
    parser.add_argument(
        "--vsock", action="store_true", help="take arrays by AF_VSOCK too; inside WSL2 that is done anyway"
    )
    parser.add_argument("--engine", default="auto", help="engine to compute with (default: auto)")
    parser.add_argument(
        "--device",
        default="auto",
        help="what it computes on: auto (every GPU, as sessions come), cpu, or cuda:N; several, separated by commas, "
        "have an executor each (default: auto)",
    )
    parser.add_argument(
        "--keys", help="directory with the keys; new ones are made if it has none; - reads them from standard input"
    )
    parser.add_argument("--model-bytes", type=int, default=2**30, help="memory for kept models (default: 1 GiB)")
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="read keys, engine, device and model bytes from standard input, and end when it is closed",
    )
    return parser.parse_args()


def _settings(options: argparse.Namespace) -> tuple[str, list[str], int]:
    """Return secret key, allowed client keys, and the pid of the parent (0 for none, or one of another kernel)."""
    given: dict[str, Any]
    if options.embedded:
        given = _given()
        options.engine, options.device, options.model_bytes = (given[n] for n in ("engine", "device", "model_bytes"))
        return given["secret"], given["clients"], int(given.get("parent", 0))
    if options.keys == "-":
        given = _given()
        return given["secret"], given["clients"], 0
    if not options.keys:
        raise OffloadError("--keys DIRECTORY is needed, unless the worker is started by a client.")
    ensure_keys(options.keys)
    return *read_worker_keys(options.keys), 0


def _given() -> dict[str, Any]:
    try:
        given: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
        if isinstance(given["secret"], str) and isinstance(given["clients"], list):
            return given
    except (ValueError, KeyError, TypeError):
        pass
    raise OffloadError("Who starts a worker like this writes its keys to its standard input. Give --keys DIRECTORY.")


def _raise_limit() -> None:
    # Each session needs some; the usual limit is meant for programs that `select`. A boundless one is none to ask for:
    # there are libraries that look at every descriptor there may be.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> int:
    """Run a worker; return the exit code."""
    options = _parse()
    _raise_limit()
    if not zmq.has("curve"):
        print("This pyzmq has no CURVE security; install a pyzmq wheel.", file=sys.stderr)
        return 2
    try:
        host = listening.host_of(options.listen)
        secret, clients, parent = _settings(options)
    except OffloadError as error:
        print(error, file=sys.stderr)
        return 2
    fleet = Fleet(
        lambda device: Scheduler(Supervisor(options.engine, device, options.model_bytes)), options.device.split(",")
    )
    if listening.is_wsl2():
        address, _, port = options.listen.rpartition(":")
        options.listen = f"{address}:{(port == '*' and listening.port_left_by_windows(host)) or port}"
        options.stream_port = options.stream_port or listening.port_left_by_windows(host)
    try:
        bulk = _open_bulk(host, options)
        front = Front(options.listen, secret, clients, fleet, total_memory() or 2**62, bulk)
    except (zmq.ZMQError, OSError, OverflowError) as error:
        print(f"Cannot listen on {options.listen}, or at its port for arrays: {error}.", file=sys.stderr)
        return 2
    if not listening.is_loopback(host):
        print(listening.warning(front.endpoint, bulk.port), file=sys.stderr, flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: front.stop())
    watched: list[int] = []
    try:
        if options.embedded:
            watched = _watch_parent(front, parent)
        fleet.start()
        ready = {"endpoint": front.endpoint, "pid": os.getpid()}
        print(json.dumps(ready), flush=True)
        front.serve()
    finally:
        front.close()
        for descriptor in watched:
            os.close(descriptor)
    return 0


def _open_bulk(host: str, options: argparse.Namespace) -> Bulk:
    in_wsl = listening.is_wsl2()
    bulk = Bulk(host, options.stream_port, vsock=options.vsock or (in_wsl and listening.has_vsock()))
    # Else when it is needed. What is to be reached from elsewhere is there from the beginning.
    if options.stream_port or options.vsock or in_wsl or not listening.is_loopback(host):
        bulk.listen()
    return bulk


def _watch_parent(front: Front, parent: int) -> list[int]:
    # The end of standard input tells of the parent's death unless a forked child still holds the other end;
    # the process descriptor tells in any case.
    front.watch(sys.stdin.fileno(), front.stop)
    if not parent:
        return []
    try:
        process = os.pidfd_open(parent)
    except OSError:
        front.stop()
        return []
    front.watch(process, front.stop)
    return [process]


if __name__ == "__main__":
    sys.exit(main())
