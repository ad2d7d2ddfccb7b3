"""The pytest plugin, as a project uses it: an unchanged suite offloaded, known failures as data, tests in two modes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.tools import standalone_worker

SUITE = """
import numpy as np
from sklearn.preprocessing import StandardScaler

AT_IMPORT = StandardScaler().fit(np.eye(3))

def test_scales():
    assert AT_IMPORT.transform(np.eye(3)).shape == (3, 3)

def test_keeps_the_array_of_a_callers():
    X = np.eye(3)
    assert StandardScaler(copy=False).fit_transform(X) is X

def test_finds_no_difference_between_numbers():
    assert 1 == 2

class TestMore:
    def test_does_nothing(self):
        pass
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start one for all runs; give the variables with which they use it."""
    keys = tmp_path_factory.mktemp("worker") / "keys"
    with standalone_worker(keys, "--engine", "cpu") as (endpoint, _):
        yield {"SKLEARN_WSL_GPU_ENDPOINT": endpoint, "SKLEARN_WSL_GPU_KEYS": str(keys)}


@pytest.fixture
def suite(pytester: pytest.Pytester, worker: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name, value in worker.items():
        monkeypatch.setenv(name, value)
    pytester.makepyfile(test_suite=SUITE)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


def _listed(suite: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    path = suite.path / "listed.toml"
    path.write_text(text)
    return suite.runpytest_subprocess("--sklearn-wsl-gpu=cpu", f"--sklearn-wsl-gpu-xfail={path}", *arguments)


def test_a_suite_runs_offloaded_from_the_import_of_its_modules_on(
    suite: pytest.Pytester, worker: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in worker:  # without them it starts its own
        monkeypatch.delenv(name)
    result = suite.runpytest_subprocess("--sklearn-wsl-gpu=cpu", "-k", "not numbers")

    result.assert_outcomes(passed=3, deselected=1)
    # Of the import, and the transform; what overwrites the caller's array stays here, without a warning.
    result.stdout.re_match_lines(
        [r" +2 calls offloaded, +1 local  .*test_suite\.py", r" +2 calls offloaded, +1 local  in all", r" +1 in-place"]
    )


def test_without_the_option_nothing_is_imported_or_patched(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        def test_nothing_is_there():
            assert [name for name in sys.modules if name.startswith("sklearn_wsl_gpu.")] == [
                "sklearn_wsl_gpu.pytest_plugin"
            ]
            assert "sklearn" not in sys.modules and "numpy" not in sys.modules
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest")

    result.assert_outcomes(passed=1)
    assert "offloaded" not in result.stdout.str()


def test_a_run_in_which_nothing_is_offloaded_fails(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_suite="def test_nothing():\n    pass\n")
    result = suite.runpytest_subprocess("--sklearn-wsl-gpu=cpu")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["No call was offloaded*"])


def test_the_numbers_of_each_test_are_in_the_xml(suite: pytest.Pytester) -> None:
    suite.runpytest_subprocess("--sklearn-wsl-gpu=cpu", "--junitxml=out.xml", "-k", "scales or overwrites")
    [case] = ET.parse(suite.path / "out.xml").iter("testcase")
    [value] = [item.get("value", "") for item in case.iter("property") if item.get("name") == "sklearn_wsl_gpu"]

    assert value.endswith("test_suite.py', {'offloaded': 2}]")


def test_processes_of_xdist_are_counted_together(suite: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    result = suite.runpytest_subprocess("--sklearn-wsl-gpu=cpu", "-n2", "-k", "not numbers")

    result.assert_outcomes(passed=3)
    # Each process imports the module.
    result.stdout.re_match_lines([r" +[23] calls offloaded, +1 local  in all"])


ENTRY = """
[[xfail]]
id = "test_suite.py::test_finds_no_difference_between_numbers"
reason = "numbers differ"
"""


def test_a_listed_test_may_fail_and_its_reason_is_shown(suite: pytest.Pytester) -> None:
    result = _listed(suite, ENTRY, "-rx")

    result.assert_outcomes(passed=3, xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL *test_finds_no_difference_between_numbers - numbers differ*"])


@pytest.mark.parametrize(("strict", "outcome"), [("", {"failed": 1}), ("strict = false", {"xpassed": 1})])
def test_a_listed_test_that_passes_fails_the_run_unless_it_is_not_strict(
    suite: pytest.Pytester, strict: str, outcome: dict[str, int]
) -> None:
    entry = f"[[xfail]]\nid = 'test_suite.py::test_scales'\nreason = 'x'\n{strict}\n"
    result = _listed(suite, entry, "-k", "scales")

    result.assert_outcomes(**outcome, deselected=3)


def test_an_entry_for_another_scikit_learn_does_not_count(suite: pytest.Pytester) -> None:
    _listed(suite, ENTRY + 'scikit-learn = "<1.0"\n').assert_outcomes(passed=3, failed=1)


def test_an_entry_says_where_from_any_directory_above(suite: pytest.Pytester) -> None:
    entry = ENTRY.replace("test_suite.py::", f"{suite.path.name}/test_suite.py::")

    _listed(suite, entry).assert_outcomes(passed=3, xfailed=1)


def test_an_id_that_names_no_test_is_an_error_unless_tests_were_chosen_by_hand(suite: pytest.Pytester) -> None:
    entry = ENTRY.replace("numbers", "letters")
    whole = _listed(suite, entry)
    by_hand = _listed(suite, entry, "test_suite.py::test_scales")
    other_file = _listed(suite, entry.replace("test_suite", "test_other"), "-k", "scales")

    assert whole.ret == pytest.ExitCode.USAGE_ERROR
    whole.stderr.fnmatch_lines(["*name no test: test_suite.py::test_finds_no_difference_between_letters"])
    by_hand.assert_outcomes(passed=1)
    other_file.assert_outcomes(passed=1, deselected=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[xfail]]\nid = 'test_suite.py::test_scales'", "must have id and reason"),
        ("[[xfail]]\nid = 'test_suite.py'\nreason = 'x'", "names no single test"),
        ("[[xfail]]\nid = 'a::b'\nreason = ''", "reason of an * must be a text that is not empty; got ''"),
        ("[[xfail]]\nid = 'a::b'\nreason = 'x'\nstrict = 'no'", "strict of an * must be true or false; got 'no'"),
        ("[[xfail]]\nid = 'a::b'\nreason = 'x'\nscikit-learn = 'old'", "'old' is no version specifier"),
        ("[[xfail]]\nid = 'a::b'\nreason = 'x'\n" * 2, "has the test a::b twice"),
        ("[other]\nid = 3", "must hold [[][[]xfail[]][]] tables and nothing else"),
        ("[[xfail", "cannot be read"),
    ],
)
def test_a_list_that_says_something_else_is_refused_with_what_is_wrong(
    pytester: pytest.Pytester, text: str, words: str
) -> None:
    path = pytester.path / "listed.toml"
    path.write_text(text)
    result = pytester.runpytest_inprocess("--sklearn-wsl-gpu=cpu", f"--sklearn-wsl-gpu-xfail={path}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words}*"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sklearn-wsl-gpu=cuda"], "engine must be one of *got 'cuda'*"),
        (["--sklearn-wsl-gpu-xfail=x.toml"], "is of use only with --sklearn-wsl-gpu=ENGINE*"),
        (["--sklearn-wsl-gpu=cpu", "--sklearn-wsl-gpu-xfail=missing.toml"], "missing.toml cannot be read*"),
    ],
)
def test_wrong_options_are_told_and_nothing_runs(pytester: pytest.Pytester, arguments: list[str], words: str) -> None:
    result = pytester.runpytest_inprocess(*arguments)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words}"])


def test_the_fixture_runs_a_test_here_and_offloaded(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import numpy as np
        from sklearn.preprocessing import StandardScaler
        from sklearn_wsl_gpu.testing import assert_same

        def test_scales(local_and_offloaded):
            model = StandardScaler().fit(np.eye(3))
            assert_same(model.mean_, np.full(3, 1 / 3), rtol=1e-12)
            assert (local_and_offloaded is None) or local_and_offloaded.report().offloaded == 1

        def test_overwrites(local_and_offloaded):
            StandardScaler(copy=False).fit_transform(np.eye(3))
        """
    )
    result = pytester.runpytest_subprocess("-v")

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["*test_scales[[]local[]] PASSED*", "*test_scales[[]offloaded[]] PASSED*", "*overwrites[[]offloaded[]] FAILED*"]
    )
    result.stdout.fnmatch_lines(["*Unsupported*may overwrite the caller's own array*"])


def test_the_fixture_is_local_also_where_all_is_offloaded(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(
        """
        from sklearn.preprocessing import StandardScaler
        import sklearn_wsl_gpu

        def test_scales(local_and_offloaded):
            before = sklearn_wsl_gpu.report().offloaded
            StandardScaler().fit([[1.0], [2.0]])
            assert sklearn_wsl_gpu.report().offloaded - before == (local_and_offloaded is not None)
        """
    )
    assert Path(path).is_file()

    pytester.runpytest_subprocess("--sklearn-wsl-gpu=cpu").assert_outcomes(passed=2)
