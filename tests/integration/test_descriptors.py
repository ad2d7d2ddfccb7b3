"""A process that may open no more files computes as before, here or there, and is not ended."""

from __future__ import annotations

import sys

import pytest

from tests.integration.tools import run_python

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit on Windows")

_BEGIN = """
import os, resource, threading, warnings
import numpy as np
import sklearn_wsl_gpu
from sklearn.svm import SVC

warnings.simplefilter("ignore", sklearn_wsl_gpu.FallbackWarning)
X = np.random.default_rng(0).normal(size=(2_000, 4))
y = (X[:, 0] > 0).astype(int)
expected = SVC().fit(X, y).dual_coef_
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))


def fill(left):
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        for _ in range(left):
            os.close(held.pop())
    return held


def fit():
    np.testing.assert_array_equal(SVC().fit(X, y).dual_coef_, expected)
"""


def test_without_descriptors_for_a_first_socket_calls_are_done_here_until_there_are_some() -> None:
    code = """
with sklearn_wsl_gpu.offload() as session:
    for left in (2, 9):
        held = fill(left)
        fit()
        for descriptor in held:
            os.close(descriptor)
        sklearn_wsl_gpu.shutdown()  # what was tried a moment ago is not tried again for seconds
    fit()
print([call.where for call in session.report().calls])
print({call.reason.words for call in session.report().calls if call.reason and call.reason.code == "no-socket"})
"""
    ran = run_python(_BEGIN + code)

    assert ran.returncode == 0, ran.stderr
    places, words = ran.stdout.splitlines()
    assert places == str(["local"] * 2 + ["worker"])
    assert words == (
        "{'This process cannot open a socket: Too many open files. Close files and end threads that are not needed, or "
        "let it have more (ulimit -n, ulimit -u).'}"
    )


def test_a_session_goes_on_without_descriptors_for_a_second_socket() -> None:
    code = """
sklearn_wsl_gpu.enable()
fit()
held = fill(0)
failed = []
together = threading.Barrier(3)


def work():
    try:
        together.wait()
        fit()
    except BaseException as error:
        failed.append(error)


threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
fit()
sklearn_wsl_gpu.shutdown()
for descriptor in held:
    os.close(descriptor)
reasons = {call.reason.code for call in sklearn_wsl_gpu.report().calls if call.reason}
print(failed, reasons <= {"no-socket"}, [call.where for call in sklearn_wsl_gpu.report().calls][::4])
"""
    ran = run_python(_BEGIN + code)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["[] True ['worker', 'worker']"]
