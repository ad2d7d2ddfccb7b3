"""What can be said: one tuple type a message, checked field by field when it arrives.

A message is two frames: a small head that the front reads, and a body that only client and executor read
(empty for most). The head is a msgpack list whose first item is the message's number.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.protocol import codec
from sklearn_wsl_gpu.protocol import fields as f

Node: TypeAlias = Any
"""A value as the value codec (`sklearn_wsl_gpu.state`) writes it."""


class Hello(NamedTuple):
    """Client: who I am, and where my pool lies."""

    protocol: int
    versions: list[list[str]]
    pid: int
    boot: str
    offer: list[Any]


class Welcome(NamedTuple):
    """Worker: the session's name, my engines with their estimators by preference; proof that I see the pool.

    `node` is the NUMA node that reads the inputs, or -1.
    """

    protocol: int
    versions: list[list[str]]
    session: bytes
    engines: list[list[Any]]
    proof: bytes
    pid: int
    boot: str
    node: int


class Call(NamedTuple):
    """Client: run the call in the body. Sent again under the same number it never runs twice."""

    session: bytes
    request: int
    inputs: SpanRef | None
    outputs: SpanRef | None
    priority: str


class Wait(NamedTuple):
    """Client: tell me what became of this request."""

    session: bytes
    request: int


class Grant(NamedTuple):
    """Client: write the results of this request here."""

    session: bytes
    request: int
    outputs: SpanRef


class Cancel(NamedTuple):
    """Client: stop this request. The answer proves that its spans are no longer written."""

    session: bytes
    request: int


class Status(NamedTuple):
    """Client: tell me about yourself."""

    session: bytes


class Attach(NamedTuple):
    """Client: my pool has another segment, of this number; I offer it as the first one in `Hello`."""

    session: bytes
    segment: int
    offer: list[Any]


class Detach(NamedTuple):
    """Client: that segment is not used any more."""

    session: bytes
    segment: int


class Warm(NamedTuple):
    """Client: this run of a segment will be used soon; let its pages be there for you."""

    session: bytes
    segment: int
    start: int
    nbytes: int


class Bye(NamedTuple):
    """Client: this session is over."""

    session: bytes


class Stop(NamedTuple):
    """Client: end yourself."""

    session: bytes


class Resize(NamedTuple):
    """Somebody who looks on: let the pools of a client grow by so many bytes; -1 lets them give back what is free.

    The client is told with the result of its next call. Session 0 stands for all.
    """

    session: bytes
    number: int
    nbytes: int


class Result(NamedTuple):
    """Worker: done; the body has the result. A wish of others for your pool comes along: as `Resize`, 0 for none."""

    request: int
    wish: int


class NeedOutput(NamedTuple):
    """Worker: computed; grant me this many bytes for the result. The inputs are no longer read."""

    request: int
    nbytes: int


class NeedModel(NamedTuple):
    """Worker: I do not have that model (any more); send its state."""

    request: int


class Running(NamedTuple):
    """Worker: still at it."""

    request: int
    phase: str


class Progress(NamedTuple):
    """Worker: still at it, and these tasks of the fit have begun or ended since you asked last.

    An event is ["begin" or "end", ids of the tasks from the root's child down, name, most subtasks (-1: not
    known), whether subtasks are sequential, estimator, name of the task of the estimator around it that is the same
    task]; all but the first two count for a begin only. Of the fits of a search or a cross-validation the first id is
    the fit's number, and ["score", [number], score, …] says that one is done.
    """

    request: int
    events: list[Any]


class Failed(NamedTuple):
    """Worker: it could not be done here; nothing of the session is lost."""

    request: int
    code: str
    words: str


class Cancelled(NamedTuple):
    """Worker: this request does not run (any more)."""

    request: int


class Refused(NamedTuple):
    """Worker: I do not take this message."""

    code: str
    words: str


class Report(NamedTuple):
    """Worker: counters, as pairs of name and value."""

    counters: list[list[Any]]


class Attached(NamedTuple):
    """Worker: I see the segment; here is the proof."""

    segment: int
    proof: bytes


class Done(NamedTuple):
    """Worker: so be it."""


class Farewell(NamedTuple):
    """Worker: the session is gone."""


class CallBody(NamedTuple):
    """Body of `Call`.

    Attributes
    ----------
    estimator, method : str
        Names of the table; or no estimator, and a function that does many fits.
    engine : str
        What to compute with.
    model : int
        Number of a model that the worker's engine keeps; 0 if `state` has it.
    keep : int
        Number under which to keep the model after the call; 0 not to keep it.
    state : list of [str, node] or None
        Attributes of the estimator.
    arguments : list of node
    keywords : list of [str, node]
    refs : list
        Array refs, or small arrays themselves, that the nodes count into.
    lent : list of [span, list, bool]
        Spans that the client holds, the array refs in them, and whether they stay as they are while it does; nodes
        count on into these.
    configuration : list of [str, value]
        scikit-learn's settings that differ from their defaults.
    generator : node
        State of numpy's global generator, if the call may draw from it.
    watched : int
        How deep to tell of its progress, as ``max_propagation_depth`` of scikit-learn's callbacks; -1 for not.
    inline : int
        Bytes of arrays that the result may have in its own body; more lie in a span.
    """

    estimator: str
    method: str
    engine: str
    model: int
    keep: int
    state: Any
    arguments: list[Any]
    keywords: list[Any]
    refs: list[Any]
    lent: list[Any]
    configuration: list[Any]
    generator: Node
    watched: int
    inline: int


class ResultBody(NamedTuple):
    """Body of `Result`.

    Attributes
    ----------
    value : node
    state : list of [str, node] or None
        Fitted attributes, if the call changes them.
    refs : list
        Array refs, or small arrays themselves, that the nodes count into; under protocol `FILE_REPLIES` names of files.
    warnings : list of [category, text, module, line]
        An empty category says that the warning filters were changed during the call.
    output : list of [stream, text]
    generators : list of [int, node]
        Random generators of the call that have advanced: number, new state; -1 is numpy's global one.
    seconds : float
        Time in the engine.
    kept : bool
        Whether the worker keeps the model under the number that was asked for.
    """

    value: Node
    state: Any
    refs: list[Any]
    warnings: list[Any]
    output: list[Any]
    generators: list[Any]
    seconds: float
    kept: bool


Message: TypeAlias = (
    Hello | Welcome | Call | Wait | Grant | Cancel | Status | Bye
    | Result | NeedOutput | NeedModel | Running | Failed | Cancelled | Refused | Report | Farewell | Stop
    | Progress | Attach | Attached | Detach | Warm | Done | Resize
)  # fmt: skip

#: A message's number is its place here; never reorder, only append (see `version`).
MESSAGES: tuple[type[Message], ...] = (
    Hello, Welcome, Call, Wait, Grant, Cancel, Status, Bye,
    Result, NeedOutput, NeedModel, Running, Failed, Cancelled, Refused, Report, Farewell, Stop,
    Progress, Attach, Attached, Detach, Warm, Done, Resize,
)  # fmt: skip
_NUMBER = {kind: number for number, kind in enumerate(MESSAGES)}


_FIELDS: dict[type[Any], tuple[f.Check, ...]] = {
    Hello: (f.integer, f.text_pairs, f.integer, f.text, f.items),
    Welcome: (f.integer, f.text_pairs, f.blob, f.texts_by_name, f.blob, f.integer, f.text, f.integer),
    Call: (f.blob, f.integer, f.optional_span, f.optional_span, f.priority),
    Wait: (f.blob, f.integer),
    Grant: (f.blob, f.integer, f.span),
    Cancel: (f.blob, f.integer),
    Status: (f.blob,),
    Attach: (f.blob, f.integer, f.items),
    Attached: (f.integer, f.blob),
    Detach: (f.blob, f.integer),
    Warm: (f.blob, f.integer, f.integer, f.integer),
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


def decode(raw: bytes | memoryview) -> Message:
    """Return the message of a head frame, or raise `RemoteProtocolError` and nothing else."""
    items = codec.unpack(raw)
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
