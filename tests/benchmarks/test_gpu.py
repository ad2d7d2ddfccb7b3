"""How the benchmark of the GPU engines judges, and that what it asks for can be computed. No test needs a GPU."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import pairwise_kernels

from sklearn_wsl_gpu.estimators import third_party
from sklearn_wsl_gpu.support import TABLES, facts_of, request_of
from tests.benchmarks.programs import load

gpu, parity = load("gpu"), load("parity")

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = {
    engine: [name for name in table if "." not in name or name in third_party.installed()]
    for engine, table in TABLES.items()
}


def _fitted(name: str, X: Any, y: Any) -> Any:
    return gpu.make(name).fit(*([X] if y is None else [X, y]))


@pytest.mark.parametrize("name", dict.fromkeys(NAMES["cuml"] + NAMES["array_api"]))
def test_a_result_is_worth_itself_and_not_that_of_other_rows(name: str) -> None:
    X, y = gpu.data_of(name, 300, 10)
    of = parity.parity_of(name).of
    if of == "embedding_":
        right = X[:, :2]
    else:
        right = getattr(_fitted(name, X, y), of)
        right = right(X) if callable(right) else right
    right = right[0] if isinstance(right, tuple) else right
    wrong = right[[-1, *range(right.shape[0] - 1)]]

    same, other = (parity.judge(name, found, right, X, y) for found in (right, wrong))
    assert same["parity"] == pytest.approx(0.0, abs=1e-9)
    assert same["within"] is True
    assert other["parity"] > other["tolerance"] == same["tolerance"]
    assert other["within"] is False


def test_every_estimator_of_cuml_has_a_tolerance_of_its_own() -> None:
    assert TABLES["cuml"].keys() <= parity.PARITY.keys()


def test_a_fit_is_judged_by_what_it_says_of_the_data() -> None:
    X, y = gpu.data_of("LinearRegression", 300, 10)
    right, wrong = _fitted("LinearRegression", X, y), _fitted("LinearRegression", X, y)
    wrong.coef_ = wrong.coef_ * 1.1

    assert parity.judge("LinearRegression", right, right, X, y)["within"] is True
    assert parity.judge("LinearRegression", wrong, right, X, y)["within"] is False


@pytest.mark.parametrize("name", ["LinearRegression", "Ridge", "PCA"])
def test_no_number_and_another_shape_are_within_no_tolerance(name: str) -> None:
    X, _ = gpu.data_of(name, 300, 10)
    right = X.copy()
    right[5] = np.nan

    assert parity.judge(name, right, X, X, None)["within"] is False
    ones = np.ones_like(X)
    assert parity.judge(name, ones, ones, X, None)["within"] is True
    assert parity.judge(name, ones[:, :1], ones, X, None)["within"] is False


@pytest.mark.parametrize("engine", NAMES)
def test_every_estimator_is_measured_at_three_sizes_that_are_taken(engine: str) -> None:
    for name in NAMES[engine]:
        row = gpu.row_of(name)
        sizes = gpu.sizes_of(name)
        assert len(set(sizes)) == 3
        for rows, columns in sizes:
            X, y = gpu.data_of(name, 200, columns)
            for method in gpu.methods_of(name, engine):
                data = [X] if y is None or method != "fit" else [X, y]
                facts = facts_of(row, method, data, {})
                if name != "KernelCenterer":
                    facts = {key: fact._replace(shape=(rows, *fact.shape[1:])) for key, fact in facts.items()}
                parameters = vars(gpu.make(name))

                assert TABLES[engine][name].objection(request_of(row, method, parameters, facts)) is None, name
                shapes = [fact.shape for fact in facts.values()]
                assert row.declined is None or row.declined(method, parameters, shapes) is None, name


def _in_place_of(
    monkeypatch: pytest.MonkeyPatch, name: str, method: str, worker: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what is written down where a worker gives this, and the verdict."""

    def contestants(name: str, method: str, engine: str, device: str, X: Any, y: Any) -> Any:
        def plain() -> Any:
            fitted = _fitted(name, X, y)
            return fitted if method == "fit" else getattr(fitted, method)(X)

        return gpu.Contestants(plain, plain, lambda: worker(plain()))

    monkeypatch.setattr(gpu, "contestants", contestants)
    monkeypatch.setattr(gpu, "methods_of", lambda name, engine: [method])
    found = list(gpu.measure([name], "cuml", "auto", 0.01))
    return found, gpu.verdict(found)


def test_each_row_says_how_far_its_result_is_apart_and_whether_that_is_within(monkeypatch: pytest.MonkeyPatch) -> None:
    found, verdict = _in_place_of(monkeypatch, "LinearRegression", "predict", lambda right: right + 0.01)

    assert [(line["rows"], line["columns"]) for line in found] == [(200, 20), (1000, 50), (10000, 50)]
    for line in found:
        assert (line["parity"], line["tolerance"], line["within"]) == (0.0, 1e-4, True)
        assert line["seconds"].keys() == {"plain", "direct", "worker"}
    assert verdict == {"within": 3, "outside": [], "errors": []}


def test_a_wrong_result_is_outside_in_its_row_and_in_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    found, verdict = _in_place_of(monkeypatch, "LinearRegression", "predict", lambda right: right + 0.2)

    assert [(line["parity"], line["within"]) for line in found] == [(1.0, False)] * 3
    assert verdict["within"] == 0
    assert verdict["outside"] == [
        f"LinearRegression.predict {size}" for size in ("200 x 20", "1000 x 50", "10000 x 50")
    ]


def test_a_fit_that_is_wrong_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(right: LinearRegression) -> LinearRegression:
        right.intercept_ += 1.0
        return right

    _, verdict = _in_place_of(monkeypatch, "LinearRegression", "fit", spoil)

    assert (verdict["within"], len(verdict["outside"])) == (0, 3)


def test_an_error_is_neither_within_nor_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(right: Any) -> Any:
        raise MemoryError("it is full")

    found, verdict = _in_place_of(monkeypatch, "LinearRegression", "predict", fail)

    assert [line["error"] for line in found] == ["MemoryError: it is full"] * 3
    assert (verdict["within"], verdict["outside"], len(verdict["errors"])) == (0, [], 3)


def test_cuml_is_given_the_kernel_that_it_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = types.ModuleType("cuml.metrics")
    vars(metrics).update(pairwise_kernels=pairwise_kernels)
    for name, module in {"cupy": np, "cuml": types.ModuleType("cuml"), "cuml.metrics": metrics}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(gpu.kinds, "make", lambda row, parameters, **changes: row.cls(**{**parameters, **changes}))
    X, _ = gpu.data_of("SpectralClustering", 300, 10)
    found, local = gpu.direct_call("SpectralClustering", "fit", [X])(), _fitted("SpectralClustering", X, None)

    np.testing.assert_allclose(found.affinity_matrix_, local.affinity_matrix_, rtol=1e-5, atol=1e-7)
    assert parity.judge("SpectralClustering", found, local, X, None)["within"] is True
