"""What the stream carrier costs beside a bare loop of sendall and recv_into between the same two processes.

In turns (A B A B ...) the same bytes go

- bare: by ``sendall`` into ``recv_into``, in the two processes of the stream, from the client's warm memory into warm
  memory of the worker's front of the same kind as a pool's (a mapped memfd), and back into warm memory of the client;
- by the stream: `Moving.send` of an array to its span at the worker, and `Moving.receive` of the span;
- by a whole offloaded call, in which the worker looks at one element of each page and returns their sum.

Medians of the ratios of each turn are printed: 1 is as fast as the bare loop. What comes is compared with what was
sent.
It is done over the loopback interface, and, as root, between two network namespaces with a cable (veth).

Run it on an idle machine of Linux, with 4 GB of free memory:
python benchmarks/stream.py --json benchmarks/results/stream.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import platform
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_wsl_gpu import keys as key_files

_MB = 2**20
_SIZES = (1, 16, 64, 512)
#: Of the bare loop: way and bytes.
_HEAD = struct.Struct("<cQ")
_GOAL = 0.8
_SIDES = ("there", "call", "back")
_ROOT = Path(__file__).resolve().parents[1]
# Workers find the estimator by it, as an installed package.
sys.path[:0] = [str(_ROOT), str(_ROOT / "benchmarks" / "transport_estimators")]
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[1], *filter(None, [os.environ.get("PYTHONPATH")])])


def _warm(nbytes: int) -> np.ndarray:
    """Return touched memory of the kind that pools are of."""
    descriptor = os.memfd_create("bench")
    os.posix_fallocate(descriptor, 0, nbytes)
    memory = np.frombuffer(mmap.mmap(descriptor, nbytes), np.uint8)
    os.close(descriptor)
    memory[:] = 1
    return memory


def _receive(end: socket.socket, view: memoryview) -> None:
    got = 0
    while got < len(view):
        count = end.recv_into(view[got:])
        if not count:
            raise ConnectionError("The other end is gone.")
        got += count


def _serve_bare(server: socket.socket, nbytes: int) -> None:
    memory = _warm(nbytes).data
    end, _ = server.accept()
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = bytearray(_HEAD.size)
    with contextlib.suppress(ConnectionError):
        while True:
            _receive(end, memoryview(head))
            way, count = _HEAD.unpack(head)
            if way == b"t":
                _receive(end, memory[:count])
                end.sendall(b"k")
            else:
                end.sendall(memory[:count])


def serve(directory: str, address: str) -> None:
    """Run a worker's front with a bare loop beside it; tell where they are."""
    from wsl_worker.bulk import Bulk
    from wsl_worker.fleet import Fleet
    from wsl_worker.front import Front
    from wsl_worker.scheduler import Scheduler
    from wsl_worker.supervisor import Supervisor

    fleet = Fleet(lambda device: Scheduler(Supervisor("cpu", device, 2**30)), ["cpu"])
    secret, clients = key_files.read_worker_keys(directory)
    front = Front(f"tcp://{address}:*", secret, clients, fleet, 2**40, Bulk(address))
    server = socket.create_server((address, 0))
    threading.Thread(target=_serve_bare, args=(server, max(_SIZES) * _MB), daemon=True).start()
    fleet.start()
    print(json.dumps([front.endpoint, server.getsockname()[1]]), flush=True)
    front.serve()


def measure(directory: str, endpoint: str, port: int, rounds: int) -> None:
    """Print what was measured, as JSON."""
    import sklearn_wsl_gpu
    from sklearn_wsl_gpu import offload, sessions

    address = endpoint.partition("://")[2].rpartition(":")[0]
    end = socket.create_connection((address, port))
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    settings: dict[str, Any] = {"slot_bytes": 1024 * _MB, "slots": (1, 1, 1)}
    with offload(carrier="stream", fallback="raise", endpoint=endpoint, keys=directory, **settings) as about:
        session = sessions.obtain(about.settings)
        rows = [_row(size * _MB, end, session, rounds) for size in _SIZES]
    end.close()
    sklearn_wsl_gpu.shutdown()
    print(json.dumps(rows))


