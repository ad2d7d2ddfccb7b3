"""A worker that maps the files of its clients, as none may: the challenge has to find out.

python mapping_worker.py {read,write} [ARGUMENTS OF A WORKER]
"""

from __future__ import annotations

import mmap
import sys

from wsl_worker import __main__, clientfile

_maps: dict[clientfile.ClientFile, mmap.mmap] = {}


def _map(file: clientfile.ClientFile) -> mmap.mmap:
    if file not in _maps:
        _maps[file] = mmap.mmap(file._descriptor, 0)
    return _maps[file]


def _read(file: clientfile.ClientFile, way: str, offset: int, nbytes: int) -> memoryview:
    return memoryview(_map(file))[offset : offset + nbytes]


def _write(file: clientfile.ClientFile, way: str, offset: int, data: bytes) -> None:
    _map(file)[offset : offset + len(data)] = data


if __name__ == "__main__":
    what = sys.argv.pop(1)
    setattr(clientfile.ClientFile, what, {"read": _read, "write": _write}[what])
    sys.exit(__main__.main())
