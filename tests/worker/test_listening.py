"""Where a worker may be reached: addresses as users write them, and what WSL2 says of itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload, sessions, standing
from sklearn_wsl_gpu.carriers.stream import Route, connect
from sklearn_wsl_gpu.errors import ConfigurationError
from tests.integration.tools import standalone_worker
from wsl_worker import __main__ as worker_main
from wsl_worker import listening
from wsl_worker.bulk import Bulk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")


@pytest.mark.parametrize(
    ("endpoint", "host", "loopback"),
    [
        ("tcp://127.0.0.1:*", "127.0.0.1", True),
        ("tcp://127.5.0.1:99", "127.5.0.1", True),
        ("tcp://localhost:5999", "127.0.0.1", True),
        ("tcp://[::1]:5999", "::1", True),
        ("tcp://0.0.0.0:5999", "0.0.0.0", False),
        ("tcp://*:5999", "0.0.0.0", False),
        ("tcp://192.168.1.5:5999", "192.168.1.5", False),
        ("tcp://[fe80::1]:5999", "fe80::1", False),
    ],
)
def test_an_endpoint_names_an_address(endpoint: str, host: str, loopback: bool) -> None:
    assert listening.host_of(endpoint) == host
    assert listening.is_loopback(host) == loopback


@pytest.mark.parametrize(
    "endpoint",
    ["", "127.0.0.1:5", "tcp://127.0.0.1", "tcp://:5", "tcp://host:5", "udp://127.0.0.1:5", "tcp://1.2.3:5",
     "tcp://127.0.0.1:65536"],
)  # fmt: skip
def test_what_names_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="tcp://ADDRESS:PORT"):
        listening.host_of(endpoint)


@pytest.mark.parametrize(
    ("release", "is_wsl2"),
    [
        ("6.6.87.2-microsoft-standard-WSL2", True),
        ("5.15.167.4-microsoft-standard-WSL2+", True),
        ("4.4.0-19041-Microsoft", False),
        ("6.8.0-45-generic", False),
    ],
)
def test_the_kernel_of_wsl2_is_known_by_its_release(release: str, is_wsl2: bool) -> None:
    assert listening.is_wsl2(release) == is_wsl2


def _command(where: Path, script: str) -> str:
    path = where / "wslinfo"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


ID = "6C0E51E4-4E80-4A06-9CBE-2AB8A8B0D1E1"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (f'[ "$*" = "--vm-id -n" ] && printf %s {ID}', ID),
        (f"echo '{{{ID}}}'", ID),
        ("echo 'Unknown option: --vm-id' >&2; exit 1", ""),
        ("echo", ""),
        ("echo no-id-at-all", ""),
    ],
)
def test_the_id_of_the_virtual_machine_is_what_wslinfo_says(script: str, expected: str, tmp_path: Path) -> None:
    assert listening.vm_id(_command(tmp_path, script)) == expected


def test_a_wslinfo_that_is_not_there_or_hangs_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listening.vm_id(str(tmp_path / "nothing")) == ""
    monkeypatch.setattr(listening, "_WSLINFO_SECONDS", 0.2)
    assert listening.vm_id(_command(tmp_path, "exec sleep 60")) == ""


def test_a_worker_on_another_address_says_who_reaches_it_and_serves(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(50_000, 8))
    expected = StandardScaler().fit_transform(X)
    keys = tmp_path / "keys"
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
    options = ["--engine", "cpu", "--listen", "tcp://0.0.0.0:*", "--stream-port", str(port)]
    with standalone_worker(keys, *options) as (endpoint, process):
        number = endpoint.rpartition(":")[2]
        where = {one.laddr[1] for one in psutil.Process(process.pid).net_connections("tcp") if one.status == "LISTEN"}
        assert where == {int(number), port}
        address = next((one for one in _addresses() if not one.startswith("127.")), "127.0.0.3")
        settings = {"carrier": "stream", "fallback": "raise", "keys": str(keys)}
        with offload(endpoint=f"tcp://{address}:{number}", **settings):
            np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)
        for session in sessions.live():
            assert session.moving.carriers[0].name == "stream (tcp)"
        sklearn_wsl_gpu.shutdown()
        process.terminate()
        assert process.stderr is not None
        words = process.stderr.read()
    assert "the arrays are NOT" in words
    assert f"ssh -L {number}:127.0.0.1:{number} -L {port}:127.0.0.1:{port}" in words


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("listen", "host"), [("[::1]", "[::1]"), ("[::]", "[::1]"), ("[::]", "127.0.0.1")])
def test_a_worker_is_reached_by_ipv6_and_at_its_wildcard_by_ipv4_too(tmp_path: Path, listen: str, host: str) -> None:
    X = np.random.default_rng(0).normal(size=(50_000, 8))
    expected = StandardScaler().fit_transform(X)
    keys = str(tmp_path / "keys")
    with standalone_worker(Path(keys), "--engine", "cpu", "--listen", f"tcp://{listen}:*") as (endpoint, _):
        address = f"tcp://{host}:{endpoint.rpartition(':')[2]}"
        with offload(endpoint=address, keys=keys, carrier="stream", fallback="raise"):
            np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)
        assert [session.moving.carriers[0].name for session in sessions.live()] == ["stream (tcp)"]
        shown = standing.status(keys, address)
        assert shown is not None
        assert shown["done"] == 1
        sklearn_wsl_gpu.shutdown()


def _addresses() -> list[str]:
    found = [one.address for about in psutil.net_if_addrs().values() for one in about if one.family == socket.AF_INET]
    return sorted(found)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_in_wsl_a_port_is_one_that_windows_leaves_free(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    port = listening.port_left_by_windows(host)
    assert port in range(32768, 49152)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host, port))
        monkeypatch.setattr(listening, "_LEFT_BY_WINDOWS", range(port, port + 1))
        monkeypatch.setattr(listening, "_TRIES", 1)
        assert listening.port_left_by_windows(host) == 0


@pytest.mark.parametrize("listen", ["tcp://127.0.0.1:*", "tcp://*:*"])
def test_a_worker_in_wsl_listens_at_such_ports(listen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, Any] = {}

    def front(endpoint: str, *arguments: Any) -> None:
        opened["endpoint"] = endpoint
        raise OSError("that is enough")

    def bulk(host: str, options: Any) -> None:
        opened["stream"] = options.stream_port

    monkeypatch.setattr(worker_main, "Front", front)
    monkeypatch.setattr(worker_main, "_open_bulk", bulk)
    monkeypatch.setattr(listening, "is_wsl2", lambda: True)
    monkeypatch.setattr(sys, "argv", ["wsl_worker", "--listen", listen, "--keys", str(tmp_path / "keys")])

    assert worker_main.main() == 2
    address, _, port = opened["endpoint"].rpartition(":")
    assert address == listen.rpartition(":")[0]
    assert {int(port), opened["stream"]} <= set(range(32768, 49152))


def test_a_port_for_arrays_that_is_taken_is_told_at_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "wsl_worker", "--keys", str(tmp_path / "keys")]
        command += ["--stream-port", str(taken.getsockname()[1])]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "port for arrays" in result.stderr


def test_on_loopback_no_port_for_arrays_is_open_until_one_is_needed(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with standalone_worker(keys, "--engine", "cpu") as (endpoint, process):

        def ports() -> int:
            found = psutil.Process(process.pid).net_connections("tcp")
            return len([one for one in found if one.status == "LISTEN"])

        with offload(fallback="raise", endpoint=endpoint, keys=str(keys)):
            StandardScaler().fit(np.eye(3))
            assert ports() == 1
        sklearn_wsl_gpu.shutdown()
        with offload(carrier="stream", fallback="raise", endpoint=endpoint, keys=str(keys)):
            StandardScaler().fit(np.eye(3))
            assert ports() == 2
        sklearn_wsl_gpu.shutdown()


def _no_vsock_loopback() -> str:
    """Return why there is no way to this machine itself by AF_VSOCK; empty if there is one."""
    if not listening.has_vsock():
        return "this machine has no AF_VSOCK sockets"
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as server:
        server.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        server.listen()
        try:
            connect(Route("vsock", "1", server.getsockname()[1]), 1.0).close()
        except OSError as error:
            return f"the kernel has no vsock_loopback: {error}"
    return ""


def test_arrays_go_by_vsock_to_this_machine_itself(tmp_path: Path) -> None:
    reason = _no_vsock_loopback()
    if reason:
        pytest.skip(reason)
    X = np.random.default_rng(0).normal(size=(50_000, 8))
    expected = StandardScaler().fit_transform(X)
    keys = str(tmp_path / "keys")
    with standalone_worker(Path(keys), "--engine", "cpu", "--vsock") as (endpoint, _):
        with offload(endpoint=endpoint, keys=keys, carrier="stream", fallback="raise"):
            np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)
        assert [session.moving.carriers[0].name for session in sessions.live()] == ["stream (vsock)"]
        sklearn_wsl_gpu.shutdown()


@pytest.mark.skipif(not listening.has_vsock(), reason="this machine has no AF_VSOCK sockets")
def test_a_worker_that_listens_at_vsock_names_its_routes_and_closes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "vm_id", lambda: ID)
    bulk = Bulk("127.0.0.1", vsock=True)
    bulk.listen()
    ports = {str(kind): (host, port) for kind, host, port in bulk.routes}
    assert ports["hyperv"] == (ID, ports["vsock"][1])
    assert int(str(ports["vsock"][0])) > 0
    assert ports["tcp"] == ("", bulk.port)
    bulk.close()
    assert not bulk._threads
