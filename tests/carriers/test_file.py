"""The carrier for a file that two kernels see: it works where the file is coherent, and nowhere else."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import opening
from sklearn_wsl_gpu.carriers.base import PROBES, CarrierFailed, Unsettled
from sklearn_wsl_gpu.carriers.file import PIECE_BYTES, offer
from sklearn_wsl_gpu.errors import ProtocolError
from sklearn_wsl_gpu.pool import Lease, Segment
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, PAGE, SPAN_HEADER_BYTES, WORKER
from sklearn_wsl_gpu.protocol import messages as m

if os.name == "nt":
    pytest.skip("the worker's end of it, which is tested too, is of Linux", allow_module_level=True)

from tests.carriers import lying
from tests.carriers.ends import Ends, ends
from wsl_worker import background, files
from wsl_worker.arrivals import Arrival, Arrivals

NBYTES = PIECE_BYTES + 12_345
RANDOM = np.random.default_rng(0)


class Switch:
    """The mode in which a pool lies."""

    def __init__(self) -> None:
        self.mode = "coherent"
        self.pairs: list[lying.Pair] = []


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    """Let all pools of this process lie, as the switch says."""
    switch = Switch()
    liar = lying.Liar(lambda: switch.mode)
    switch.pairs = liar.pairs
    monkeypatch.setattr(files, "open_file", liar.open_file)
    monkeypatch.setattr(os, "preadv", liar.read)
    monkeypatch.setattr(os, "pwritev", liar.write)
    monkeypatch.setattr(os, "fdatasync", liar.sync)
    yield switch
    liar.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing seem to hang only because the machine is busy."""
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 60.0)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Ends]:
    with ends(tmp_path) as made:
        yield made


def _open(both: Ends) -> None:
    both.carrier.open(both.pool.segment, time.monotonic() + 60, threading.Event())


def _fill(both: Ends) -> tuple[Lease, memoryview]:
    """Lease a span and write to it; return it and its bytes."""
    lease = both.pool.lease_input(NBYTES)
    window = both.pool.window(lease)[:NBYTES]
    window[:] = RANDOM.integers(0, 256, NBYTES, np.uint8)
    both.pool.seal(lease, NBYTES)
    return lease, window.data


def _there(both: Ends, lease: Lease, window: memoryview) -> None:
    pieces = [window[:SPAN_HEADER_BYTES], window[SPAN_HEADER_BYTES:]]
    both.carrier.there(1, lease.ref, SPAN_HEADER_BYTES, pieces, None)


def _mirrored(both: Ends, lease: Lease) -> bytes:
    return both.mirror.window(lease.ref.start, NBYTES).tobytes()


def _change(both: Ends, lease: Lease) -> bytes:
    """Let the worker write something else to the span in its own memory; return that."""
    view = both.mirror.window(lease.ref.start, NBYTES)
    view[SPAN_HEADER_BYTES:] = RANDOM.integers(0, 256, NBYTES - SPAN_HEADER_BYTES, np.uint8)
    both.mirror.seal(lease.ref.start, lease.ref.generation, NBYTES, WORKER)
    return view.tobytes()


def _cross_there_and_back(both: Ends) -> None:
    lease, window = _fill(both)
    _there(both, lease, window)
    assert _mirrored(both, lease) == bytes(window)
    changed = _change(both, lease)
    both.carrier.back(1, lease.ref, window, None)
    assert bytes(window) == changed


def test_what_is_written_on_either_side_is_there_on_the_other(both: Ends) -> None:
    _open(both)
    _cross_there_and_back(both)
    assert both.carrier.is_settled(1)


@pytest.mark.parametrize("nbytes", [SPAN_HEADER_BYTES, SPAN_HEADER_BYTES + 1, PAGE, PIECE_BYTES, PIECE_BYTES + 1])
def test_a_span_of_any_size_crosses_with_its_header(nbytes: int, both: Ends) -> None:
    _open(both)
    lease = both.pool.lease_input(NBYTES)
    window = both.pool.window(lease)[:nbytes]
    window[:] = RANDOM.integers(0, 256, nbytes, np.uint8)
    both.pool.seal(lease, nbytes)

    both.carrier.there(1, lease.ref, SPAN_HEADER_BYTES, [window.data[:64], window.data[64:]], None)

    assert both.mirror.window(lease.ref.start, nbytes).tobytes() == window.tobytes()


