"""What an engine takes is known from tables, before anything is sent."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import LabelEncoder

from sklearn_wsl_gpu import Unsupported, support
from sklearn_wsl_gpu.estimators import ROWS, find
from sklearn_wsl_gpu.support import TABLES, Fact, Limit, Request, facts_of, outdated
from sklearn_wsl_gpu.support.entry import Entry, only

# UMAP says when it is imported that TensorFlow is not there.
pytestmark = pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")

X = np.eye(4, 3)


def _request(estimator: Any, method: str = "fit", *args: Any, **kwargs: Any) -> Request:
    row = ROWS[type(estimator).__name__]
    return Request(row, method, estimator.get_params(), facts_of(row, method, args, kwargs))


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (X.astype("f4"), Fact("dense", (4, 3), "<f4")),
        (X.tolist(), Fact("dense", (4, 3), "<f8")),
        (scipy.sparse.csr_array(X), Fact("sparse", (4, 3), "<f8")),
        (pd.DataFrame(X), Fact("dense", (4, 3), "<f8")),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), Fact("dense", (2, 2), "|O")),
        (pd.Series([1, 2, 3]), Fact("dense", (3,), "<i8")),
        (pl.DataFrame({"a": [1.0, 2.0]}), Fact("dense", (2, 1), "<f8")),
        (pa.table({"a": [1.0, 2.0]}), Fact("dense", (2, 1), "<f8")),
        (["x", "yy"], Fact("dense", (2,), "<U2")),
    ],
    ids=lambda value: type(value).__module__ + "." + type(value).__name__,
)
def test_facts_of_an_argument_are_those_of_the_array_that_it_becomes(value: Any, fact: Fact) -> None:
    assert facts_of(ROWS["Ridge"], "fit", (value,), {}) == {"X": fact}


def test_facts_have_the_names_of_the_parameters_and_leave_out_what_is_no_array() -> None:
    found = facts_of(ROWS["Ridge"], "fit", (X, [1, 2]), {"sample_weight": None, "other": "text", "flag": 3})

    assert list(found) == ["X", "y"]
    assert facts_of(ROWS["Ridge"], "fit", ([[1], [2, 3]],), {}) == {}


def test_no_row_of_a_table_is_copied_to_learn_its_dtype() -> None:
    class Watched(pd.DataFrame):
        def __array__(self, *args: Any, **kwargs: Any) -> Any:
            assert len(self) == 0
            return super().__array__(*args, **kwargs)

    assert facts_of(ROWS["Ridge"], "fit", (Watched(X),), {})["X"].shape == (4, 3)


_ENTRY = Entry((only(solver=("svd", "auto")), Limit("few", lambda request: None)), "score", text="y")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (_request(Ridge(), "fit", X), None),
        (_request(Ridge(), "fit", X, np.array(["a"])), None),
        (_request(Ridge(), "score", X), "score is not computed there"),
        (_request(Ridge(), "fit", scipy.sparse.csr_array(X)), "sparse X is not taken"),
        (_request(Ridge(), "fit", np.array([["a"]])), "X that is text or objects is not taken"),
        (_request(Ridge(solver="lsqr"), "fit", X), "solver='lsqr' is not supported"),
    ],
)
def test_an_entry_says_in_words_what_it_does_not_take(request_: Request, words: str | None) -> None:
    assert _ENTRY.objection(request_) == words


def test_a_value_is_allowed_by_its_type_too() -> None:
    limit = only(flag=(False, None))

    assert limit.words == "flag in False, None"
    for value, words in ((0, "flag=0 is not supported"), (None, None), (False, None)):
        assert limit.objection(Request(ROWS["Ridge"], "fit", {"flag": value}, {})) == words


@pytest.mark.parametrize(
    ("engine", "versions", "words"),
    [
        ("array_api", {"scikit-learn": "1.9.0"}, None),
        ("array_api", {"scikit-learn": "1.10rc1"}, None),
        ("array_api", {"scikit-learn": "1.8.2"}, "it needs scikit-learn 1.9 or later, and this is 1.8.2."),
        ("cuml", {"cuML": "26.10.03"}, None),
        ("cuml", {"cuML": "26.08.00"}, "it needs cuML 26.10, and this is 26.08.00."),
        ("cuml", {"cuML": "26.12.00"}, "it needs cuML 26.10, and this is 26.12.00."),
    ],
)
def test_each_row_says_which_releases_it_holds_for(engine: str, versions: dict[str, str], words: str | None) -> None:
    assert outdated(engine, versions) == ({} if words is None else dict.fromkeys(TABLES[engine], words))


def test_engines_are_asked_in_their_order_and_those_that_can_are_named() -> None:
    def able(engines: dict[str, set[str]], estimator: Any) -> list[str]:
        row = ROWS[type(estimator).__name__]
        return support.able(engines, row, lambda: _request(estimator, "fit", X))

    both = {"array_api": {"LogisticRegression"}, "cpu": {"LogisticRegression", "Ridge"}}
    assert able(both, LogisticRegression()) == ["array_api", "cpu"]
    assert able(both, LogisticRegression(solver="saga")) == ["cpu"]
    assert able(both, Ridge()) == ["cpu"]
    assert able({"elsewhere": {"Ridge"}}, Ridge(solver="saga")) == ["elsewhere"]  # it is asked on the worker
    with pytest.raises(Unsupported, match=r"LogisticRegression by array_api: solver='saga'.* b does not compute"):
        able({"array_api": {"LogisticRegression"}, "b": set()}, LogisticRegression(solver="saga"))


def test_text_for_an_estimator_that_takes_none_is_refused_whatever_its_name() -> None:
    reason = support.reason("array_api", _request(LabelEncoder(), "fit", ["a", "b"]))

    assert reason is not None
    assert (reason.code, "y that is text" in reason.words) == ("unsupported-by-engine", True)


@pytest.mark.parametrize("engine", TABLES)
def test_a_table_names_rows_and_their_methods_only(engine: str) -> None:
    for name, entry in TABLES[engine].items():
        row = find(name)
        assert row is not None, name
        assert set(entry.without.split()) <= set(row.method_names), name
        assert all(limit.words and limit.words[-1] != "." for limit in entry.limits), name


def test_the_documentation_page_is_what_the_tables_say() -> None:
    script = Path(__file__).parents[2] / "docs" / "write_support.py"
    written = runpy.run_path(str(script))

    assert written["PAGE"].read_text("utf-8") == written["page"](), "run python docs/write_support.py"
