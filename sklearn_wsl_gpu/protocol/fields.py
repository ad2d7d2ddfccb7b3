"""What a field of a message may hold: each function returns the checked value, or raises `RemoteProtocolError`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from sklearn_wsl_gpu.arrays import SpanRef, check_span_ref
from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.waiting import PRIORITIES

Check: TypeAlias = Callable[[Any], Any]


def integer(value: Any) -> int:
    """Check a whole number from -1 to 2**63 - 1."""
    if type(value) is not int or not -1 <= value < 2**63:
        raise RemoteProtocolError("A message has a number that is none, or out of range.")
    return value


def text(value: Any) -> str:
    """Check a text of at most 64 Ki characters."""
    if type(value) is not str or len(value) > 65_536:
        raise RemoteProtocolError("A message has a text that is none, or too long.")
    return value


def priority(value: Any) -> str:
    """Check a priority."""
    if value not in PRIORITIES:
        raise RemoteProtocolError("A message has a priority that is none.")
    return str(value)


def blob(value: Any) -> bytes:
    """Check a token of at most 256 bytes."""
    if type(value) is not bytes or len(value) > 256:
        raise RemoteProtocolError("A message has a token that is none, or too long.")
    return value


def items(value: Any) -> list[Any]:
    """Check a list, whatever is in it."""
    if type(value) is not list:
        raise RemoteProtocolError("A message has something else where a list belongs.")
    return value


def integers(value: Any) -> list[int]:
    """Check a list of whole numbers."""
    return [integer(item) for item in items(value)]


def named_lists(value: Any) -> list[list[Any]]:
    """Check a list of lists that begin with a text."""
    for item in items(value):
        text(items(item)[0] if item else None)
    return value  # type: ignore[no-any-return]


def offer(value: list[Any]) -> tuple[list[int], list[list[Any]]]:
    """Check what is offered in a greeting of this protocol: of a segment, and of the ways to it."""
    if len(value) != 2:
        raise RemoteProtocolError("A message has something else where a segment is offered.")
    return integers(value[0]), named_lists(value[1])


def texts(value: Any) -> list[str]:
    """Check a list of texts."""
    return [text(item) for item in items(value)]


def pairs(value: Any) -> list[list[Any]]:
    """Check a list of pairs of a name and something, no name twice."""
    for pair in items(value):
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
            raise RemoteProtocolError("A message has something else where pairs belong.")
    if len({name for name, _ in value}) < len(value):
        raise RemoteProtocolError("A message has a name twice.")
    return value  # type: ignore[no-any-return]


def texts_by_name(value: Any) -> list[list[Any]]:
    """Check pairs of a name and a list of texts."""
    return [[text(name), texts(values)] for name, values in pairs(value)]


def text_pairs(value: Any) -> list[list[str]]:
    """Check pairs of two texts."""
    return [[text(name), text(item)] for name, item in pairs(value)]


def span(value: Any) -> SpanRef:
    """Check a span."""
    return check_span_ref(value)


def optional_span(value: Any) -> SpanRef | None:
    """Check a span or None."""
    return None if value is None else check_span_ref(value)


def lent(value: Any) -> list[tuple[SpanRef, list[Any], bool]]:
    """Check records of a span, a list of array refs, which are looked at where the span is, and a flag."""
    if not all(type(record) is list and len(record) == 3 for record in items(value)):
        raise RemoteProtocolError("A message has something else where a span and its arrays belong.")
    return [(check_span_ref(where), items(refs), flag(constant)) for where, refs, constant in value]


def optional_pairs(value: Any) -> list[list[Any]] | None:
    """Check pairs or None."""
    return None if value is None else pairs(value)


def records(*kinds: type[Any]) -> Check:
    """Return the check of a list of records whose fields are of these types."""

    def check(value: Any) -> list[list[Any]]:
        for record in items(value):
            if type(record) is not list or [type(item) for item in record] != list(kinds):
                raise RemoteProtocolError("A message has a record of other fields than it should.")
        return value  # type: ignore[no-any-return]

    return check


def events(value: Any) -> list[Any]:
    """Check events of `Progress`."""
    for _, path, *_ in records(str, list, str, int, bool, str, str)(value):
        if not all(type(item) is int for item in path):
            raise RemoteProtocolError("A message has a task whose place is none.")
    return value  # type: ignore[no-any-return]


def number(value: Any) -> float:
    """Check a number, and return it as a float."""
    if type(value) not in (int, float):
        raise RemoteProtocolError("A message has something else where a number belongs.")
    return float(value)


def flag(value: Any) -> bool:
    """Check a bool."""
    if type(value) is not bool:
        raise RemoteProtocolError("A message has something else where a flag belongs.")
    return value


def anything(value: Any) -> Any:
    """Let a node pass; the value codec checks it."""
    return value
