"""What can be said: every message comes back as it was, and every malformed one is refused with one kind of error."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.protocol import codec
from sklearn_wsl_gpu.protocol import messages as m

_GOLDEN = runpy.run_path(str(Path(__file__).with_name("write_golden.py")))
SAMPLES: tuple[m.Message, ...] = _GOLDEN["MESSAGES"]
BODIES: tuple[m.CallBody | m.ResultBody, ...] = _GOLDEN["BODIES"]

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.text(max_size=9),
    st.binary(max_size=9),
)  # fmt: skip
NODES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
LISTS = st.lists(NODES, max_size=4)
SPANS = st.builds(SpanRef, *[st.integers(0, 2**63)] * 4)
NAMES = st.text(max_size=20)


def _pairs(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    return st.dictionaries(NAMES, values, max_size=4).map(lambda found: [list(pair) for pair in found.items()])


INTEGERS, TEXTS, TOKENS = st.integers(-1, 2**63 - 1), st.text(max_size=30), st.binary(max_size=256)
#: A field's kind: what it may be, and what it may not.
KINDS: dict[str, tuple[st.SearchStrategy[Any], list[Any]]] = {
    "integer": (INTEGERS, [None, True, 1.0, "1", b"1", [], [1], -2, 2**63]),
    "text": (TEXTS, [None, 1, True, b"x", [], ["x"], "x" * 65_537]),
    "priority": (st.sampled_from(["high", "normal", "low"]), [None, 0, True, "", "HIGH", b"high", [], ["high"]]),
    "token": (TOKENS, [None, 1, "x", [], b"x" * 257]),
    "list": (LISTS, [None, 1, True, "x", b"x"]),
    "texts by name": (
        _pairs(st.lists(TEXTS, max_size=4)),
        [None, "x", [["x", "y"]], [["x", [1]]], [["x", [["y"]]]], [["x", [b"y"]]], [["x", ["y" * 65_537]]], [["x"]]],
    ),
    "pairs": (_pairs(NODES), [None, 1, "x", [1], ["ab"], [[]], [["x"]], [[1, 2]], [["x", 1, 2]], [[b"x", 1]]]),
    "text pairs": (_pairs(TEXTS), [None, 1, [["x", 1]], [["x", None]], [["x"]], [[1, "x"]], [["x", b"x"]]]),
    "span": (SPANS, [None, 1, [], [0, 0, 0], [0] * 5, [0, 0, 0, -1], [0, 0, 0, True], [0, 0, 1.0, 0], ["0", 0, 0, 0]]),
    "number": (st.floats(allow_nan=False), [None, True, "1", b"1", []]),
    "flag": (st.booleans(), [None, 0, 1, "x", []]),
    "node": (NODES, []),
}
KINDS["warnings"] = (st.lists(st.tuples(TEXTS, TEXTS, TEXTS, INTEGERS).map(list), max_size=3), [None, 1, "x"])
KINDS["output"] = (st.lists(st.tuples(TEXTS, TEXTS).map(list), max_size=3), [None, 1, "x"])
KINDS["generators"] = (st.lists(st.tuples(INTEGERS, LISTS).map(list), max_size=3), [None, 1, "x"])
KINDS["events"] = (
    st.lists(
        st.tuples(TEXTS, st.lists(st.integers(-9, 9), max_size=3), TEXTS, INTEGERS, st.booleans(), TEXTS, TEXTS).map(
            list
        ),
        max_size=3,
    ),
    [None, 1, "x"],
)
KINDS["lent"] = (
    st.lists(st.tuples(SPANS, LISTS, st.booleans()), max_size=2),
    [
        None,
        1,
        "x",
        [1],
        [[]],
        [[[0, 0, 0, 0], []]],
        [[None, [], True]],
        [[[0, 0, 0], [], True]],
        [[[0, 0, 0, 0], 1, True]],
        [[[0, 0, 0, 0], [], 1]],
    ],
)
KINDS["integers"] = (st.lists(INTEGERS, max_size=3), [None, 1, "x", [None], ["1"], [[]]])
KINDS["named lists"] = (
    st.lists(st.tuples(TEXTS, INTEGERS).map(list), max_size=2),
    [None, 1, "x", [1], [[]], [[1]], [["x"], 1]],
)
#: What the items of these may not be.
RECORDS: dict[str, list[Any]] = {
    "warnings": [1, [], ["a.B", "text", "module"], ["a.B", 1, "module", 2], ["a.B", "text", "module", "x"]],
    "output": [1, ["stdout"], ["stdout", 1], [None, "text"], ["stdout", "text", 1]],
    "generators": [1, [0], ["0", []], [0, [], 1], [0, None]],
}
KINDS["optional span"] = (st.none() | SPANS, [bad for bad in KINDS["span"][1] if bad is not None])
KINDS["optional pairs"] = (st.none() | KINDS["pairs"][0], [bad for bad in KINDS["pairs"][1] if bad is not None])

FIELDS: dict[type[Any], tuple[str, ...]] = {
    m.Hello: ("integer", "text pairs", "integer", "text", "list"),
    m.Welcome: (
        "integer", "text pairs", "token", "integer", "texts by name", "named lists", "text pairs", "integer", "text",
        "integer",
    ),
    m.Call: ("token", "integer", "optional span", "optional span", "priority"),
    m.Wait: ("token", "integer"),
    m.Grant: ("token", "integer", "span"),
    m.Cancel: ("token", "integer"),
    m.Status: ("token",),
    m.Bye: ("token",),
    m.Result: ("integer", "integer"),
    m.NeedOutput: ("integer", "integer"),
    m.NeedModel: ("integer",),
    m.Running: ("integer", "text"),
    m.Progress: ("integer", "events"),
    m.Attach: ("token", "integer", "list"),
    m.Attached: ("integer", "named lists"),
    m.Fetch: ("token", "integer", "span", "integer", "integer", "integer"),
    m.Store: ("token", "integer", "span", "integer", "integer"),
    m.Moved: ("integer",),
    m.Probe: ("token", "integer", "integers", "flag", "integer"),
    m.Probed: ("token",),
    m.Detach: ("token", "integer"),
    m.Warm: ("token", "integer", "integer", "integer"),
    m.Done: (),
    m.Resize: ("token", "integer", "integer"),
    m.Failed: ("integer", "text", "text"),
    m.Cancelled: ("integer",),
    m.Refused: ("text", "text"),
    m.Report: ("pairs",),
    m.Farewell: (),
    m.Stop: ("token",),
    m.CallBody: (
        "text", "text", "text", "integer", "integer", "optional pairs", "list", "pairs", "list", "lent", "pairs",
        "node", "integer", "integer",
    ),
    m.ResultBody: ("node", "optional pairs", "list", "warnings", "output", "generators", "number", "flag"),
}  # fmt: skip


def _encode(value: Any) -> bytes:
    return m.encode_body(value) if isinstance(value, (m.CallBody, m.ResultBody)) else m.encode(value)


def _decoder(kind: type[Any]) -> Callable[[bytes], Any]:
    return {m.CallBody: m.decode_call, m.ResultBody: m.decode_result}.get(kind, m.decode)


def _raw(kind: type[Any], fields: list[Any]) -> bytes:
    """Return a frame with fields that the encoder would not write."""
    return codec.pack(fields if kind in (m.CallBody, m.ResultBody) else [m.MESSAGES.index(kind), *fields])


def _refuses(kind: type[Any], raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        _decoder(kind)(raw)


MESSAGES = st.one_of([st.builds(kind, *[KINDS[name][0] for name in names]) for kind, names in FIELDS.items()])


@settings(deadline=None, max_examples=400)
@given(MESSAGES)
def test_every_message_comes_back_as_it_was(message: Any) -> None:
    decoded = _decoder(type(message))(_encode(message))

    assert type(decoded) is type(message)
    assert decoded == message
    assert repr(decoded) == repr(message), "types of the fields are kept too"


def test_the_fields_above_are_those_of_the_messages() -> None:
    assert {kind: len(kind._fields) for kind in FIELDS} == {kind: len(names) for kind, names in FIELDS.items()}
    assert set(m.MESSAGES) | {m.CallBody, m.ResultBody} == set(FIELDS)


def test_every_malformed_field_is_refused() -> None:
    for sample in (*SAMPLES, *BODIES):
        kind, good = type(sample), [list(item) if isinstance(item, SpanRef) else item for item in sample]
        assert _decoder(kind)(_raw(kind, good)) == sample
        for at, name in enumerate(FIELDS[kind]):
            for bad in KINDS[name][1]:
                _refuses(kind, _raw(kind, [*good[:at], bad, *good[at + 1 :]]))
        _refuses(kind, _raw(kind, [*good, None]))
        if good:
            _refuses(kind, _raw(kind, good[:-1]))


def test_what_is_no_list_with_a_known_number_is_no_message() -> None:
    for value in (
        None,
        1,
        "Hello",
        b"",
        [],
        [None],
        [True],
        [-1],
        [len(m.MESSAGES)],
        ["Hello"],
        [16.0],
        [[16]],
        [16, 0],
    ):
        _refuses(m.Farewell, codec.pack(value))
    assert m.decode(codec.pack([16])) == m.Farewell()


def test_a_name_that_occurs_twice_is_refused() -> None:
    twice = [["x", 1], ["x", 2]]
    call, result = BODIES
    assert isinstance(call, m.CallBody)
    assert isinstance(result, m.ResultBody)

    for body in (call._replace(state=twice), call._replace(keywords=twice), call._replace(configuration=twice)):
        _refuses(m.CallBody, m.encode_body(body))
    _refuses(m.ResultBody, m.encode_body(result._replace(state=twice)))
    hello = SAMPLES[0]
    assert isinstance(hello, m.Hello)
    _refuses(m.Hello, m.encode(hello._replace(versions=[["scikit-learn", "1.6"], ["scikit-learn", "1.7"]])))


def test_records_of_a_result_that_are_no_records_are_refused() -> None:
    result = BODIES[1]
    assert isinstance(result, m.ResultBody)
    for name, bads in RECORDS.items():
        for bad in bads:
            _refuses(m.ResultBody, m.encode_body(result._replace(**{name: [bad]})))


@pytest.mark.parametrize(
    "event",
    [
        1,
        [],
        ["end", [], "", 0],
        ["end", 1, "", 0, True],
        ["end", ["x"], "", 0, True],
        ["end", [True], "", 0, True],
        ["end", [], 1, 0, True],
        ["end", [], "", None, True],
        ["end", [], "", 0, 1],
    ],
)
def test_an_event_of_a_fit_that_is_none_is_refused(event: Any) -> None:
    _refuses(m.Progress, m.encode(m.Progress(3, [event])))


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=100), NODES.map(codec.pack)), st.sampled_from([m.Hello, m.CallBody, m.ResultBody]))
def test_random_bytes_and_values_are_refused_with_one_kind_of_error(raw: bytes, kind: type[Any]) -> None:
    try:
        message = _decoder(kind)(raw)
    except RemoteProtocolError:
        return

    assert type(message) in FIELDS


@settings(deadline=None, max_examples=400)
@given(st.sampled_from([*SAMPLES, *BODIES]), st.data())
def test_a_mutated_frame_is_refused_or_is_a_well_formed_message(sample: Any, data: st.DataObject) -> None:
    raw = bytearray(_encode(sample))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 300)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not raw:
            break

    try:
        message = _decoder(type(sample))(bytes(raw))
    except RemoteProtocolError:
        return

    assert _decoder(type(message))(_encode(message)) == message or "nan" in repr(message)
