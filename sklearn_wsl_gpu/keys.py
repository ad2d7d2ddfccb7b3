"""CURVE keys in files that only their owner can read."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sklearn_wsl_gpu import windows
from sklearn_wsl_gpu.errors import ConfigurationError

#: Where keys are looked for if no setting names a directory.
HOME = Path(os.path.expanduser("~")) / ".sklearn_wsl_gpu"
_WORKER, _CLIENT = "worker.json", "client.json"
#: Of a key in Z85.
_KEY_CHARACTERS = 40


class ClientKeys(NamedTuple):
    """What a client needs to talk to one worker: all in Z85, as ZeroMQ writes keys."""

    server_public: str
    public: str
    secret: str


def create_keys(directory: str | os.PathLike[str]) -> None:
    """Write a new pair of key files: ``worker.json`` for the worker, ``client.json`` for its clients.

    Parameters
    ----------
    directory : path
        Made with mode 0700 if it does not exist. Existing key files are not overwritten.

    Raises
    ------
    ConfigurationError
        If there are key files already, or the directory cannot be written.
    """
    import zmq

    server_public, server_secret = (key.decode("ascii") for key in zmq.curve_keypair())
    public, secret = (key.decode("ascii") for key in zmq.curve_keypair())
    where = Path(directory)
    try:
        where.mkdir(mode=windows.PRIVATE, parents=True, exist_ok=True)
        of_client: dict[str, object] = {"server_public": server_public, "public": public, "secret": secret}
        with (
            _whole(where / _WORKER, {"secret": server_secret, "clients": [public]}),
            _whole(where / _CLIENT, of_client),
        ):
            pass
    except OSError as error:
        raise ConfigurationError(f"Keys cannot be written to {where}: {error.strerror}.") from error


def has_curve() -> bool:
    """Tell whether the ZeroMQ library that is installed can encrypt."""
    import zmq

    return bool(zmq.has("curve"))


def has_worker_keys(directory: str | os.PathLike[str]) -> bool:
    """Tell whether a directory has a worker's keys."""
    return (Path(directory) / _WORKER).exists()


def read_worker_keys(directory: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """Return the worker's secret key and the public keys of its clients."""
    found = _read(Path(directory) / _WORKER)
    clients = found.get("clients")
    if not isinstance(found.get("secret"), str) or not isinstance(clients, list):
        raise ConfigurationError(f"{Path(directory) / _WORKER} is no key file of a worker.")
    return str(found["secret"]), [str(key) for key in clients]


def read_client_keys(directory: str | os.PathLike[str]) -> ClientKeys:
    """Return a client's keys."""
    found = _read(Path(directory) / _CLIENT)
    keys = ClientKeys(*[str(found.get(name, "")) for name in ClientKeys._fields])
    if not all(len(key) == _KEY_CHARACTERS and key.isascii() for key in keys):
        raise ConfigurationError(f"{Path(directory) / _CLIENT} is no key file of a client.")
    return keys


@contextmanager
def _whole(path: Path, content: dict[str, object]) -> Iterator[None]:
    """Write a file, which goes again if that, or what is done inside, fails: half of the keys are worse than none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(content, file)
        yield
    except BaseException:
        path.unlink()
        raise


def _read(path: Path) -> dict[str, object]:
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                raise ConfigurationError(
                    f"{path} can be read by others (mode {stat.S_IMODE(mode):o}). Run: chmod 600 {path}"
                )
            content = json.load(file)
    except ConfigurationError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"There are no keys at {path} ({error.strerror}). Start the worker with --keys, and name that "
            "directory with offload(keys=…) or SKLEARN_WSL_GPU_KEYS."
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no key file ({error}). Delete it, or name another directory.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is no key file.")
    return content