def test_each_piece_that_has_come_is_told_of_and_none_that_came_otherwise(both: Ends) -> None:
    told: list[Arrival] = []
    both.account.arrivals = Arrivals(told.append)
    _open(both)
    lease, window = _fill(both)

    _there(both, lease, window)

    ends = [SPAN_HEADER_BYTES + PIECE_BYTES, NBYTES]
    assert told == [Arrival(1, lease.ref, end) for end in ends]
    assert both.account.arrivals.take(1, lease.ref) == 1
    wrong = m.Fetch(b"", 2, lease.ref, SPAN_HEADER_BYTES, PAGE, zlib.crc32(window[SPAN_HEADER_BYTES:PAGE]) ^ 1)
    assert isinstance(both.ask(wrong, None), m.Moved)
    assert told[2:] == []


def test_a_part_of_a_span_crosses_and_the_rest_stays(both: Ends) -> None:
    _open(both)
    lease, window = _fill(both)

    both.carrier.there(1, lease.ref, PAGE + 3, [window[:SPAN_HEADER_BYTES], window[PAGE + 3 : PAGE + 1000]], None)

    mirrored = _mirrored(both, lease)
    assert mirrored[:SPAN_HEADER_BYTES] == bytes(window[:SPAN_HEADER_BYTES])
    assert mirrored[PAGE + 3 : PAGE + 1000] == bytes(window[PAGE + 3 : PAGE + 1000])
    assert not any(mirrored[SPAN_HEADER_BYTES : PAGE + 3] + mirrored[PAGE + 1000 :])


def test_the_cheapest_way_is_taken_where_the_file_is_coherent(both: Ends) -> None:
    _open(both)

    assert repr(both.carrier) == "<File, read by pread, written by pwrite>"


@pytest.mark.parametrize("mode", lying.LIES)
def test_a_file_that_lies_is_refused(mode: str, switch: Switch, both: Ends) -> None:
    switch.mode = mode

    with pytest.raises(CarrierFailed, match="not coherent"):
        _open(both)


