"""What can be said: one tuple type a message, checked field by field when it arrives.

A message is two frames: a small head that the front reads, and a body that only client and executor read
(empty for most). The head is a msgpack list whose first item is the message's number.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.protocol import codec
from sklearn_wsl_gpu.protocol import fields as f
from sklearn_wsl_gpu.protocol.kinds import (
    Attach,
    Attached,
    Bye,
    Call,
    CallBody,
    Cancel,
    Cancelled,
    Detach,
    Done,
    Failed,
    Farewell,
    Fetch,
    Grant,
    Hello,
    Moved,
    NeedModel,
    NeedOutput,
    Node,
    Probe,
    Probed,
    Progress,
    Refused,
    Report,
    Resize,
    Result,
    ResultBody,
    Running,
    Status,
    Stop,
    Store,
    Wait,
    Warm,
    Welcome,
)

__all__ = [
    "FLOATING",
    "MESSAGES",
    "Attach",
    "Attached",
    "Bye",
    "Call",
    "CallBody",
    "Cancel",
    "Cancelled",
    "Detach",
    "Done",
    "Failed",
    "Farewell",
    "Fetch",
    "Grant",
    "Hello",
    "Message",
    "Moved",
    "NeedModel",
    "NeedOutput",
    "Node",
    "Probe",
    "Probed",
    "Progress",
    "Refused",
    "Report",
    "Resize",
    "Result",
    "ResultBody",
    "Running",
    "Status",
    "Stop",
    "Store",
    "Wait",
    "Warm",
    "Welcome",
    "decode",
    "decode_call",
    "decode_result",
    "encode",
    "encode_body",
]  # fmt: skip

Message: TypeAlias = (
    Hello | Welcome | Call | Wait | Grant | Cancel | Status | Bye
    | Result | NeedOutput | NeedModel | Running | Failed | Cancelled | Refused | Report | Farewell | Stop
    | Progress | Attach | Attached | Detach | Warm | Done | Resize | Fetch | Store | Moved | Probe | Probed
)  # fmt: skip

#: Among the settings of a call: what numpy does about floating-point errors (divide, over, under, invalid).
FLOATING = "numpy.errstate"

#: A message's number is its place here; never reorder, only append (see `version`).
MESSAGES: tuple[type[Message], ...] = (
    Hello, Welcome, Call, Wait, Grant, Cancel, Status, Bye,
    Result, NeedOutput, NeedModel, Running, Failed, Cancelled, Refused, Report, Farewell, Stop,
    Progress, Attach, Attached, Detach, Warm, Done, Resize, Fetch, Store, Moved, Probe, Probed,
)  # fmt: skip
_NUMBER = {kind: number for number, kind in enumerate(MESSAGES)}


_FIELDS: dict[type[Any], tuple[f.Check, ...]] = {
    Hello: (f.integer, f.text_pairs, f.integer, f.text, f.items),
    Welcome: (
        f.integer, f.text_pairs, f.blob, f.integer, f.texts_by_name, f.named_lists, f.text_pairs, f.integer, f.text,
        f.integer,
    ),
    Call: (f.blob, f.integer, f.optional_span, f.optional_span, f.priority),
    Wait: (f.blob, f.integer),
    Grant: (f.blob, f.integer, f.span),
    Cancel: (f.blob, f.integer),
    Status: (f.blob,),
    Attach: (f.blob, f.integer, f.items),
    Attached: (f.integer, f.named_lists),
    Detach: (f.blob, f.integer),
    Warm: (f.blob, f.integer, f.integer, f.integer),
    Fetch: (f.blob, f.integer, f.span, f.integer, f.integer, f.integer),
    Store: (f.blob, f.integer, f.span, f.integer, f.integer),
    Moved: (f.integer,),
    Probe: (f.blob, f.integer, f.integers, f.flag, f.integer),
    Probed: (f.blob,),
    Done: (),
    Bye: (f.blob,),
    Stop: (f.blob,),
    Resize: (f.blob, f.integer, f.integer),
    Result: (f.integer, f.integer),
    NeedOutput: (f.integer, f.integer),
    NeedModel: (f.integer,),
    Running: (f.integer, f.text),
    Progress: (f.integer, f.events),
    Failed: (f.integer, f.text, f.text),
    Cancelled: (f.integer,),
    Refused: (f.text, f.text),
    Report: (f.pairs,),
    Farewell: (),
    CallBody: (
        f.text, f.text, f.text, f.integer, f.integer, f.optional_pairs, f.items, f.pairs, f.items, f.lent, f.pairs,
        f.anything, f.integer, f.integer,
    ),
    ResultBody: (
        f.anything, f.optional_pairs, f.items, f.records(str, str, str, int), f.records(str, str),
        f.records(int, list), f.number, f.flag,
    ),
}  # fmt: skip


def encode(message: Message) -> bytes:
    """Return the head frame of a message."""
    return codec.pack((_NUMBER[type(message)], *message))


def decode(raw: bytes | memoryview, limit: int = codec.MAX_MESSAGE_BYTES) -> Message:
    """Return the message of a head frame of at most `limit` bytes, or raise `RemoteProtocolError` and nothing else."""
    items = codec.unpack(raw, limit)
    if type(items) is not list or not items or type(items[0]) is not int or not 0 <= items[0] < len(MESSAGES):
        raise RemoteProtocolError("The other side sent something that is no message of this protocol.")
    kind = MESSAGES[items[0]]
    return _build(kind, items[1:])  # type: ignore[no-any-return]


def encode_body(body: CallBody | ResultBody) -> bytes:
    """Return the body frame of a call or a result."""
    return codec.pack(tuple(body))


def decode_call(raw: bytes | memoryview) -> CallBody:
    """Return the body of a `Call`, or raise `RemoteProtocolError` and nothing else."""
    return _build(CallBody, codec.unpack(raw))  # type: ignore[no-any-return]


def decode_result(raw: bytes | memoryview) -> ResultBody:
    """Return the body of a `Result`, or raise `RemoteProtocolError` and nothing else."""
    return _build(ResultBody, codec.unpack(raw))  # type: ignore[no-any-return]


def _build(kind: type[Any], items: Any) -> Any:
    checks = _FIELDS[kind]
    if type(items) is not list or len(items) != len(checks):
        raise RemoteProtocolError(f"A {kind.__name__} has another number of fields than it should.")
    return kind(*[check(item) for check, item in zip(checks, items, strict=True)])
