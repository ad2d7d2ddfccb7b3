"""What it costs to have another process compute on an array: this project against others, in one run.

Contestants take turns, in another order each round, each in a process of its own. Directly before each call a memcpy of
the same bytes between two warm private buffers is timed, and up to 1 MB a bare ZeroMQ REQ/REP echo of 1 kB; medians of
the ratios are printed. The work is the same for all: the worker looks at one element of each page of a float32 matrix,
and returns the sum ("touch") or 2 X ("out"); the client looks at each page of what it gets. One element of X is changed
before every call, so that it has to be sent. Results are checked.

This project does it by two estimators (`transport_estimators/`), through all of `offload()`. Others are optional:
pip install "sklearn-wsl-gpu[bench]" installs ray, distributed, pyarrow, grpcio and matplotlib (for the plot);
joblib and pyzmq are there anyway. What is not installed is skipped with a word.

Run it on an idle machine of Linux, with 16 GB of memory for 1 GB arrays:
python benchmarks/transport.py --json benchmarks/results/transport.json --plot docs/transport.png
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
# Workers of every kind find the estimators by it, as installed packages.
_PATHS = [str(_HERE), str(_HERE / "transport_estimators")]
sys.path[:0] = [path for path in _PATHS if path not in sys.path]
os.environ["PYTHONPATH"] = os.pathsep.join([*_PATHS, *filter(None, [os.environ.get("PYTHONPATH")])])

import contestants  # noqa: E402
from measuring import extras, output, processors  # noqa: E402
from measuring.arrays import LAYOUTS, Arrays  # noqa: E402
from measuring.goals import judge  # noqa: E402
from measuring.rounds import Field, Row, in_words, rounds_of  # noqa: E402
from measuring.runner import adopt_orphans  # noqa: E402

_OWN = "sklearn_wsl_gpu"
_UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30}
_SIZES = "4KB,64KB,1MB,16MB,256MB,512MB,1GB"
_MB = 2**20
#: With whom other layouts than C are measured, too.
_LAYOUT_PEERS = ("shared_memory", "ray")


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]+) ?(KB|MB|GB)", text.strip().upper())
    if not found or int(found[1]) * _UNITS[found[2]] % 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 4KB, 16MB or 1GB, of whole pages of 4 KB")
    return int(found[1]) * _UNITS[found[2]]


def _sizes(text: str) -> list[int]:
    return sorted({_size(part) for part in text.split(",")})


def _contestants(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    unknown = set(names) - contestants.CONTESTANTS.keys()
    if unknown:
        known = ", ".join(contestants.CONTESTANTS)
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {known}")
    return [name for name in contestants.CONTESTANTS if name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=_sizes, default=_sizes(_SIZES), help=f"default: {_SIZES}")
    everybody = ",".join(contestants.CONTESTANTS)
    parser.add_argument("--contestants", type=_contestants, default=everybody, help=f"default: {everybody}")
    parser.add_argument("--rounds", type=int, help="at every size; default: from 101 at 4 KB to 5 at 1 GB")
    parser.add_argument(
        "--limit", type=float, default=15.0,
        help="seconds for a contestant at a size, warm-up included; who needs more is not run at larger ones (15)",
    )  # fmt: skip
    parser.add_argument("--json", help="file to write everything to")
    parser.add_argument("--plot", help="PNG file to draw")
    return parser.parse_args()


def _say(words: str) -> None:
    print(f"[{time.perf_counter() - _BEGIN:4.0f} s] {words}", file=sys.stderr, flush=True)


_BEGIN = time.perf_counter()


def _race(field: Field, options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for nbytes in options.sizes:
        rounds = options.rounds or rounds_of(nbytes)
        _say(f"{in_words(nbytes)}: {rounds} rounds of {', '.join(field.runners)}")
        found = field.race(nbytes, "C", [name for name in field.runners if name != "echo"], rounds)
        rows += found
        for name in {row.contestant for row in found if row.state != "ok"} & field.runners.keys():
            field.drop(name, f"> {field.limit:.0f} s at {in_words(nbytes)}")
        for layout in LAYOUTS[1:]:
            names = [name for name in (_OWN, *_LAYOUT_PEERS) if name in field.runners]
            rows += field.race(nbytes, layout, names, max(rounds // 2, 2))
    return rows


def _extras(field: Field, sizes: list[int], names: list[str], rows: list[Row]) -> dict[str, Any]:
    """Measure what belongs to the sizes that were asked for."""
    found: dict[str, Any] = {}
    if _OWN not in names:
        return found
    large = 512 * _MB
    if 4096 in sizes:
        _say("predict on 100 rows")
        found["tiny"] = extras.guarded(extras.tiny, field)
    asked_profiles = [("tiny", "predict", 4096, 1000)] if 4096 in sizes else []
    if 16 * _MB in sizes:
        asked_profiles += [(_OWN, "out", 16 * _MB, 200), ("local_copy", "out", 16 * _MB, 200)]
    if asked_profiles:
        _say("where a call spends the processors' time")
        profiles = [extras.guarded(processors.profile, field, *arguments) for arguments in asked_profiles]
        found["profiles"] = [one for one in profiles if one is not None]
    if 16 * _MB in sizes:
        _say("1,000 calls of mixed sizes; four clients")
        found["long run"] = extras.guarded(extras.long_run, field)
        found["four clients"] = extras.guarded(extras.four_clients, field, 16 * _MB)
    if large in sizes:
        _say("the first call of a session")
        # What a session prefaults by itself depends on the machine's memory: once as it is, once enough for the call.
        found["first call"] = extras.guarded(extras.first_call, field, large, large + _MB)
        found["first call, default prefault"] = extras.guarded(extras.first_call, field, large, None)
    _say("memory")
    size = large if large in sizes else max(sizes)
    modes = {row.mode for row in rows if row.contestant == _OWN and "out" in row.mode}
    asked = [(_OWN, mode, size) for mode in sorted(modes) if size >= 16 * _MB]
    at_256 = {row.contestant for row in rows if row.nbytes == 256 * _MB and row.seconds} - {_OWN, "local"}
    asked += [(name, "out", 256 * _MB) for name in names if name in at_256]
    measured = [extras.guarded(extras.memory, field, *arguments) for arguments in asked]
    found["memory"] = [one for one in measured if one is not None]
    return found


def _about(options: argparse.Namespace, load: float) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    packages = "sklearn-wsl-gpu numpy scikit-learn pyzmq msgpack joblib ray distributed pyarrow grpcio"
    for name in packages.split():
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    git = subprocess.run(
        ["git", "-C", str(_HERE), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git.stdout.strip() or "unknown",
        "machine": {
            "cpu": cpu[1] if cpu else platform.processor(),
            "cores": os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": platform.release(),
            "load before": load,
        },
        "versions": versions,
        "settings": {"limit": options.limit, "rounds": options.rounds, "pool": "defaults"},
    }


def _print_extras(found: dict[str, Any]) -> None:
    for name, one in found.items():
        if name not in ("memory", "profiles") and one is not None:
            kept = {key: value for key, value in one.items() if not isinstance(value, list)}
            print(f"{name}: {json.dumps(kept, default=str)}")
    for one in found.get("memory", ()):
        print(
            f"peak memory beyond the input: {one['contestant']}, {one['mode']}, {in_words(one['bytes'])}: "
            f"{one['arrays']:.2f} arrays ({one['prefaulted']:.2f} of it in shared memory before the call)"
        )


def main() -> None:
    options = _arguments()
    names = options.contestants if isinstance(options.contestants, list) else _contestants(options.contestants)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    adopt_orphans()
    about = _about(options, extras.load())
    skipped = {name: f"{needed} is not installed" for name in names if (needed := contestants.missing(name))}
    with tempfile.TemporaryDirectory(prefix="transport-") as logs:
        os.environ["TMPDIR"] = tempfile.tempdir = logs  # what a killed contestant leaves goes with it
        field = Field(
            ["echo", *(name for name in names if name not in skipped)],
            Arrays(2 * max(options.sizes)),  # of which every other column may be taken
            Path(logs),
            options.limit,
        )
        try:
            _say("starting")
            field.start()
            rows = _race(field, options)
            field.stop()
            found = _extras(field, options.sizes, names, rows)
        finally:
            field.stop()
    goals = judge(rows, found)
    print(f"{about['machine']}\n{about['versions']}\n\n{output.tables(rows)}\n")
    for name, words in {**skipped, **field.out}.items():
        print(f"{contestants.CONTESTANTS[name].words}: {words}")
    print(f"\n{output.phases_table(rows)}\n\n{output.profiles_table(found.get('profiles', []))}\n")
    _print_extras(found)
    print(f"\n{output.goals_table(goals)}")
    if options.json:
        content = {**about, "skipped": {**skipped, **field.out}, "rows": [row.to_dict() for row in rows]}
        Path(options.json).write_text(
            json.dumps({**content, "extras": found, "goals": goals}, indent=1) + "\n", "utf-8"
        )
    if options.plot:
        output.plot(rows, options.plot)
    _say("done")


if __name__ == "__main__":
    main()
