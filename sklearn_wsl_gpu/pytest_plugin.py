"""The pytest plugin: run a test suite offloaded, and write tests that hold both here and offloaded.

``pytest --sklearn-wsl-gpu=ENGINE`` runs everything under `sklearn_wsl_gpu.enable`, from before the first test
module is imported, and says at the end what was offloaded, module by module. Nothing of the package is imported
without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from sklearn_wsl_gpu.context import OffloadSession

_COUNTS = "sklearn_wsl_gpu"
_SESSION = pytest.StashKey["OffloadSession"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sklearn_wsl_gpu", "scikit-learn offloaded to a worker")
    group.addoption(
        "--sklearn-wsl-gpu",
        metavar="ENGINE",
        help="run all tests offloaded, on a worker with this engine (auto, or the name of an installed one); other "
        "settings are taken from the environment, SKLEARN_WSL_GPU_<NAME>",
    )
    group.addoption(
        "--sklearn-wsl-gpu-xfail",
        metavar="FILE",
        help="a TOML file of tests that are expected to fail when offloaded: [[xfail]] with id, reason, and optionally "
        "strict (default true) and scikit-learn (a version specifier)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    engine = config.getoption("--sklearn-wsl-gpu")
    listed = config.getoption("--sklearn-wsl-gpu-xfail")
    if engine is None:
        if listed is not None:
            raise pytest.UsageError("--sklearn-wsl-gpu-xfail is of use only with --sklearn-wsl-gpu=ENGINE.")
        return
    from sklearn_wsl_gpu.errors import OffloadError
    from sklearn_wsl_gpu.expected_failures import read

    try:
        # First: to import what can be offloaded takes seconds.
        expected = [] if listed is None else read(listed)
        from sklearn_wsl_gpu.enabling import enable

        # A suite may turn warnings into errors; the summary tells what the warnings would.
        config.stash[_SESSION] = enable(engine=engine, fallback="quiet")
    except OffloadError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(_Run(config.stash[_SESSION], expected), "sklearn_wsl_gpu_run")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SESSION in config.stash:
        from sklearn_wsl_gpu.enabling import disable

        disable()


class _Run:
    """What happens only in a run with ``--sklearn-wsl-gpu``."""

    def __init__(self, session: OffloadSession, expected: list[Any]) -> None:
        self._session = session
        self._expected = expected
        self._seen: Counter[str] = Counter()
        self._modules: dict[str, Counter[str]] = {}
        self._reasons: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)  # before -k and the like take tests away
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        from sklearn_wsl_gpu.expected_failures import find_unknown

        for entry in self._expected:
            for item in items:
                if entry.is_about(_place(item)):
                    item.add_marker(pytest.mark.xfail(reason=entry.reason, strict=entry.strict))
        chosen_by_hand = any("::" in argument for argument in config.args)
        unknown = find_unknown(self._expected, [_place(item) for item in items])
        if unknown and not chosen_by_hand:
            raise pytest.UsageError("These ids of the list of expected failures name no test: " + ", ".join(unknown))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "teardown":
            # Properties reach the main process of pytest-xdist too, and the XML.
            report.user_properties.append((_COUNTS, [_place(item).partition("::")[0], self._new_counts()]))
        return report

    def _new_counts(self) -> dict[str, int]:
        now = Counter({"offloaded": 0, "local": 0})
        for kind, count in self._session.report().counts().items():
            now["offloaded" if kind.where == "worker" else kind.where] += count
            if kind.reason is not None:
                now[f"{kind.where}: {kind.reason.code}"] += count
        new = {name: count - self._seen[name] for name, count in now.items()}
        self._seen = now
        return {name: count for name, count in new.items() if count}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == _COUNTS and report.when == "teardown":
                path, counts = cast(tuple[str, dict[str, int]], value)
                self._modules.setdefault(path, Counter()).update(counts)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter
        total: Counter[str] = sum(self._modules.values(), Counter())
        write.section("scikit-learn offloaded")
        for module, counts in self._modules.items():
            write.line(f"{counts['offloaded']:>8} calls offloaded, {counts['local']:>6} local  {module}")
        write.line(f"{total['offloaded']:>8} calls offloaded, {total['local']:>6} local  in all")
        if not self._offloaded_any():
            write.line("No call was offloaded: this run shows nothing, and counts as failed.", red=True)
        for name, count in total.most_common():
            if ": " in name:
                write.line(f"{'':>24}{count:>6} {name.removeprefix('local: ')}")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and not self._offloaded_any():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _offloaded_any(self) -> bool:
        return any(counts["offloaded"] for counts in self._modules.values())


def _place(item: pytest.Item) -> str:
    # Node ids begin wherever pytest was started, and for tests of an installed package nowhere in particular.
    return f"{item.path.as_posix()}::{item.nodeid.partition('::')[2]}"


@pytest.fixture(params=["local", "offloaded"])
def local_and_offloaded(request: pytest.FixtureRequest) -> Iterator[OffloadSession | None]:
    """Run a test twice: with scikit-learn as it is, and offloaded; a call that falls back is an error there.

    The value is None, or the `OffloadSession`, whose ``report()`` tells what the test has offloaded.
    """
    from sklearn_wsl_gpu.config import suspended
    from sklearn_wsl_gpu.context import offload

    if request.param == "local":
        with suspended():
            yield None
    else:
        with offload(fallback="raise") as session:
            yield session
