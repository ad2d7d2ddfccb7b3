"""What is measured of this project beside the rounds: first call, memory, four clients, a tiny call, a long run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from measuring.memory import memory_of, settle
from measuring.rounds import Field, summary
from measuring.runner import Broken, Runner, TooSlow

_OWN = "sklearn_wsl_gpu"
_KB, _MB = 2**10, 2**20
_CALL_SECONDS = 120.0
#: How many of a hundred calls of the long run are of which size.
_MIX = {4 * _KB: 35, 64 * _KB: 30, _MB: 20, 16 * _MB: 12, 64 * _MB: 3}


def _opened(field: Field, name: str, environment: dict[str, str] | None = None) -> Runner:
    runner = field.fresh(name, environment)
    runner.call(_CALL_SECONDS, "out")
    settle(runner.pid)
    return runner


def first_call(field: Field, nbytes: int, prefault: int | None, samples: int = 3) -> dict[str, Any]:
    """Measure the first large call of a new session, after what it prefaults is there."""
    environment = {} if prefault is None else {"SKLEARN_WSL_GPU_PREFAULT": str(prefault)}
    ratios = []
    for _ in range(samples):
        runner = _opened(field, _OWN, environment)
        try:
            runner.use(_CALL_SECONDS, nbytes, "C")
            base = field.arrays.memcpy(nbytes)
            ratios.append(runner.call(_CALL_SECONDS, "out")[0] / base)
        finally:
            runner.stop()
    return {"bytes": nbytes, "prefault": prefault, "rounds": samples, "x memcpy": summary(ratios)}


def memory(field: Field, name: str, mode: str, nbytes: int) -> dict[str, Any]:
    """Measure the most memory that two calls take beyond their input, in sizes of it.

    Shared memory counts from the first byte, so that what was prefaulted before is not left out.
    """
    runner = _opened(field, name)
    try:
        everything, shared = memory_of(runner.pid)
        runner.use(_CALL_SECONDS, nbytes, "C")
        peak = 0
        for _ in range(2):
            runner.tell("call", mode, False, 1)
            while not runner.has_answered(0.003):
                peak = max(peak, memory_of(runner.pid)[0])
            runner.wait(1)
        own = nbytes if mode.startswith("pool") else 0
        beyond = peak - (everything - shared) - own
        about = {"contestant": name, "mode": mode, "bytes": nbytes}
        found = {
            "arrays": beyond / nbytes,
            "above idle": (peak - everything - own) / nbytes,
            "prefaulted": shared / nbytes,
        }
        return about | found
    finally:
        runner.stop()


@contextlib.contextmanager
def _standing_worker() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="transport-") as keys:
        command = [sys.executable, "-m", "wsl_worker", "--keys", keys, "--engine", "cpu"]
        worker = subprocess.Popen([*command, "--listen", "tcp://127.0.0.1:*"], stdout=subprocess.PIPE)
        try:
            assert worker.stdout is not None
            endpoint = json.loads(worker.stdout.readline())["endpoint"]
            yield {"TRANSPORT_ENDPOINT": endpoint, "TRANSPORT_KEYS": keys}
        finally:
            worker.terminate()
            worker.wait()
            worker.stdout.close()  # type: ignore[union-attr]


def four_clients(field: Field, nbytes: int, rounds: int = 5, calls: int = 12) -> dict[str, Any]:
    """Measure four clients of one worker at once against four processes that copy and compute by themselves."""
    with _standing_worker() as environment, contextlib.ExitStack() as stack:
        sides: dict[str, list[Runner]] = {}
        for name in (_OWN, "local_copy"):
            sides[name] = [field.fresh(name, environment) for _ in range(4)]
            for runner in sides[name]:
                stack.callback(runner.stop)
                runner.use(_CALL_SECONDS, nbytes, "C")
                runner.call(_CALL_SECONDS, "out")
        ratios, rates = [], {name: [] for name in sides}
        for _ in range(rounds):
            for name, runners in sides.items():
                begin = time.perf_counter()
                for runner in runners:
                    runner.tell("call", "out", False, calls)
                for runner in runners:
                    runner.wait(_CALL_SECONDS)
                rates[name].append(4 * calls * nbytes / (time.perf_counter() - begin))
            ratios.append(rates[_OWN][-1] / rates["local_copy"][-1])
    about = {f"{name}, bytes/s": statistics.median(found) for name, found in rates.items()}
    return {"bytes": nbytes, "rounds": rounds, **about, "share": summary(ratios)}


def tiny(field: Field, rounds: int = 300) -> dict[str, Any]:
    """Measure predict on 100 rows, offloaded, each after a bare echo."""
    runners = [field.fresh("echo"), field.fresh("tiny")]
    try:
        pairs, phases = [], []
        for number in range(-20, rounds):
            echo = runners[0].call(_CALL_SECONDS, "echo")[0]
            seconds, parts = runners[1].call(_CALL_SECONDS, "predict")
            if number >= 0:
                pairs.append((echo, seconds))
                phases.append(parts)
    finally:
        for runner in runners:
            runner.stop()
    echoes, calls = zip(*pairs, strict=True)
    return {
        "rounds": rounds,
        "echo": summary(echoes),
        "seconds": summary(calls),
        "x echo": summary([call / echo for echo, call in pairs]),
        "phases": {name: statistics.median(one[name] for one in phases) for name in phases[0]},
    }


def long_run(field: Field, calls: int = 1000, runs: int = 5) -> dict[str, Any]:
    """Measure a thousand calls of mixed sizes: the last hundred against the first, both of the same sizes.

    A hundred calls take a third of a second, in which much may happen on a machine: so there are several runs.
    """
    largest = field.arrays.of(4 * _KB, "C").base.nbytes
    hundred = [size for size, count in _MIX.items() for _ in range(count) if size <= largest]
    shuffle = random.Random(0).shuffle
    sizes: list[int] = []
    while len(sizes) < calls:
        shuffle(hundred)
        sizes += hundred
    count, nbytes = len(hundred), sum(hundred)
    rates = []
    for _ in range(runs):
        runner = _opened(field, _OWN)
        try:
            runner.ask(_CALL_SECONDS, "mixed", sorted(set(hundred)))
            seconds = runner.ask(_CALL_SECONDS, "mixed", sizes)
        finally:
            runner.stop()
        rates.append([nbytes / sum(seconds[at : at + count]) for at in range(0, len(seconds), count)])
    last = summary([one[-1] / one[0] for one in rates])
    return {"calls": len(sizes), "runs": runs, "bytes/s by hundred": rates, "last / first": last}


def guarded(measure: Any, *arguments: Any) -> Any:
    """Return what a measure finds, or None with a word on standard error if it fails."""
    try:
        return measure(*arguments)
    except (TooSlow, Broken) as error:
        print(f"{measure.__name__}{arguments[1:]}: {type(error).__name__} {error}", file=sys.stderr)
        return None


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]
