"""What joblib runs with in an executor, and what becomes of what is printed there."""

from __future__ import annotations

import json
import subprocess
import sys

from joblib.parallel import get_active_backend

from wsl_worker.surroundings import Backend


def _active() -> str:
    return type(get_active_backend()[0]).__name__


def test_a_backend_holds_until_a_call_needs_another_or_has_failed() -> None:
    default, backend = _active(), Backend()

    backend.use("threading")
    first = get_active_backend()[0]
    backend.use("threading")
    assert _active() == "ThreadingBackend"
    assert get_active_backend()[0] is first

    backend.use("sequential")
    assert _active() == "SequentialBackend"

    backend.forget()
    assert _active() == default
    backend.use("threading")
    assert get_active_backend()[0] is not first
    backend.forget()


_PRINTS = """
import json, os, sys
mine = os.dup(1)
from wsl_worker.surroundings import Output
output = Output()
print("short")
first = output.take()
sys.stderr.write("x" * 600_000)
os.write(mine, json.dumps([first, output.take(), output.take()]).encode())
"""


def test_what_is_printed_is_taken_once_and_a_cut_is_marked() -> None:
    ran = subprocess.run([sys.executable, "-c", _PRINTS], capture_output=True, text=True, check=True)
    first, [[name, text]], last = json.loads(ran.stdout)

    assert first == [["stdout", "short\n"]]
    assert name == "stderr"
    assert text == "x" * 512 * 1024 + f"\n[{600_000 - 512 * 1024} bytes more were printed there]\n"
    assert last == []


_FULL = """
import json, os, resource, signal, sys
mine = os.dup(1)
from wsl_worker.surroundings import Output
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
output = Output()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
failed = 0
for _ in range(2):
    try:
        for _ in range(2000):
            print("stale")
    except OSError:
        failed += 1
    output.take()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("fresh")
os.write(mine, json.dumps([failed, output.take()]).encode())
"""


def test_a_disk_that_is_full_costs_what_was_printed_and_nothing_else() -> None:
    ran = subprocess.run([sys.executable, "-c", _FULL], capture_output=True, text=True, check=True)

    assert json.loads(ran.stdout) == [2, [["stdout", "fresh\n"]]]
