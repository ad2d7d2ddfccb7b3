"""Settings: from arguments, from the surrounding `offload`, from the environment, from the defaults, in this order."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import entry_points
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.pool import machine, memory, sizing
from sklearn_wsl_gpu.pool.layout import PAGE, Geometry
from sklearn_wsl_gpu.waiting import PRIORITIES

if TYPE_CHECKING:
    from sklearn_wsl_gpu.reporting import Report

#: Stands for an argument that was not given; None is a value of its own for some.
UNSET: Final[Any] = type("Unset", (), {"__repr__": lambda self: "UNSET"})()

PREFIX = "SKLEARN_WSL_GPU_"
_ENDPOINT = re.compile(r"tcp://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[^/\s\[\]]+)?\]):([0-9]{1,5})")
_SLOTS = (4, 4, 8)
#: Ways of arrays to the worker, the preferred one first.
CARRIERS = ("shared", "stream", "file")


def _wrong(name: str, value: Any, allowed: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} must be {allowed}; got {value!r}. It is an argument of offload() and the environment variable "
        f"{PREFIX}{name.upper()}."
    )


def _endpoint(value: Any) -> str | None:
    if value is None or value == "":
        return None
    found = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    if found is None or not 0 < int(found[1]) < 2**16:
        allowed = "None (a worker of this process), or 'tcp://HOST:PORT', where an IPv6 address stands in [ ]"
        raise _wrong("endpoint", value, allowed)
    return found[0]


def _engine(value: Any) -> str:
    # Entry points are read, not loaded: this imports no engine.
    allowed = ["auto", *sorted({point.name for point in entry_points(group="sklearn_wsl_gpu.engines")})]
    if value not in allowed:
        raise _wrong("engine", value, f"one of {allowed}")
    return str(value)


def _device(value: Any) -> str:
    text = str(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value
    found = re.fullmatch(r"(auto|cpu)|cuda|(?:cuda:)?([0-9]{1,3})", text) if isinstance(text, str) else None
    if found is None:
        raise _wrong("device", value, "'auto', 'cpu', 'cuda:N' or the number N of a GPU")
    return found[1] or f"cuda:{int(found[2] or 0)}"


def _name_of(cls: Any) -> str:
    package = cls.__module__.partition(".")[0]
    return str(cls.__name__) if package == "sklearn" else f"{package}.{cls.__name__}"


def _estimators(name: str) -> Callable[[Any], frozenset[str] | None]:
    def parse(value: Any) -> frozenset[str] | None:
        from sklearn_wsl_gpu.estimators import GRAPHS, ROWS, third_party

        if value is None:
            return None
        found = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if isinstance(found, type):
            found = [found]
        try:
            chosen = frozenset(item if isinstance(item, str) else _name_of(item) for item in found)
        except (TypeError, AttributeError):
            chosen = frozenset({repr(value)})
        own = ROWS.keys() | GRAPHS.keys()
        if not chosen <= own:
            known = own | third_party.names()
            unknown = ", ".join(sorted(chosen - known))
            if unknown:
                raise _wrong(name, unknown, f"names of estimators, of these: {', '.join(sorted(known))}")
        return chosen

    return parse


def _whole(name: str, least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        try:
            number = int(value)
            if isinstance(value, float) and number != value:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise _wrong(name, value, f"a whole number of at least {least}") from None
        if isinstance(value, bool) or number < least:
            raise _wrong(name, value, f"a whole number of at least {least}")
        return number

    return parse


def _verbose(value: Any) -> int:
    return _whole("verbose", 0)(int(value) if isinstance(value, bool) else value)


def _precision(value: Any) -> str:
    if value not in ("exact", "engine"):
        raise _wrong("precision", value, "one of ['exact', 'engine']")
    return str(value)


def _fallback(value: Any) -> str:
    if value not in ("local", "quiet", "raise"):
        raise _wrong("fallback", value, "one of ['local', 'quiet', 'raise']")
    return str(value)


def _policy(value: Any) -> str:
    if value not in ("always", "auto"):
        raise _wrong("policy", value, "one of ['always', 'auto']")
    return str(value)


def _priority(value: Any) -> str:
    if value not in PRIORITIES:
        raise _wrong("priority", value, f"one of {list(PRIORITIES)}")
    return str(value)


def _carrier(value: Any) -> str:
    if value not in ("auto", *CARRIERS):
        raise _wrong("carrier", value, f"one of {['auto', *CARRIERS]}")
    return str(value)


def _timeout(value: Any) -> float | None:
    if value is None or value in ("", "none"):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise _wrong("timeout", value, "None (no limit), or a positive number of seconds")
    return seconds


def _slots(value: Any) -> tuple[int, int, int]:
    try:
        inputs, outputs, scratch = map(_whole("slots", 0), value.split(",") if isinstance(value, str) else value)
        Geometry(PAGE, inputs, outputs, scratch)
        if inputs < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise _wrong(
            "slots", value, "three numbers (input, output, scratch), the first two at least 1, such as 4,4,8"
        ) from None
    return inputs, outputs, scratch


def _slot_bytes(value: Any) -> int | None:
    if value is None:
        return None
    number = _whole("slot_bytes", 1)(value)
    if number % PAGE:
        raise _wrong("slot_bytes", value, f"a positive multiple of {PAGE}")
    return number


def _bytes(name: str) -> Callable[[Any], int | None]:
    whole = _whole(name, 0)

    def parse(value: Any) -> int | None:
        return None if value is None or value == "" else whole(value)

    return parse


def _path(name: str) -> Callable[[Any], str | None]:
    def parse(value: Any) -> str | None:
        if value is None or value == "":
            return None
        try:
            # A whole one: the worker, and this program later on, are in other directories.
            return os.path.abspath(os.path.expanduser(os.fsdecode(value)))
        except (TypeError, OSError):  # there may be no working directory any more
            raise _wrong(name, value, "None, or a directory that is there") from None

    return parse


def _distribution(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or value.startswith("-") or not value.isprintable():
        raise _wrong("distribution", value, "None (the default one), or the name of a distribution of WSL")
    return value


def _interpreter(value: Any) -> str | None:
    if value is None or value == "":
        return None
    path = value.as_posix() if isinstance(value, PurePath) else value
    if not isinstance(path, str) or not path.startswith(("/", "~/")):
        raise _wrong("interpreter", value, "None (the usual one), or a path on the worker's side: /... or ~/...")
    return path


def _setting(default: Any, parse: Callable[[Any], Any]) -> Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of `offload`, checked. See there for what each one means."""

    endpoint: str | None = _setting(None, _endpoint)
    engine: str = _setting("auto", _engine)
    device: str = _setting("auto", _device)
    include: frozenset[str] | None = _setting(None, _estimators("include"))
    exclude: frozenset[str] | None = _setting(None, _estimators("exclude"))
    min_elements: int = _setting(0, _whole("min_elements", 0))
    policy: str = _setting("always", _policy)
    fallback: str = _setting("local", _fallback)
    precision: str = _setting("exact", _precision)
    verbose: int = _setting(0, _verbose)
    timeout: float | None = _setting(None, _timeout)
    priority: str = _setting("normal", _priority)
    slots: tuple[int, int, int] = _setting(_SLOTS, _slots)
    slot_bytes: int | None = _setting(None, _slot_bytes)
    pool_limit: int | None = _setting(None, _bytes("pool_limit"))
    prefault: int | None = _setting(None, _bytes("prefault"))
    pool_dir: str | None = _setting(None, _path("pool_dir"))
    carrier: str = _setting("auto", _carrier)
    keys: str | None = _setting(None, _path("keys"))
    model_bytes: int = _setting(2**30, _whole("model_bytes", 0))
    distribution: str | None = _setting(None, _distribution)
    interpreter: str | None = _setting(None, _interpreter)

    def pool_size(self) -> sizing.Choice:
        """Decide on the slots of a session's pool, by what the machine has free now.

        Raises
        ------
        ConfigurationError
            If a pool of that size was asked for and the machine cannot hold it.
        """
        return sizing.choose(self._bounds(), self.slots, self.slot_bytes)

    def limit(self) -> int:
        """Return the bytes that a session's pool may grow to."""
        return sizing.limit(self._bounds()) if self.pool_limit is None else self.pool_limit

    def ready_bytes(self, geometry: Geometry) -> int:
        """Return the bytes of input slots, and of output slots, that are made ready when a session is opened."""
        return sizing.ready_bytes(self._bounds(), geometry) if self.prefault is None else self.prefault

    def carriers(self) -> list[str]:
        """Return the names of the carriers that a session may use, the preferred one first."""
        if self.carrier != "auto":
            return [self.carrier]
        # Elsewhere a worker that shares no memory shares no file either, or one on a network.
        return [name for name in CARRIERS if name != "file" or os.name == "nt"]

    def _bounds(self) -> list[sizing.Bound]:
        return machine.bounds(memory.directory_of(self.pool_dir, "file" in self.carriers()))


