"""A kept model holds no memory of the span that its data came in: the span is reused, the model goes on.

The executor copies the data first where a row says `keeps_input`; these tests hold every row to its word.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.estimators import METHODS, ROWS
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CLASSES, INPUTS, WEIGHTS, arguments, data_for, demanded, kinds_for, make, takes_labels
from wsl_worker.engines.cpu import CpuEngine

pytestmark = pytest.mark.filterwarnings("ignore")

FITS = [(name, method) for name, row in ROWS.items() for method in row.method_names if METHODS[method].fits]
#: Parameters under which an estimator might keep more of its input than it does by default.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("DBSCAN", {"metric": "precomputed"}),
    ("DBSCAN", {"algorithm": "ball_tree"}),
    ("HDBSCAN", {"metric": "precomputed", "copy": True}),
    ("SVC", {"kernel": "linear"}),
    ("SVC", {"kernel": "precomputed"}),
    ("KMeans", {"init": "random"}),
    ("KNeighborsClassifier", {"algorithm": "brute"}),
    ("NearestNeighbors", {"metric": "precomputed"}),
    ("KernelRidge", {"kernel": "precomputed"}),
    ("SpectralClustering", {"affinity": "precomputed"}),
    ("SpectralEmbedding", {"affinity": "precomputed"}),
    ("TSNE", {"metric": "precomputed", "init": "random"}),
    ("Lasso", {"fit_intercept": False, "precompute": False}),
    ("Ridge", {"fit_intercept": False}),
    ("LinearRegression", {"fit_intercept": False}),
    ("PCA", {"n_components": None}),
    ("StandardScaler", {"with_mean": False, "with_std": False}),
]


def _arrays(value: Any, seen: set[int]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield every array that an object holds, however deep, with those it is a view on."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        yield value
        inner: Any = value.ravel().tolist() if value.dtype == object else [value.base]
    elif isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    elif objects.is_helper(type(value)):
        inner = objects.take_apart(value)[1]
    else:
        inner = vars(value).values() if hasattr(value, "__dict__") and not isinstance(value, type) else ()
    for item in inner:
        yield from _arrays(item, seen)


def _kept(model: Any, given: list[Any]) -> set[str]:
    """Return the attributes that hold memory of the arguments."""
    memory = [array for value in given for array in _arrays(value, set())]
    return {
        name
        for name, value in vars(model).items()
        for array in _arrays(value, set())
        if any(np.may_share_memory(array, part) for part in memory)
    }


def _fit_by_the_engine(name: str, method: str, given: list[Any], parameters: dict[str, Any] | None = None) -> Any:
    engine = CpuEngine()
    model = engine.load(ROWS[name], objects.carried_attributes(make(name, **(parameters or {}))))
    engine.call(model, method, given, demanded(name, method))
    return model


def _given(name: str, kind: str) -> list[Any]:
    data, target = data_for(name)
    if takes_labels(name):
        return [CLASSES.copy()]
    return [copy.copy(INPUTS[kind](data)), target.copy()]


@pytest.mark.parametrize(("name", "method"), FITS)
def test_a_row_that_does_not_say_so_keeps_nothing_of_its_input(name: str, method: str) -> None:
    kinds = [kind for kind in kinds_for(name, method) if kind in ("float64", "float32", "int64", "fortran", "sparse")]
    kept = {
        kind: _kept(_fit_by_the_engine(name, method, given), given) for kind in kinds for given in [_given(name, kind)]
    }

    if not ROWS[name].keeps_input:
        assert {kind: names for kind, names in kept.items() if names} == {}


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_nor_does_it_with_other_parameters(name: str, parameters: dict[str, Any]) -> None:
    given = _given(name, "float64")
    if "precomputed" in parameters.values():
        given[0] = np.abs(given[0][:, None] - given[0][None]).sum(axis=2)
    kept = _kept(_fit_by_the_engine(name, "fit", given, parameters), given)

    assert not kept or ROWS[name].keeps_input, kept


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.keeps_input])
def test_a_row_that_says_so_has_a_reason_to(name: str) -> None:
    variants: list[dict[str, Any]] = [{}, *[parameters for other, parameters in VARIANTS if other == name]]
    kept = set()
    for parameters in variants:
        for kind in ("float64", "sparse"):
            if kind in kinds_for(name, "fit") and (kind == "float64" or "precomputed" not in parameters.values()):
                given = _given(name, kind)
                if "precomputed" in parameters.values():
                    given[0] = np.abs(given[0][:, None] - given[0][None]).sum(axis=2)
                kept |= _kept(_fit_by_the_engine(name, "fit", given, parameters), given)

    assert kept


_USES = {"predict", "transform", "kneighbors"}


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize(
    "name", [name for name, row in ROWS.items() if {"predict", "transform", "kneighbors"} & set(row.method_names)]
)
def test_a_kept_model_is_not_hurt_when_its_span_is_used_again(name: str) -> None:
    given = arguments(name, "fit", CLASSES if takes_labels(name) else data_for(name)[0], data_for(name)[1], None)
    method = sorted(_USES & set(ROWS[name].method_names))[0]
    local = getattr(make(name).fit(*given), method)(given[0])

    with offload(fallback="raise") as session:
        model = make(name).fit(*given)
        for seed in range(4):  # spans that were released last are taken first
            noise = np.random.default_rng(seed).normal(size=(60, 6 + seed)) * 1e6
            make("StandardScaler").fit(noise, sample_weight=WEIGHTS)
        remote = getattr(model, method)(given[0])

    assert session.report().local == 0
    assert first_difference(local, remote) is None