def _row(nbytes: int, end: socket.socket, session: Any, rounds: int) -> dict[str, Any]:
    from one_pass import Touch

    from sklearn_wsl_gpu.pool import placing

    data = np.random.default_rng(0).integers(0, 255, nbytes, np.uint8)
    back = _warm(nbytes).data
    refs, total = placing.plan([data])
    lease = session.pool.lease_input(total)

    def bare_there() -> None:
        end.sendall(_HEAD.pack(b"t", nbytes))
        end.sendall(data)
        assert end.recv(1) == b"k"

    def bare_back() -> None:
        end.sendall(_HEAD.pack(b"b", nbytes))
        _receive(end, back)

    def there() -> None:
        session.moving.send(session.next_number(), lease, refs, [data], None)

    def call() -> None:
        model.score_samples(matrix)

    def own_back() -> None:
        session.moving.receive(session.next_number(), lease, total, None)

    model, matrix = Touch(), data.view(np.float32).reshape(-1, 256)
    matrix[:] = np.arange(matrix.size, dtype=np.float32).reshape(matrix.shape)
    row: dict[str, Any] = {"bytes": nbytes}
    try:
        ways = (("there", bare_there, there), ("back", bare_back, own_back), ("call", bare_there, call))
        for way, bare, own in ways:
            if way == "call":
                lease.release()
            own()
            bare()
            turns = [(_seconds(bare), _seconds(own)) for _ in range(rounds)]
            row[way] = {
                "ratio": statistics.median(bare / own for bare, own in turns),
                "bare_GB_per_s": nbytes / statistics.median(bare for bare, _ in turns) / 1e9,
                "GB_per_s": nbytes / statistics.median(own for _, own in turns) / 1e9,
            }
            if way == "back":
                assert np.array_equal(session.pool.window(lease)[refs[0].offset : total], data)
                assert np.array_equal(np.frombuffer(back, np.uint8), data)
    finally:
        lease.release()
    return row


def _seconds(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


Start = Callable[..., "subprocess.Popen[str]"]


def _between(server: Start, client: Start, directory: str, address: str, rounds: int) -> list[dict[str, Any]]:
    script = str(Path(__file__).resolve())
    serving = server(sys.executable, script, "--serve", directory, address)
    with _ended(serving):
        assert serving.stdout is not None
        line = serving.stdout.readline()
        if not line:
            raise SystemExit(serving.communicate()[1])
        endpoint, port = json.loads(line)
        measuring = client(sys.executable, script, "--measure", directory, endpoint, str(port), "--rounds", str(rounds))
        with _ended(measuring):
            told, errors = measuring.communicate()
    if measuring.returncode:
        raise SystemExit(errors)
    return list(json.loads(told))


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def _here(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(rounds: int) -> dict[str, Any]:
    """Measure over all interfaces that there are; return the results."""
    from tests.integration import machines

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        key_files.create_keys(Path(directory) / "keys")
        keys = str(Path(directory) / "keys")
        found["loopback"] = _between(_here, _here, keys, "127.0.0.1", rounds)
        reason = machines.missing()
        if reason:
            print(f"Not between two network namespaces: {reason}")
            return found
        with machines.two_machines() as (one, other):
            starts: list[Start] = [
                lambda *command: one.popen(Path(directory), *command),
                lambda *command: other.popen(Path(directory), *command),
            ]
            found["veth"] = _between(*starts, f"{machines.GIVEN}/keys", one.address, rounds)
    return found


def _print(found: dict[str, Any]) -> None:
    print(" " * 18 + "".join(f"  {side:>28}" for side in _SIDES))
    print(f"{'way':10}{'MB':>8}" + f"  {'bare GB/s':>12}{'own':>8}{'ratio':>8}" * len(_SIDES))
    for way, rows in found.items():
        for row in rows:
            figures = [
                f"  {row[side]['bare_GB_per_s']:12.2f}{row[side]['GB_per_s']:8.2f}{row[side]['ratio']:8.2f}"
                for side in _SIDES
            ]
            print(f"{way:10}{row['bytes'] // _MB:8}" + "".join(figures))


def main() -> int:
    """Run the benchmark; return 1 if 512 MB do not reach the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: 9)")
    parser.add_argument("--json", metavar="PATH", help="where to write the results")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return 0
    if options.measure:
        directory, endpoint, port = options.measure
        measure(directory, endpoint, int(port), options.rounds)
        return 0
    found = run(options.rounds)
    _print(found)
    if options.json:
        about = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "rounds": options.rounds,
        }
        Path(options.json).write_text(json.dumps({**about, "results": found}, indent=1) + "\n")
    reached = [row[side]["ratio"] >= _GOAL for rows in found.values() for side in _SIDES for row in rows[-1:]]
    print(f"512 MB at {_GOAL:.0%} of the bare loop or better: {'yes' if all(reached) else 'NO'}")
    return int(not all(reached))


if __name__ == "__main__":
    sys.exit(main())
