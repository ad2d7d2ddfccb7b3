"""A second Linux kernel, as WSL is one beside Windows: python lab/vm.py COMMAND... runs a command there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from guest.serve import PORT, relay
from paths import HERE, INITRAMFS, KERNEL, SHARE, STATE

_BOOT_SECONDS = 240.0
MEMORY_MIB, _PROCESSORS = 3072, 2
#: Where the share is in the guest.
MOUNT = Path("/mnt/c")


class Guest:
    """The running guest. What listens at a port of its 127.0.0.1 is reached at the same port of this machine's."""

    def __init__(self) -> None:
        self._console = tempfile.NamedTemporaryFile(dir=STATE, prefix="console-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        (image,) = (KERNEL / "boot").glob("vmlinuz-*")
        shares = {"root": "path=/,readonly=on", "share": f"path={SHARE}"}
        command = [
            "setpriv", "--pdeathsig", "TERM",  # it never outlives this process
            "qemu-system-x86_64", "-accel", os.environ.get("LAB_ACCEL", "tcg,thread=multi"), "-cpu", "max",
            "-smp", str(_PROCESSORS), "-m", str(MEMORY_MIB), "-M", "q35", "-display", "none", "-nodefaults",
            "-no-reboot", "-serial", f"file:{self._console.name}", "-kernel", str(image), "-initrd", str(INITRAMFS),
            "-append", f"console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable serve={HERE}/guest/serve.py",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:{PORT}",
            "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
        ]  # fmt: skip
        for tag, what in shares.items():
            command += ["-virtfs", f"local,{what},mount_tag={tag},security_model=none,multidevs=remap"]
        with open(self._console.name, "ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._servers: dict[int, socket.socket] = {}
        self._over = threading.Event()

    def __enter__(self) -> Guest:
        end = time.monotonic() + _BOOT_SECONDS
        while True:
            try:
                self._ports()
                break
            except (OSError, ValueError):  # QEMU accepts before the guest listens
                if self._process.poll() is not None or time.monotonic() > end:
                    log = Path(self._console.name).read_text(errors="replace")[-2000:]
                    self.__exit__()
                    raise SystemExit(f"lab: the guest does not come up\n{log}") from None
                time.sleep(0.3)
        self.mount("mmap")  # as WSL does
        threading.Thread(target=self._forward, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.terminate()
        self._process.wait()
        for server in self._servers.values():
            server.close()
        self._console.close()

    def mount(self, cache: str) -> None:
        """Mount the share, once more if it is, with a caching mode of 9P (Linux, Documentation/filesystems/9p.rst)."""
        options = f"trans=virtio,version=9p2000.L,msize=65536,cache={cache},access=client"
        script = f"umount {MOUNT} 2>/dev/null; mount -t 9p -o {options} share {MOUNT}"
        shown = io.BytesIO()
        if self.run(["/bin/sh", "-c", script], shown=shown):
            raise SystemExit(f"lab: the guest cannot mount the share with cache={cache}\n{shown.getvalue().decode()}")

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> socket.socket:
        """Start a command; what it prints comes from the socket, and closing that ends it."""
        return self._ask({"run": list(command), "environment": dict(environment or {}), "folder": "/"})

    def run(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, shown: IO[bytes] | None = None
    ) -> int:
        """Run a command to its end, and return its exit code. What it prints goes to `shown`."""
        target, tail = shown or sys.stdout.buffer, b""
        with self.start(command, environment) as connection:
            while data := connection.recv(65536):
                target.write(data)
                target.flush()
                tail = (tail + data)[-100:]
        return int(tail.rsplit(b"exit ", 1)[1])

    def _ask(self, request: dict[str, Any]) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(json.dumps(request).encode() + b"\n")
        connection.settimeout(None)
        return connection

    def _ports(self) -> list[int]:
        with self._ask({"ports": True}) as connection:
            connection.settimeout(20)
            found: list[int] = json.loads(connection.makefile().readline())
            return found

    def _forward(self) -> None:
        # WSL looks for ports that somebody listens at, too; so a new one is there after a while.
        while not self._over.wait(0.5):
            with contextlib.suppress(OSError, ValueError):
                for port in set(self._ports()) - self._servers.keys():
                    self._servers[port] = socket.create_server(("127.0.0.1", port))
                    threading.Thread(target=self._accept, args=[port], daemon=True).start()

    def _accept(self, port: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._servers[port].accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._connect, args=[connection, port], daemon=True).start()

    def _connect(self, connection: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError), connection, self._ask({"port": port}) as inner:
            relay(connection, inner)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Guest() as vm:
        code = vm.run(sys.argv[1:])
    sys.exit(code)