@pytest.mark.parametrize("mode", lying.TRUTHS)
def test_a_file_with_which_one_can_work_is_taken(
    mode: str, switch: Switch, both: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch.mode = mode
    _open(both)
    _cross_there_and_back(both)


@pytest.mark.parametrize("mode", lying.PARTIAL)
def test_the_cheapest_way_that_is_coherent_is_found(mode: str, switch: Switch, both: Ends) -> None:
    switch.mode = mode
    _open(both)

    reading, writing = lying.PARTIAL[mode]
    assert repr(both.carrier) == f"<File, read by {reading}, written by {writing}>"
    _cross_there_and_back(both)


@pytest.mark.parametrize("mode", [mode for mode in lying.LIES if mode not in ("one-way there", "short writes")])
def test_a_file_that_begins_to_lie_is_noticed_on_the_way_there_and_nothing_of_it_is_taken(
    mode: str, switch: Switch, both: Ends
) -> None:
    _open(both)
    lease, window = _fill(both)
    _there(both, lease, window)
    before = _mirrored(both, lease)
    both.mirror.window(lease.ref.start, SPAN_HEADER_BYTES).data[:] = bytes(SPAN_HEADER_BYTES)
    switch.mode = mode
    window[SPAN_HEADER_BYTES:] = RANDOM.bytes(NBYTES - SPAN_HEADER_BYTES)
    if mode in ("stale after first read", "error after 3"):
        _there_again(both, lease, window)

    with pytest.raises(CarrierFailed):
        _there(both, lease, window)

    # The header is still missing: so whoever reads the span refuses it.
    assert _mirrored(both, lease)[:SPAN_HEADER_BYTES] == bytes(SPAN_HEADER_BYTES) != before[:SPAN_HEADER_BYTES]


def _there_again(both: Ends, lease: Lease, window: memoryview) -> None:
    _there(both, lease, window)
    both.mirror.window(lease.ref.start, SPAN_HEADER_BYTES).data[:] = bytes(SPAN_HEADER_BYTES)
    window[SPAN_HEADER_BYTES:] = RANDOM.bytes(NBYTES - SPAN_HEADER_BYTES)


def test_what_a_cache_holds_back_of_the_challenge_has_arrived_before_the_pool_is_used(
    switch: Switch, both: Ends
) -> None:
    switch.mode = "cached"  # a plain write is tried first
    _open(both)

    assert repr(both.carrier) == "<File, read by direct, written by direct>"
    assert not switch.pairs[0].dirty


def test_what_a_cache_holds_back_of_a_result_has_arrived_before_its_span_is_used_again(
    switch: Switch, both: Ends
) -> None:
    _open(both)
    lease, window = _fill(both)
    _there(both, lease, window)
    _change(both, lease)
    switch.mode = "cached"

    with pytest.raises(CarrierFailed, match="shows other bytes"):
        both.carrier.back(1, lease.ref, window, None)

    assert not switch.pairs[0].dirty
    assert both.carrier.is_settled(1)


@pytest.mark.parametrize("mode", ["stale reads", "one-way there", "torn page", "error after 3", "short writes"])
def test_a_file_that_begins_to_lie_is_noticed_on_the_way_back(mode: str, switch: Switch, both: Ends) -> None:
    _open(both)
    lease, window = _fill(both)
    _there(both, lease, window)
    _change(both, lease)
    switch.mode = mode
    if mode == "error after 3":
        both.carrier.back(1, lease.ref, window, None)
        _change(both, lease)

    with pytest.raises(CarrierFailed):
        both.carrier.back(1, lease.ref, window, None)

    assert both.carrier.is_settled(1)


def test_a_read_that_hangs_is_given_up_and_what_it_reads_later_lands_nowhere(
    switch: Switch, both: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 0.2)
    _open(both)
    lease, window = _fill(both)
    switch.mode = lying.HANG_READ

    with pytest.raises(CarrierFailed, match="waited for the pool's file"):
        _there(both, lease, window)
    switch.mode = "coherent"
    while both.files._lane._running is not None:
        time.sleep(0.01)

    assert _mirrored(both, lease) == bytes(NBYTES)


def test_a_write_that_hangs_leaves_the_span_unsettled_until_it_has_ended(
    switch: Switch, both: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 0.2)
    _open(both)
    lease, window = _fill(both)
    _there(both, lease, window)
    _change(both, lease)
    switch.mode = lying.HANG_WRITE

    with pytest.raises(Unsettled):
        both.carrier.back(7, lease.ref, window, None)

    assert not both.carrier.is_settled(7)
    assert both.files.may_write_for(7)
    assert not both.files.may_write_for(8)
    with pytest.raises(CarrierFailed, match="not used any more"):
        _there(both, lease, window)
    switch.mode = "coherent"
    while both.files.may_write_for(7):
        time.sleep(0.01)


def test_a_file_that_hangs_when_it_is_opened_is_refused(both: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def hang(*_: object) -> None:
        go.wait()
        raise CarrierFailed("too late")

    monkeypatch.setattr(files, "open_file", hang)
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 0.2)

    with pytest.raises(CarrierFailed, match="waited for the pool's file"):
        _open(both)

    assert both.carrier.is_settled(PROBES)
    go.set()


def test_a_challenge_whose_write_hangs_leaves_a_pool_that_is_not_used(
    switch: Switch, both: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 0.2)
    switch.mode = lying.HANG_WRITE

    with pytest.raises(Unsettled, match="may still be written to"):
        opening.open_all([both.carrier], both.pool.segment)

    switch.mode = "coherent"


def test_a_carrier_that_is_closed_stores_nothing_and_asks_for_nothing(both: Ends) -> None:
    _open(both)
    lease, window = _fill(both)
    before = both.pool.segment.map[:]
    both.carrier.close()

    with pytest.raises(CarrierFailed, match="not used any more"):
        _open(both)
    with pytest.raises(CarrierFailed, match="not used any more"):
        _there(both, lease, window)

    assert both.pool.segment.map[:] == before
    assert _mirrored(both, lease) == bytes(NBYTES)


def test_nothing_is_brought_for_a_request_that_was_cancelled(both: Ends) -> None:
    _open(both)
    lease, window = _fill(both)
    assert both.account.cancel(1)

    with pytest.raises(CarrierFailed, match="cancelled"):
        _there(both, lease, window)
    with pytest.raises(CarrierFailed, match="cancelled"):
        both.carrier.back(1, lease.ref, window, None)

    assert _mirrored(both, lease) == bytes(NBYTES)


def test_bytes_whose_checksum_is_wrong_are_not_taken(both: Ends) -> None:
    _open(both)
    lease, window = _fill(both)

    answer = both.ask(m.Fetch(b"", 1, lease.ref, 0, 4096, 1), None)

    assert answer == m.Moved(zlib.crc32(window[:4096]))
    assert _mirrored(both, lease)[:4096] == bytes(4096)


def test_what_a_client_asks_for_is_looked_at_as_if_it_were_forged(both: Ends) -> None:
    _open(both)
    end = both.pool.segment.geometry.file_bytes
    span = SpanRef(0, DATA_OFFSET, 2 * PAGE, 1)
    forged: list[m.Message] = [
        m.Fetch(b"", 1, span, 0, 0, 0),
        m.Fetch(b"", 1, span, 0, -1, 0),
        m.Fetch(b"", 1, span, -1, 1, 0),
        m.Fetch(b"", 1, span, PAGE, PAGE + 1, 0),
        m.Fetch(b"", 1, span._replace(segment=1), 0, 1, 0),
        m.Fetch(b"", 1, span._replace(start=0), 0, 1, 0),
        m.Fetch(b"", 1, span._replace(start=DATA_OFFSET + 1), 0, 1, 0),
        m.Fetch(b"", 1, span._replace(start=end - PAGE), 0, 1, 0),
        m.Fetch(b"", 1, span._replace(nbytes=PAGE + 1), 0, 1, 0),
        m.Fetch(b"", 1, span._replace(nbytes=2 * PIECE_BYTES), 0, PIECE_BYTES + 1, 0),
        m.Store(b"", 1, span, 1, 1),
        m.Store(b"", 1, span, PAGE, PAGE + 1),
        m.Store(b"", 1, span._replace(start=0), 0, 1),
        m.Store(b"", 1, span, 0, PAGE),  # nobody has sealed it
        m.Probe(b"", 1, [DATA_OFFSET], False, 0),
        m.Probe(b"", 0, [0], False, 0),
        m.Probe(b"", 0, [end - 15], True, 0),
        m.Probe(b"", 0, [DATA_OFFSET], True, 3),
        m.Probe(b"", 0, [DATA_OFFSET], False, 2),
        m.Probe(b"", 0, [DATA_OFFSET], False, -1),
        m.Probe(b"", 0, [DATA_OFFSET] * 65, False, 0),
    ]
    before = both.pool.segment.map[:]

    answers = [both.ask(message, None) for message in forged]

    assert [type(answer) for answer in answers] == [m.Refused] * len(forged)
    assert both.pool.segment.map[:] == before


def test_a_session_that_the_worker_has_forgotten_is_no_fault_of_the_file(both: Ends) -> None:
    both.carrier._ask = lambda *_, **__: m.Refused("unknown-session", "The worker has no such session.")

    with pytest.raises(ProtocolError, match="no such session"):
        _open(both)


def test_a_segment_that_is_added_is_challenged_too(switch: Switch, both: Ends) -> None:
    _open(both)
    number, segment = both.pool.prepare(PAGE) or (0, both.pool.segment)
    assert number
    assert segment.path is not None
    mirror = Segment.create(segment.geometry, epoch=segment.epoch)
    both.account.segments[number] = mirror
    both.files.add(number, segment.path)
    both.carrier.admit(number, segment, offer(segment), ())

    switch.mode = "stale reads"
    with pytest.raises(CarrierFailed, match="added"):
        both.carrier.admit(number, segment, offer(segment), ())

    both.files.drop(number)
    assert isinstance(both.ask(m.Probe(b"", number, [DATA_OFFSET], False, 0), None), m.Refused)
    segment.close()