NAMES = tuple(item.name for item in fields(Settings))


def resolve(arguments: Mapping[str, Any], around: Settings | None = None) -> Settings:
    """Return checked settings.

    Parameters
    ----------
    arguments : mapping
        What was given; values that are `UNSET` were not.
    around : Settings or None
        Settings of the surrounding context; the environment's if None.

    Raises
    ------
    ConfigurationError
        If a value is not allowed; the message lists those that are.
    """
    base = from_environment() if around is None else around
    given = {name: value for name, value in arguments.items() if value is not UNSET}
    parsers = {item.name: item.metadata["parse"] for item in fields(Settings)}
    settings = replace(base, **{name: parsers[name](value) for name, value in given.items()})
    if (settings.slots, settings.slot_bytes) != (_SLOTS, None):
        settings.pool_size()  # what cannot be is told where it was asked for
    return settings


def checked(name: str, value: Any) -> Any:
    """Return the value of one setting as it is used, and be silent about all others; raise as `resolve` does."""
    [parse] = [item.metadata["parse"] for item in fields(Settings) if item.name == name]
    return parse(value)


def from_environment() -> Settings:
    """Return the settings that the environment variables make, the defaults elsewhere."""
    found = {}
    for item in fields(Settings):
        raw = os.environ.get(PREFIX + item.name.upper())
        if raw:
            found[item.name] = item.metadata["parse"](raw)
    return Settings(**found)


