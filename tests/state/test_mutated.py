"""Malformed and mutated nodes are refused with one kind of error, whatever they are made of."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.metrics._scorer import _MultimetricScorer, _PassthroughScorer
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from sklearn_wsl_gpu.arrays import check_inline
from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol import codec
from sklearn_wsl_gpu.state import Decoder, Encoder, objects, tables
from sklearn_wsl_gpu.state.splits import Rows

ARRAYS = [np.zeros(3), np.zeros(5, bool), np.zeros((2, 2)), np.array([3], np.int64), np.zeros(6, np.uint8)]
KEY = bytes(4 * 624)

MALFORMED: list[Any] = [
    [], [None], ["?"], [[]], [["l"]], [1], ["a"], ["a", None], ["a", True], ["a", 0.0], ["a", -1], ["a", len(ARRAYS)],
    ["a", 0, 0], ["x", 0], ["w", "coef_"], ["w", []], ["G", 0], ["i"], ["i", 5], ["i", "zz"], ["i", None], ["c", 1],
    ["c", "x", 0], ["c", [], 0], ["d", 1], ["d", ["l"], 1], ["s", ["l"]], ["n"], ["n", "<f8", b"1"], ["n", "O", b""],
    ["n", "<f8", "text"], ["n", None, b""], ["n", "<U1", b"\xff\xff\xff\xff"], ["n", "<M8[0s]", bytes(8)], ["o"],
    ["o", [2], 1], ["o", ["x"], 1], ["o", None], ["r", [1], ["a", 0], ["a", 0]],
    ["r", [2], ["a", 0], ["a", 3]], ["r", [1], ["a", 2], ["a", 3]], ["r", [1], 1, 1], ["r", [1], ["a", 0], ["a", 9]],
    ["k", ["a", 0]], ["k", ["a", 0], ["a", 1], None], ["k", ["a", 0], 1, None], ["k", ["l"], ["l"], None],
    ["k", ["a", 3], ["a", 3], "text"], ["p"], ["p", "csr_matrix"], ["p", "lil_matrix", [1, 1]], ["p", [], [1, 1]],
    ["p", "csr_matrix", 3, ["a", 0], ["a", 3], ["a", 3]], ["p", "coo_array", [2, 2, 2], ["a", 0], ["a", 3], ["a", 3]],
    ["D", "O"], ["D", "<U999999999"], ["D", None], ["T", "os.system"], ["T", []], ["S"], ["S", 1, 2, 3, 4], ["g", 0],
    ["g", 1, KEY, 0, 0, 0.0], ["g", 0, KEY[4:], 0, 0, 0.0], ["g", 0, KEY, 625, 0, 0.0], ["g", 0, KEY, -1, 0, 0.0],
    ["g", 0, KEY, 0, 2, 0.0], ["g", 0, KEY, 0, 0, "x"], ["g", 0, "text", 0, 0, 0.0], ["e"], ["e", "GridSearchCV"],
    ["e", []],
    ["e", "KMeans", "n_clusters"], ["e", "KMeans", 1, 1], ["e", "KMeans", "a", 1, "a", 1], ["h"], ["h", "module", 1],
    ["h", "tree"], ["h", "tree", 1, 2, 3, 4, 5, 6, 7], ["h", "kd_tree", 1], ["h", "layout", "tree", ["a", 4]],
    ["h", "layout", "object", ["a", 4]], ["h", "layout", "tree", 1], ["h", "metric", "os", 2.0, ["a", 0], ["a", 2]],
    ["h", "metric", "EuclideanDistance64", 2, ["a", 0], ["a", 2]],
    ["h", "metric", "EuclideanDistance64", 2.0, ["a", 2], ["a", 0]],
]  # fmt: skip


def _outcome(node: Any) -> str:
    """Return an empty text for a node that is refused as it should be."""
    try:
        value = Decoder(ARRAYS).decode(node)
    except RemoteProtocolError:
        return ""
    except Exception as error:
        return f"{str(node)[:60]} raised {type(error).__name__}"
    return f"{str(node)[:60]} became {value!r}"


def test_malformed_nodes_are_refused() -> None:
    nested = [["l", ["d", "key", node]] for node in MALFORMED]

    assert [found for found in map(_outcome, MALFORMED + nested) if found] == []


def test_nodes_nested_too_deeply_are_refused() -> None:
    for wrap in (lambda node: ["l", node], lambda node: ["d", 1, node], lambda node: ["o", [1], node]):
        node: Any = 1
        for _ in range(500):
            node = wrap(node)
        assert _outcome(node) == ""


def _encoded(value: Any) -> tuple[Any, list[Array]]:
    encoder = Encoder()
    node = codec.unpack(codec.pack(encoder.encode(value)))
    return node, [np.array(array) for array in encoder.arrays]


SPARSE: dict[str, dict[str, tuple[int, Any]]] = {
    "csr csc": {
        "index beyond the minor axis": (4, [0, 9, 2, 1]),
        "negative index": (4, [0, -1, 2, 1]),
        "far index": (4, [0, 2**40, 2, 1]),
        "fewer indices": (4, [0, 1, 2]),
        "indices that are no integers": (4, [0.0, 1.0, 2.0, 1.0]),
        "pointers that go back": (5, [0, 3, 2, 4]),
        "pointer beyond the indices": (5, [0, 1, 2, 5]),
        "negative pointer": (5, [0, -1, 2, 4]),
        "first pointer that is not zero": (5, [1, 1, 2, 4]),
        "fewer pointers": (5, [0, 1, 4]),
        "fewer data": (3, [1.0]),
        "data of two dimensions": (3, [[1.0], [1.0], [1.0], [1.0]]),
        "other shape": (2, [2, 2]),
        "negative shape": (2, [-3, 3]),
        "shape that is no shape": (2, [3.0, 3]),
    },
    "coo": {
        "row beyond the shape": (4, [0, 3, 2, 1]),
        "negative row": (4, [0, -1, 2, 1]),
        "column beyond the shape": (5, [0, 3, 2, 1]),
        "fewer columns": (5, [0, 1, 2]),
        "fewer data": (3, [1.0]),
        "other shape": (2, [2, 2]),
    },
    "bsr": {
        "block beyond the shape": (4, [0, 9, 2, 1]),
        "negative block": (4, [0, -1, 2, 1]),
        "pointer beyond the blocks": (5, [0, 1, 2, 9]),
        "blocks that do not tile": (2, [4, 3]),
        "empty blocks": (3, np.zeros((4, 0, 1))),
    },
    "dia": {
        "more offsets than diagonals": (4, [0, 1, 2, -1]),
        "offset twice": (4, [0, 0]),
        "diagonal beyond the columns": (4, [0, 3]),
        "diagonal beyond the rows": (4, [0, -3]),
        "far offset": (4, [0, 2**62]),
        "far negative offset": (4, [0, -(2**63)]),
        "offset beyond 32 bits": (4, [0, 2**40]),
        "offsets that are no integers": (4, [0.0, 1.0]),
    },
}  # fmt: skip


def test_sparse_matrices_with_indices_out_of_range_are_refused() -> None:
    base = scipy.sparse.coo_array((np.ones(4), ([0, 1, 2, 2], [0, 1, 2, 1])), shape=(3, 3))
    taken = []
    for formats, changes in SPARSE.items():
        for fmt in formats.split():
            node, arrays = _encoded(base.asformat(fmt) if fmt != "bsr" else base.tobsr((1, 1)))
            Decoder(arrays).decode(node)
            if fmt == "dia":
                assert len(arrays[1]) == 2, "else it is their number that is refused"
            for what, (part, value) in changes.items():
                forged = [*node[:part], value if part == 2 else ["a", len(arrays)], *node[part + 1 :]]
                try:
                    Decoder([*arrays, np.array(value)]).decode(forged)
                    taken.append(f"{fmt}: {what}")
                except RemoteProtocolError:
                    continue
    assert not taken


def _values() -> list[Any]:
    X = np.random.default_rng(0).normal(size=(20, 3))
    y = (X[:, 0] > 0).astype(int)
    ragged = np.empty(2, dtype=object)
    ragged[:] = [X[0], X[1, :2]]
    return [
        RandomForestClassifier(2, max_depth=2).fit(X, y),
        SVC().fit(X, y),
        KNeighborsClassifier(algorithm="ball_tree").fit(X, y),
        KernelDensity().fit(X),
        OneHotEncoder().fit(y.reshape(-1, 1)),
        KMeans(2, n_init=1, random_state=np.random.RandomState(0)).fit(X),
        *(scipy.sparse.coo_matrix(X).asformat(fmt) for fmt in ("csr", "csc", "coo", "bsr", "dia")),
        [np.ma.masked_array(X[:3], X[:3] > 0), ragged, {"a": [1, (2, 3.5, 1j)], 3: np.float32(2)}, {1, 2}],
        make_pipeline(StandardScaler(), make_union(PCA(1), MinMaxScaler()), LogisticRegression()).fit(X, y),
        make_column_transformer((StandardScaler(), [0]), ("passthrough", [1]), remainder=PCA(1)).fit(X),
        [
            Rows(np.arange(0, 20, 2), 20),
            Rows(np.arange(1, 20, 2), 20, Rows(np.arange(0, 20, 2), 20)),
            Rows(np.array([3, 1, 2]), 20),
        ],
        [
            get_scorer("f1_macro"),
            get_scorer("roc_auc"),
            _MultimetricScorer(scorers={"a": get_scorer("r2")}),
            _PassthroughScorer(None),
        ],
        [tables.of(pd.DataFrame(X, columns=list("abc"))), tables.of(pd.DataFrame({"n": y, "w": y.astype(str)}))],
        [np.random.RandomState(0), slice(1, 2), 2**80, np.float64, np.dtype("f4"), np.str_("abc"), np.bytes_(b"a")],
    ]


VALUES = _values()
ENCODED = [_encoded(value) for value in VALUES]
LEAVES = [None, True, -1, 0, 1, 3, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 1.5, float("nan"), "", "a", "tree", b"", KEY]
NODES = [*LEAVES, *MALFORMED, ["a", 0], ["a", 1], ["a", 5], ["l"], ["t", 1, 2], ["S", 1, 2], ["i", "ff"]]
OTHER_ARRAYS = [
    *ARRAYS, np.zeros(0), np.array(5), np.zeros(3, "<U2"), np.array([2**62] * 3), np.zeros(3, ">i4"),
    np.full(3, np.nan),
    np.zeros((0, 3)), np.arange(20), np.arange(20)[::-1], np.zeros(3, "<M8[s]"), np.ones((20, 3), np.float32),
]  # fmt: skip


def _places(node: list[Any]) -> Iterator[tuple[list[Any], int]]:
    for number, inner in enumerate(node):
        yield node, number
        if type(inner) is list:
            yield from _places(inner)


def _mutate(chosen: random.Random) -> tuple[Any, list[Array]]:
    node, arrays = copy.deepcopy(chosen.choice(ENCODED))
    for _ in range(chosen.randint(1, 3)):
        places = list(_places(node))
        if not places:
            break
        where, number = chosen.choice(places)
        kind = chosen.random()
        if kind < 0.6:
            where[number] = copy.deepcopy(chosen.choice(NODES))
        elif kind < 0.75:
            del where[number]
        else:
            where.insert(number, copy.deepcopy(chosen.choice(NODES)))
    if arrays and chosen.random() < 0.5:
        number = chosen.randrange(len(arrays))
        old = arrays[number]
        arrays[number] = chosen.choice([*OTHER_ARRAYS, old.reshape(-1)[:-1], old.T, old[:0], old.astype("f4")])
    return node, arrays


@settings(deadline=None, max_examples=400)
@given(st.integers(0, 2**32))
def test_mutated_nodes_of_encoded_values_raise_nothing_but_the_expected_error(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(10):
        node, arrays = _mutate(chosen)
        try:
            Decoder(arrays).decode(node)
        except RemoteProtocolError:
            continue


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_attributes_of_other_kinds_raise_nothing_but_the_expected_error(seed: int) -> None:
    chosen = random.Random(seed)
    junk = [*LEAVES, [], {}, set(), (1, 2), [np.zeros(3)], np.float64(1), *OTHER_ARRAYS, *VALUES]
    for estimator in (value for value in VALUES if isinstance(value, BaseEstimator)):
        attributes = dict(vars(estimator))
        for name in chosen.sample(sorted(attributes), 2):
            attributes[name] = chosen.choice(junk)
        try:
            objects.build_estimator(type(estimator), attributes)
        except RemoteProtocolError:
            continue


def test_a_few_bytes_do_not_ask_for_much_memory() -> None:
    numbers = ["h", "rows", 2**40, "numbers", ["a", 0]]
    rows = Decoder([np.array([1, 0], np.uint8)]).decode(numbers)
    np.testing.assert_array_equal(rows.numbers, [1, 0])
    np.testing.assert_array_equal(Decoder([np.array([1], np.uint8)]).decode(numbers).numbers, [1])


def test_texts_without_a_character_are_not_without_end() -> None:
    for dtype in ("|S0", "<U0"):
        assert check_inline([b"", dtype, [3, 4], "C", True, 0]).shape == (3, 4)
        with pytest.raises(RemoteProtocolError):
            check_inline([b"", dtype, [2**30], "C", True, 0])
