"""The ``sklearn-wsl-gpu`` command."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from sklearn_wsl_gpu.errors import OffloadError
from sklearn_wsl_gpu.tables import as_text, size
from sklearn_wsl_gpu.workertext import executor_line, session_lines, worker_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 2 for what cannot be done as asked, 1 where there is nothing to show."""
    parser = argparse.ArgumentParser(prog="sklearn-wsl-gpu", description="scikit-learn, computed by a worker.")
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (add, words) in COMMANDS.items():
        add(commands.add_parser(name, help=words))
    return act(parser, arguments)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"sklearn-wsl-gpu {version('sklearn-wsl-gpu')}")
        parser.exit()


def act(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Do what the arguments say, those of the command line if they are None; return the exit code.

    It is 130 after Ctrl-C, as a shell says it.
    """
    try:
        try:
            return _act(parser, arguments)
        finally:
            with contextlib.suppress(ValueError):  # a program that was run may have closed it
                print(end="", flush=True)  # or Python does it at its end, and complains
    except OSError:
        code = _unheard()
        if code is None:
            raise
        return code


def _act(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = parser.parse_args(arguments)
    if options.act is not _run and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a path, or a message of Windows, may have what its encoding has not
    try:
        code: int = options.act(options)
    except OffloadError as error:
        _tell(str(error))
        return 2
    except KeyboardInterrupt:
        resumed = " What was begun goes on when this is run again." if options.act is _setup else ""
        _tell(f"Interrupted.{resumed}")
        return 130
    return code


def _tell(words: str) -> None:
    if sys.stderr is not None:  # as with pythonw
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{words}\n")


def _unheard() -> int | None:
    """Return the exit code where what is printed cannot be written, as behind ``| head -1``; the rest is forgotten."""
    try:
        print(flush=True)
    except OSError as error:
        # At its end Python would write what is left once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno in (errno.EPIPE, errno.EINVAL):  # the latter is what Windows says
            return _CUT_OFF
        sys.stderr.write(f"What there is to show cannot be written: {error.strerror}\n")
        return 2
    return None


#: As a shell says it of a program that was ended by SIGPIPE.
_CUT_OFF = 141

RUN_USAGE = "%(prog)s (script.py | -m MODULE | -c CODE) [ARGUMENT ...]"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``: as python's own."""
    parser.usage = RUN_USAGE
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module")
    parser.add_argument("-c", dest="code", nargs=argparse.REMAINDER, metavar="CODE", help="run a text of Python")
    parser.add_argument("script", nargs=argparse.REMAINDER, help="run a script, with its arguments")
    parser.set_defaults(act=_run, parser=parser)


def _run(options: argparse.Namespace) -> int:
    from sklearn_wsl_gpu import running

    for given, run in (
        (options.module, running.run_module),
        (options.code, running.run_code),
        (options.script, running.run_script),
    ):
        words = given[1:] if given and given[0] == "--" else given
        if words:
            return run(words[0], words[1:])
    options.parser.error("a script, -m MODULE or -c CODE is needed")
    return 2


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(act=_report)


def _report(options: argparse.Namespace) -> int:
    from sklearn_wsl_gpu.running import last_run

    run = last_run()
    if options.json:
        print(json.dumps(run))
    else:
        print(f"{' '.join(run['command'])}\n{run['began']}, {run['seconds']:.1f} s\n\n{as_text(run['report'])}")
    return 0


def _add_worker(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    start = actions.add_parser("start", help="start one in the background")
    start.add_argument("--detach", action="store_true", help="as it does anyway: this command ends, the worker stays")
    start.set_defaults(act=_start, listen="tcp://127.0.0.1:*")
    words = "port for the arrays of clients on other machines, through an ssh tunnel or a firewall; default: any"
    start.add_argument("--stream-port", type=int, default=0, help=words)
    automatic = actions.add_parser("autostart", help="on Windows, start one whenever you log on")
    automatic.add_argument("state", choices=["on", "off"])
    automatic.set_defaults(act=_autostart, listen="tcp://127.0.0.1:47474")
    for action in (start, automatic):
        _add_start(action)
    stop = actions.add_parser("stop", help="stop it, for all its clients")
    stop.set_defaults(act=_stop)
    show = actions.add_parser("status", help="its engine, its sessions, and what their slots are used for")
    show.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    show.set_defaults(act=_status)
    for action in (stop, show):
        _add_endpoint(action)
    for action in (start, automatic, stop, show):
        _add_keys(action)


def _add_start(parser: argparse.ArgumentParser) -> None:
    for name in ("engine", "device"):
        default = os.environ.get(f"SKLEARN_WSL_GPU_{name.upper()}", "auto")
        parser.add_argument(f"--{name}", default=default, help="default: auto")
    words = "where it listens: tcp://ADDRESS:PORT; default: %(default)s (* is any port; only this machine reaches it)"
    parser.add_argument("--listen", default=parser.get_default("listen"), help=words)
    _add_side(parser)
    parser.add_argument(
        "--interpreter", default=os.environ.get("SKLEARN_WSL_GPU_INTERPRETER") or None,
        help="path of the worker's Python, where it runs; default: in WSL the one that `setup` installs, else this one",
    )  # fmt: skip


def _add_side(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distribution", default=os.environ.get("SKLEARN_WSL_GPU_DISTRIBUTION") or None,
        help="on Windows, the distribution of WSL; default: WSL's default",
    )  # fmt: skip


def _add_setup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show what would be done; only look at what is there")
    parser.add_argument(
        "--from", dest="source", metavar="SOURCE",
        help="a wheel, a checkout, a URL or a requirement to install; default: this version, from pip's index",
    )  # fmt: skip
    _add_side(parser)
    parser.set_defaults(act=_setup)


def _setup(options: argparse.Namespace) -> int:
    from sklearn_wsl_gpu.launch import setup, wsl

    if options.source is not None and (not options.source.strip() or options.source.startswith("-")):
        raise OffloadError(f"--from must be a wheel, a checkout, a URL or a requirement; got {options.source!r}")
    python = setup.setup(options.distribution, options.source, options.dry_run, lambda line: print(line, flush=True))
    if options.dry_run:
        print("Nothing was changed.")
    elif wsl.is_between():
        print("Ready: offload() starts a worker there. If something is wrong: sklearn-wsl-gpu doctor")
    else:
        print(f"Ready: offload(interpreter={python!r}) starts a worker there. Without it, one of this Python's own.")
    return 0


def _setting(name: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        from sklearn_wsl_gpu import config

        try:
            return config.checked(name, text)
        except OffloadError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--endpoint", type=_setting("endpoint"), default=os.environ.get("SKLEARN_WSL_GPU_ENDPOINT") or None,
        help="tcp://HOST:PORT of another worker than the one that `worker start` started",
    )  # fmt: skip


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keys", type=_setting("keys"), default=os.environ.get("SKLEARN_WSL_GPU_KEYS") or None,
        help="directory of its keys; default: ~/.sklearn_wsl_gpu",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_pool(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    grow = actions.add_parser("grow", help="add a segment, with the next call of each client")
    grow.add_argument("size", type=_bytes, help="how much: bytes, or a number with KiB, MiB, GiB or TiB, such as 2GiB")
    shrink = actions.add_parser("shrink", help="give back what nothing lies in, with the next call of each client")
    shrink.set_defaults(size=-1)
    for action in (grow, shrink):
        action.add_argument("--session", type=int, default=0, help="its number by `worker status`; default: all")
        action.set_defaults(act=_resize)
        _add_endpoint(action)
        _add_keys(action)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The exit code is 1 if a check failed, and 0 if none did: warnings do not count."
    parser.add_argument("--mask", action="store_true", help="leave the names of users out of what is shown")
    _add_endpoint(parser)
    _add_keys(parser)
    # What is wrong in the environment is for the table.
    parser.set_defaults(act=_doctor, endpoint=None, keys=None)


def _doctor(options: argparse.Namespace) -> int:
    from sklearn_wsl_gpu.doctor import command

    arguments = {"endpoint": options.endpoint, "keys": options.keys}
    return command.show(arguments, as_json=options.json, mask=options.mask)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) *(K|M|G|T|)i?B?", text.strip(), re.IGNORECASE)
    size = 0 if found is None else int(float(found[1]) * 2 ** (10 * " KMGT".index(found[2].upper() or " ")))
    if not 1 <= size <= 2**60:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 1073741824, 512MiB or 1.5GiB")
    return size


def _resize(options: argparse.Namespace) -> int:
    from sklearn_wsl_gpu import standing

    count = standing.resize(options.keys, options.endpoint, options.session, options.size)
    if options.json:
        print(json.dumps({"sessions": count}))
    else:
        what, limits = "give back what is free", ""
        if options.size > 0:
            what = f"grow by {size(options.size)}"
            limits = ", if pool_limit and the memory allow it; worker status shows what slots there are then"
        print(f"Sessions that {what} with their next call: {count}{limits}." if count else "There is no such session.")
    return int(not count)


def _start(options: argparse.Namespace) -> int:
    from sklearn_wsl_gpu import standing

    found, is_new = standing.start(
        options.keys, options.engine, options.device, options.listen, options.distribution, options.interpreter,
        options.stream_port,
    )  # fmt: skip
    if options.json:
        print(json.dumps({"workers": [found]}))
        return 0
    print(worker_line(found) if is_new else f"It runs already. {worker_line(found)}")
    if is_new and not found["endpoint"].startswith(("tcp://127.", "tcp://[::1]")):
        print(standing.messages(options.keys), file=sys.stderr)  # what to know about a worker for other machines
    print(f"From now on {_user(options)} uses it.")
    return 0


def _user(options: argparse.Namespace) -> str:
    """Return the call that uses the worker that is kept with these options."""
    from sklearn_wsl_gpu import config

    usual = config.checked("keys", os.environ.get("SKLEARN_WSL_GPU_KEYS"))
    return "offload()" if options.keys in (None, usual) else f"offload(keys={options.keys!r})"


def _autostart(options: argparse.Namespace) -> int:
    from sklearn_wsl_gpu import config
    from sklearn_wsl_gpu.launch import autostart

    if options.state == "on":
        for name in ("engine", "device", "interpreter", "distribution"):  # nobody would see what is wrong at logon
            config.checked(name, getattr(options, name))
        if not re.fullmatch(r"tcp://([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", options.listen):
            raise OffloadError(f"--listen must be tcp://ADDRESS:PORT, with an IP address; got {options.listen!r}")
        names = ("engine", "device", "listen", "distribution", "interpreter", "keys")
        command = autostart.turn_on({name: getattr(options, name) for name in names})
        words = f"Whenever you log on, Windows runs: {command}\n({autostart.PLACE})\n"
        words += f"From then on {_user(options)} uses it. To undo this: sklearn-wsl-gpu worker autostart off"
    else:
        found = autostart.turn_off()
        words = f"Windows does not run this any more: {found}" if found else "Nothing was to be started at logon."
        command = found or ""
    print(json.dumps({"autostart": options.state, "command": command}) if options.json else words)
    return 0


def _stop(options: argparse.Namespace) -> int:
    from sklearn_wsl_gpu import standing

    found = standing.stop(options.keys, options.endpoint)
    if options.json:
        print(json.dumps({"stopped": [] if found is None else [found["endpoint"]]}))
    else:
        print(_NONE if found is None else f"Stopped: worker at {found['endpoint']}, process {found['pid']}.")
    return int(found is None)


def _status(options: argparse.Namespace) -> int:
    if not options.watch:
        text, found = _state(options)
        print(text)
        return int(not found)
    clear = _CLEAR if sys.stdout.isatty() else ""
    if clear and os.name == "nt":
        os.system("")  # after this a console of Windows obeys such sequences
    try:
        while True:
            try:
                text, _ = _state(options)
            except OffloadError as error:  # it may answer at the next look
                text = json.dumps({"workers": [], "error": str(error)}) if options.json else str(error)
            print(f"{clear}{text}", flush=True)
            time.sleep(_WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0


def _state(options: argparse.Namespace) -> tuple[str, bool]:
    """Return what is to be shown, and whether there is a worker."""
    from sklearn_wsl_gpu import standing

    found = standing.status(options.keys, options.endpoint)
    if options.json:
        return json.dumps({"workers": [] if found is None else [found]}), found is not None
    if found is None:
        return _NONE, False
    executors = found["executors"] if len(found["executors"]) > 1 else []
    return "\n".join([worker_line(found), *map(executor_line, executors), *map(session_lines, found["sessions"])]), True


#: Seconds between two looks.
_WATCH_SECONDS = 1.0
#: Has a terminal go to its first line, and empty all lines.
_CLEAR = "\x1b[H\x1b[2J"
_NONE = (
    "No worker runs that `sklearn-wsl-gpu worker start` has started. One that offload() starts by itself belongs to "
    "its process; OffloadSession.status() tells its state there."
)


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "run": (add_run, "run a Python program offloaded"),
    "report": (_add_report, "what the last run offloaded, and what not and why"),
    "worker": (_add_worker, "a worker that several programs use"),
    "pool": (_add_pool, "let the pools of a worker's clients grow or shrink"),
    "setup": (_add_setup, "install the worker: from Windows in WSL, on Linux here"),
    "doctor": (_add_doctor, "what works here, what does not, and what to do about it"),
}

if __name__ == "__main__":
    sys.exit(main())
