"""Two stand-ins for two machines, on one kernel: two network namespaces with a cable, and nothing in common but that.

What runs in one sees neither the processes of the other, nor its /dev/shm, nor its /tmp.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

#: Addresses of the two.
HERE, THERE = "10.213.77.1", "10.213.77.2"
#: Where a machine has what `Machine.popen` gives it.
GIVEN = "/mnt/given"

# Of /tmp nothing stays but Python and the project, if they lie there.
_ALONE = """
set -e
mount -t tmpfs tmpfs /mnt
cp -r "$1" /mnt/given
shift
for path in $SKWG_KEPT; do
    mkdir -p "/mnt/kept$path"
    mount --bind "$path" "/mnt/kept$path"
done
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
for path in $SKWG_KEPT; do
    mkdir -p "$path"
    mount --move "/mnt/kept$path" "$path"
done
cd /
exec "$@"
"""


class Machine:
    """One of the two.

    Parameters
    ----------
    name : str
        Of its network namespace.
    address : str
        By which the other one reaches it.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def popen(self, given: Path, *command: str) -> subprocess.Popen[str]:
        """Start a command there; what lies in `given` lies in `GIVEN` there, as a copy."""
        kept = [path for path in _of_python() if path.startswith(("/tmp/", "/mnt/", "/dev/shm/"))]
        environment = {**os.environ, "SKWG_KEPT": " ".join(kept), "XDG_CACHE_HOME": "/tmp/cache", "TMPDIR": "/tmp"}
        alone = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *alone, "sh", "-c", _ALONE, "sh", str(given), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )


def _of_python() -> Sequence[str]:
    paths = {Path(__file__).resolve().parents[2], Path(sys.prefix), Path(sys.base_prefix)}
    # What lies in another one moves with it.
    return sorted(str(path) for path in paths if not paths & set(path.parents))


def missing() -> str:
    """Return why there cannot be two machines; empty if there can."""
    if sys.platform != "linux":
        return "there are network namespaces on Linux only"
    if os.geteuid():
        return "only root makes network namespaces"
    tools = [name for name in ("ip", "unshare", "mount") if shutil.which(name) is None]
    if tools:
        return f"missing: {', '.join(tools)} (packages iproute2 and util-linux)"
    try:
        with two_machines():
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {error.stderr.strip()}"


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Yield two machines that are connected; they are gone afterwards, and all that runs there."""
    names = [f"skwg{os.getpid()}{end}" for end in "ab"]
    cables = [f"skwg{os.getpid() % 10**8}{end}" for end in "ab"]
    machines = [Machine(name, address) for name, address in zip(names, (HERE, THERE), strict=True)]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", cables[0], "netns", names[0], "type", "veth", "peer", cables[1], "netns", names[1])
        for machine, cable in zip(machines, cables, strict=True):
            _ip("-n", machine.name, "address", "add", f"{machine.address}/30", "dev", cable)
            for device in ("lo", cable):
                _ip("-n", machine.name, "link", "set", device, "up")
        yield machines[0], machines[1]
    finally:
        for name in names:
            # The cable goes with them.
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


@contextlib.contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a process of a machine, and all that it started there, when the block is left."""
    try:
        yield process
    finally:
        process.kill()  # the first process of its table goes with it, and all others with that one
        process.communicate()
