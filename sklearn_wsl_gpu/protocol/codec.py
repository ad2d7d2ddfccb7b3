"""Messages to bytes and back, with limits. The only file that imports msgpack.

Only lists, strings, bytes, numbers, booleans and None travel; maps and extension types are refused. No
pickle, no names that would be imported.
"""

from __future__ import annotations

from typing import Any

import msgpack

from sklearn_wsl_gpu.errors import LocalProtocolError, RemoteProtocolError

#: Metadata of a thousand trees fits; arrays never count, they lie in the pool.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
#: A worker reads the heads of all its clients in one thread; what they say there is short.
MAX_HEAD_BYTES = 64 * 1024
#: One MiB of empty lists would otherwise become 56 MiB of objects.
MAX_NODES = 500_000
MAX_DEPTH = 64
_MAX_STRING_BYTES = 1024 * 1024
#: Smaller messages cannot hold enough nodes to hurt, so they are not counted.
_COUNT_FROM_BYTES = 64 * 1024


class _Counter:
    def __init__(self) -> None:
        self.left = MAX_NODES

    def __call__(self, items: list[Any]) -> list[Any]:
        self.left -= 1 + len(items)
        if self.left < 0:
            raise ValueError("too many nodes")
        return items


def _refuse(*_: Any) -> Any:
    raise ValueError("maps and extension types are not spoken")


def _is_too_deep(value: Any) -> bool:
    level = [value] if type(value) is list else []
    for _ in range(MAX_DEPTH):
        level = [item for items in level for item in items if type(item) is list]
        if not level:
            return False
    return True


def pack(value: Any) -> bytes:
    """Return the bytes of a tree of lists, strings, bytes, numbers, booleans and None.

    Raises
    ------
    LocalProtocolError
        If it holds what cannot be packed, or is larger than a message may be.
    """
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"A message cannot be packed: {error}.") from error
    if len(packed) > MAX_MESSAGE_BYTES:
        raise LocalProtocolError(
            f"A message of {len(packed)} bytes is larger than {MAX_MESSAGE_BYTES}.", code="message-too-large"
        )
    return packed


def unpack(raw: bytes | memoryview, limit: int = MAX_MESSAGE_BYTES) -> Any:
    """Return what `pack` was given (tuples as lists), if it is of at most `limit` bytes.

    Raises
    ------
    RemoteProtocolError
        If the bytes are not one well-formed value within the limits. Never any other error.
    """
    if len(raw) > limit:
        raise RemoteProtocolError(f"A message of {len(raw)} bytes is larger than {limit}.")
    try:
        value = msgpack.unpackb(
            raw,
            raw=False,
            use_list=True,
            max_map_len=0,
            max_ext_len=0,
            # Empty ones are within these limits.
            object_hook=_refuse,
            ext_hook=_refuse,
            max_array_len=MAX_NODES,
            max_str_len=_MAX_STRING_BYTES,
            max_bin_len=_MAX_STRING_BYTES,
            list_hook=_Counter() if len(raw) > _COUNT_FROM_BYTES else None,
        )
    except (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"The other side sent bytes that are no message ({type(error).__name__}).") from None
    if len(raw) > MAX_DEPTH and _is_too_deep(value):  # a level takes a byte
        raise RemoteProtocolError(f"The other side sent a message of more than {MAX_DEPTH} levels.")
    return value
