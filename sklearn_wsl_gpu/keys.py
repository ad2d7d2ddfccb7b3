"""CURVE keys in files that only their owner can read."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import time
from pathlib import Path
from typing import NamedTuple

from sklearn_wsl_gpu import windows
from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.newfile import write_new

#: Where keys are looked for if no setting names a directory.
HOME = Path(os.path.expanduser("~")) / ".sklearn_wsl_gpu"
_WORKER, _CLIENT = "worker.json", "client.json"
_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
#: How long another process may take that writes keys at the same time.
_OTHER_SECONDS = 1.0
#: What to do about a file that is damaged.
_DELETE = (
    "Delete worker.json and client.json there, if no worker uses them, and start the worker again; or name another "
    "directory."
)


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
    where = checked_directory(directory)
    try:
        where.mkdir(mode=windows.PRIVATE, parents=True, exist_ok=True)
        write_new(where / _CLIENT, {"server_public": server_public, "public": public, "secret": secret})
        try:  # last: who sees it finds both
            write_new(where / _WORKER, {"secret": server_secret, "clients": [public]})
        except BaseException:
            (where / _CLIENT).unlink(missing_ok=True)  # half of the keys are worse than none
            raise
    except FileExistsError as error:
        there = [name for name in (_WORKER, _CLIENT) if (where / name).exists()]
        raise ConfigurationError(
            f"Keys cannot be written to {where}: {' and '.join(there)} is there already. It may be of a worker "
            "elsewhere: name another directory with --keys, or delete it."
        ) from error
    except OSError as error:
        raise ConfigurationError(f"Keys cannot be written to {where}: {error.strerror}.") from error


def ensure_keys(directory: str | os.PathLike[str]) -> None:
    """Write new key files if a directory has none for a worker; others may be doing so at the same time.

    Raises
    ------
    ConfigurationError
        If they cannot be written.
    """
    deadline = time.monotonic() + _OTHER_SECONDS
    while not has_worker_keys(directory):
        try:
            create_keys(directory)
        except ConfigurationError as error:
            if not isinstance(error.__cause__, FileExistsError) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def checked_directory(path: str | os.PathLike[str]) -> Path:
    """Return the path of a directory of keys; raise `ConfigurationError` if that of a file is given."""
    if os.path.isfile(path):
        raise ConfigurationError(f"{os.fspath(path)} is a file. Keys are named by the directory that they are in.")
    return Path(path)


def has_curve() -> bool:
    """Tell whether the ZeroMQ library that is installed can encrypt."""
    import zmq

    return bool(zmq.has("curve"))


def has_worker_keys(directory: str | os.PathLike[str]) -> bool:
    """Tell whether a directory has a worker's keys."""
    return (Path(directory) / _WORKER).exists()


def read_worker_keys(directory: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """Return the worker's secret key and the public keys of its clients."""
    path = checked_directory(directory) / _WORKER
    found = _read(path)
    secret, clients = found.get("secret"), found.get("clients")
    if not isinstance(clients, list) or not all(map(_is_key, [secret, *clients])):
        raise ConfigurationError(f"{path} is no key file of a worker. {_DELETE}")
    return str(secret), clients


def read_client_keys(directory: str | os.PathLike[str]) -> ClientKeys:
    """Return a client's keys."""
    path = checked_directory(directory) / _CLIENT
    found = _read(path)
    keys = [found.get(name) for name in ClientKeys._fields]
    if not all(map(_is_key, keys)):
        raise ConfigurationError(f"{path} is no key file of a client. {_DELETE}")
    return ClientKeys(*map(str, keys))


def _is_key(value: object) -> bool:
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def _read(path: Path) -> dict[str, object]:
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                remedy = f"chmod 600 {shlex.quote(str(path))}"
                raise ConfigurationError(f"{path} can be read by others (mode {stat.S_IMODE(mode):o}). Run: {remedy}")
            content = json.load(file)
    except ConfigurationError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"There are no keys at {path} ({error.strerror}). Start the worker with --keys, and name that "
            "directory with offload(keys=…) or SKLEARN_WSL_GPU_KEYS."
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is no key file ({error}). {_DELETE}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is no key file. {_DELETE}")
    return content
