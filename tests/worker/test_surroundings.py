"""What joblib runs with in an executor."""

from __future__ import annotations

from joblib.parallel import get_active_backend

from wsl_worker.surroundings import Backend


def _active() -> str:
    return type(get_active_backend()[0]).__name__


def test_a_backend_holds_until_a_call_needs_another_or_has_failed() -> None:
    default, backend = _active(), Backend()

    backend.use("threading")
    first = get_active_backend()[0]
    backend.use("threading")
    assert _active() == "ThreadingBackend"
    assert get_active_backend()[0] is first

    backend.use("sequential")
    assert _active() == "SequentialBackend"

    backend.forget()
    assert _active() == default
    backend.use("threading")
    assert get_active_backend()[0] is not first
    backend.forget()
