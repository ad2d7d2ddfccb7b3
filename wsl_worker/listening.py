"""Where a worker may be reached: addresses, and the sockets of virtual machines."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import re
import socket
import subprocess

from sklearn_wsl_gpu.errors import ConfigurationError

_ENDPOINT = re.compile(r"tcp://(.+):(\*|\d{1,5})")
_VM_ID = re.compile(r"\{?([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?")
_GET_LOCAL_CID = 0x7B9
#: This machine itself, where the kernel has vsock_loopback.
_CID_LOCAL = 1
_WSLINFO_SECONDS = 2.0
#: Windows gives ports from 49152 on to its own programs, and keeps some of them for virtual machines.
_LEFT_BY_WINDOWS = range(32768, 49152)
_TRIES = 32


def host_of(endpoint: str) -> str:
    """Return the address to listen at of an endpoint ``tcp://ADDRESS:PORT``.

    Raises
    ------
    ConfigurationError
        If it is none.
    """
    found = _ENDPOINT.fullmatch(endpoint)
    # ZeroMQ takes a larger number for another port.
    host = found[1].strip("[]") if found and (found[2] == "*" or int(found[2]) < 2**16) else ""
    host = {"localhost": "127.0.0.1", "*": "0.0.0.0"}.get(host, host)
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ConfigurationError(
            f"--listen {endpoint}: give tcp://ADDRESS:PORT, with an IP address of this machine, or localhost, and a "
            "port, or * for any that is free."
        ) from None


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    return ipaddress.ip_address(host).is_loopback


def warning(endpoint: str, stream_port: int) -> str:
    """Return what to know about a worker that other machines reach."""
    port = endpoint.rpartition(":")[2]
    return (
        f"Other machines reach this worker at {endpoint}, and its arrays at port {stream_port}. It serves who has the "
        "client's key of its --keys directory, and nobody else. What is said is encrypted; the arrays are NOT. Use a "
        "network that you trust, or leave out --listen's address and go through an ssh tunnel: "
        f"ssh -L {port}:127.0.0.1:{port} -L {stream_port}:127.0.0.1:{stream_port} USER@HOST"
    )


def is_wsl2(release: str | None = None) -> bool:
    """Tell whether a kernel, by default the running one, is WSL2's."""
    return "microsoft-standard-wsl2" in (os.uname().release if release is None else release).lower()


def port_left_by_windows(host: str) -> int:
    """Return a port that is free here and rarely taken on Windows; 0 if none is found.

    What listens in WSL is reached from Windows by the same port there, or not at all if a program there has it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in random.sample(_LEFT_BY_WINDOWS, _TRIES):
        with socket.socket(family) as end, contextlib.suppress(OSError):
            end.bind((host, port))
            return port
    return 0


def vm_id(command: str = "wslinfo") -> str:
    """Return the id of this virtual machine, by which Windows reaches its sockets; empty if it cannot be found out."""
    try:
        told = subprocess.run(
            [command, "--vm-id", "-n"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_WSLINFO_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    found = _VM_ID.fullmatch(told.stdout.decode("ascii", "replace").strip())
    return found[1] if found else ""


def local_cid() -> int:
    """Return the number by which a host, or else this machine itself, reaches its AF_VSOCK sockets."""
    import fcntl

    with open("/dev/vsock", "rb") as device:
        raw = fcntl.ioctl(device, _GET_LOCAL_CID, bytes(4))
    found = int.from_bytes(raw, "little")
    return _CID_LOCAL if found == socket.VMADDR_CID_ANY else found


def has_vsock() -> bool:
    """Tell whether there are AF_VSOCK sockets here."""
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as end:
            end.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        return local_cid() > 0
    except (AttributeError, OSError):
        return False


class AllowList:
    """Knows the public keys of clients; the form that pyzmq's authenticator calls."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = {key.encode("ascii") for key in keys}

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self._keys