@dataclass(slots=True, eq=False)
class Frame:
    """One entered `offload`.

    Attributes
    ----------
    settings : Settings
    reports : tuple of Report
        Where calls are recorded: its own, those of the contexts around it, the process's.
    parent : Frame or None
        What was active before.
    owner : object
        Who entered it.
    warned : set
        Reasons that a `FallbackWarning` was given for; shared with the contexts around it.
    is_open : bool
        Whether it was not left yet, in whatever thread.
    """

    settings: Settings
    reports: tuple[Report, ...]
    parent: Frame | None
    owner: object
    warned: set[tuple[str, str]]
    is_open: bool = True


#: A frame in which nothing is offloaded, whatever is enabled for the process.
_SUSPENDED: Final = Frame(Settings(), (), None, None, set())

#: The entered frame; None where there is none. Threads and tasks begin without one.
_entered: ContextVar[Frame | None] = ContextVar("sklearn_wsl_gpu", default=None)


class _Process:
    """What holds in every thread and task of the process that has not entered a frame."""

    __slots__ = ("frame",)

    def __init__(self) -> None:
        self.frame: Frame | None = None


_process = _Process()


def active() -> Frame | None:
    """Return the frame that calls run in here: the one that was entered, or the process's; None for neither."""
    frame = _entered.get()
    while frame is not None and not frame.is_open:
        frame = frame.parent
    frame = _process.frame if frame is None else frame
    return None if frame is _SUSPENDED else frame


def enter(frame: Frame | None) -> Frame | None:
    """Make a frame the entered one of this thread or task; return the one before."""
    before = _entered.get()
    _entered.set(frame)
    return before


def entered() -> Frame | None:
    """Return what was entered last in this thread or task, whatever is enabled for the process."""
    return _entered.get()


def set_process_frame(frame: Frame | None) -> Frame | None:
    """Make a frame the process's; return the one before."""
    before, _process.frame = _process.frame, frame
    return before


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Run scikit-learn's own code: nothing beneath it is offloaded."""
    before = enter(_SUSPENDED)
    try:
        yield
    finally:
        enter(before)
