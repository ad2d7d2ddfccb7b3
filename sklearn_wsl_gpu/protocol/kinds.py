"""The messages and their bodies: one tuple type each. What their fields may hold is checked by `messages`."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from sklearn_wsl_gpu.arrays import SpanRef

Node: TypeAlias = Any
"""A value as the value codec (`sklearn_wsl_gpu.state`) writes it."""


class Hello(NamedTuple):
    """Client: who I am, and the ways to my pool. Of the same fields in every protocol, so that each can be refused.

    Attributes
    ----------
    offer : list
        The first segment of my pool: epoch, bytes of a slot, and numbers of input, output and scratch slots, in a list;
        and a list of what each carrier needs to know of it, its name first, the preferred one first. Of ``"shared"``:
        pid, descriptor, nonce; of ``"stream"``: nothing; of ``"file"``: path.
    """

    protocol: int
    versions: list[list[str]]
    pid: int
    boot: str
    offer: list[Any]


class Welcome(NamedTuple):
    """Worker: the session's name and number, my engines with their estimators by preference; the ways to its pool.

    Attributes
    ----------
    carriers : list of list
        What each carrier that I can use answers to its offer, its name first. Of ``"shared"``: proof; then no other is
        looked at. Of ``"stream"``: key, list of routes; of ``"file"``: names of the ways in which I can read it, and of
        those in which I can write it, the cheapest first.
    refused : list of [str, str]
        Names of the other offers, and why not.
    node : int
        NUMA node that reads the inputs, or -1.
    """

    protocol: int
    versions: list[list[str]]
    session: bytes
    number: int
    engines: list[list[Any]]
    carriers: list[Any]
    refused: list[list[str]]
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
    """Client: that segment is not used any more. The first one is, but nothing lies there: empty it if it is yours."""

    session: bytes
    segment: int


class Warm(NamedTuple):
    """Client: this run of a segment will be used soon; let its pages be there for you."""

    session: bytes
    segment: int
    start: int
    nbytes: int


class Fetch(NamedTuple):
    """Client: take these bytes of a span from my file, for this request; their crc32 should be that."""

    session: bytes
    request: int
    span: SpanRef
    offset: int
    nbytes: int
    crc: int


class Store(NamedTuple):
    """Client: put these bytes of a span into my file."""

    session: bytes
    request: int
    span: SpanRef
    offset: int
    nbytes: int


class Probe(NamedTuple):
    """Client: read 16 bytes at each of these offsets of my file, or write fresh ones there.

    The way in which to do so, by its place among those that were answered to the offer, is the one from then on.
    Without offsets: let what you have written arrive, if a cache holds it back.
    """

    session: bytes
    segment: int
    offsets: list[int]
    write: bool
    way: int


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
    """Worker: I have the segment; what its carriers answer, as in `Welcome`."""

    segment: int
    carriers: list[Any]


class Moved(NamedTuple):
    """Worker: so moved; the crc32 of the bytes."""

    crc: int


class Probed(NamedTuple):
    """Worker: a digest of what I have read, or written."""

    digest: bytes


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
