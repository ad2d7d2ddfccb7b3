"""The closed set of scikit-learn objects that may be part of a fitted state: how to take each apart and back.

A class that is not named here never travels, and is never constructed from a message.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn import calibration
from sklearn._loss import HalfPoissonLoss
from sklearn.metrics import _dist_metrics
from sklearn.neighbors import BallTree, KDTree
from sklearn.preprocessing import FunctionTransformer, LabelBinarizer, LabelEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor
from sklearn.tree import _tree as tree_module
from sklearn.tree._tree import Tree

try:
    from sklearn.compose._column_transformer import _RemainderColsList as RemainderColumns
except ImportError:  # from scikit-learn 1.7 on it is a list
    RemainderColumns = None

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.estimators import GRAPHS, ROWS, Row
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.state import checks, scorers, splits, tables

#: Estimators that only occur inside the fitted state of others, and what CalibratedClassifierCV makes of them; a
#: ColumnTransformer passes columns through by a FunctionTransformer without a function.
_PARTS = (
    DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor, LabelEncoder, LabelBinarizer,
    FunctionTransformer, calibration._CalibratedClassifier, calibration._SigmoidCalibration,
    *([calibration._TemperatureScaling] if hasattr(calibration, "_TemperatureScaling") else []),  # from 1.8 on
)  # fmt: skip

#: Attributes that belong to this process and do not travel: what `set_output`, `set_fit_request` and
#: `set_callbacks` keep, and what a meta-estimator lends to its parts.
_STAYS = ("_sklearn_output_config", "_metadata_request", "_skl_callbacks", "_parent_callback_ctx")


def _collect() -> dict[type[Any], str]:
    names = {row.cls: row.name for row in (*ROWS.values(), *GRAPHS.values()) if row.cls is not None}
    for part in _PARTS:
        names.setdefault(part, part.__name__)
    return names


ESTIMATOR_NAMES: dict[type[Any], str] = _collect()
_ESTIMATOR_CLASSES = {name: cls for cls, name in ESTIMATOR_NAMES.items()}
#: Modules whose functions travel by name.
_FUNCTION_MODULES: set[str] = set()

#: Record layouts of compiled scikit-learn code, by name.
_LAYOUTS: dict[str, np.dtype[Any]] = {
    "tree": tree_module.NODE_DTYPE,
    "neighbors": np.dtype([("idx_start", "<i8"), ("idx_end", "<i8"), ("is_leaf", "<i8"), ("radius", "<f8")]),
    "condensed": np.dtype([("parent", "<i8"), ("child", "<i8"), ("lambda_val", "<f8"), ("child_size", "<i8")]),
    "hierarchy": np.dtype([("left_node", "<i8"), ("right_node", "<i8"), ("value", "<f8"), ("cluster_size", "<i8")]),
}

#: Losses that generalized linear models keep, by name; they hold nothing but what their class says.
_LOSSES: dict[str, type[Any]] = {"HalfPoissonLoss": HalfPoissonLoss}

_METRICS: dict[str, type[Any]] = {
    name: cls
    for name, cls in vars(_dist_metrics).items()
    if isinstance(cls, type)
    and issubclass(cls, (_dist_metrics.DistanceMetric64, _dist_metrics.DistanceMetric32))
    and not name.startswith(("PyFunc", "DistanceMetric"))
}


class Frame:
    """A table or a series of polars or pyarrow, as the array that it becomes.

    scikit-learn looks at the dtype of an array before it converts it. These have none that it understands, so
    they are converted in another way: float32 becomes float64 where it would have been kept, for one.
    """

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self.array if dtype is None else self.array.__array__(dtype)  # like polars: what is converted is C
        return array.copy(order="K") if copy else array


class _Kind(NamedTuple):
    take_apart: Callable[[Any], Sequence[Any]]
    put_together: Callable[..., Any]


def register(row: Row) -> None:
    """Let estimators of another package travel from now on, and the functions that they may hold."""
    assert row.cls is not None
    ESTIMATOR_NAMES[row.cls] = row.name
    _ESTIMATOR_CLASSES[row.name] = row.cls
    _FUNCTION_MODULES.update(row.functions.split())


def is_function(value: Any) -> bool:
    """Tell whether a value is a function that travels by name."""
    if not callable(value):  # whose attributes may be anything
        return False
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    return module in _FUNCTION_MODULES and name is not None and vars(sys.modules[module]).get(name) is value


def layout_name(dtype: np.dtype[Any]) -> str | None:
    """Return the name of a record layout, or None if it is not one of the closed set."""
    for name, layout in _LAYOUTS.items():
        if dtype == layout:
            return name
    return None


def is_helper(cls: type[Any]) -> bool:
    """Tell whether objects of this class travel as helper objects."""
    return cls in _KIND_OF or _METRICS.get(cls.__name__) is cls


def take_apart(value: Any) -> tuple[str, Sequence[Any]]:
    """Return kind and parts of a helper object."""
    kind = "function" if is_function(value) else _KIND_OF.get(type(value), "metric")
    return kind, _KINDS[kind].take_apart(value)


def put_together(kind: str, parts: Sequence[Any]) -> Any:
    """Return a helper object from its checked parts."""
    if kind not in _KINDS:
        raise RemoteProtocolError("A value is of a kind that is not known.")
    return _KINDS[kind].put_together(*parts)


def estimator_class(name: str) -> type[Any]:
    """Return the class that a name of the table stands for."""
    cls = _ESTIMATOR_CLASSES.get(name)
    if cls is None:
        raise RemoteProtocolError("A value names an estimator that is not in the table.")
    return cls


def carried_attributes(estimator: Any) -> dict[str, Any]:
    """Return the attributes of an estimator that travel."""
    return {name: value for name, value in vars(estimator).items() if name not in _STAYS}


def is_attribute_name(name: Any) -> bool:
    """Tell whether a name may be set on an estimator: no dunder, and none of what stays."""
    return type(name) is str and name.isidentifier() and not name.startswith("__") and name not in _STAYS


def convert(value: Any, one: Callable[[Any], Any]) -> Any:
    """Return a value with what is in it converted one by one, however deep in containers and estimators."""
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(convert(item, one) for item in value)
    if isinstance(value, dict):
        return {key: convert(item, one) for key, item in value.items()}
    if type(value) in ESTIMATOR_NAMES:
        copy = blank(type(value))
        vars(copy).update({name: convert(item, one) for name, item in vars(value).items()})
        return copy
    return one(value)


def blank(cls: Any) -> Any:
    """Return an object of a class without calling its constructor."""
    return cls.__new__(cls)


def build_estimator(cls: type[Any], attributes: Mapping[str, Any]) -> Any:
    """Return an estimator with these attributes, after checking what its methods use as indices."""
    for name in attributes:
        if callable(getattr(cls, name, None)):
            raise RemoteProtocolError("An attribute would hide a method.")
    estimator = blank(cls)
    vars(estimator).update(attributes)
    if cls is FunctionTransformer:  # by a ColumnTransformer, which says what its parts are to give
        estimator.set_output(transform="default")
    checks.check_estimator(ESTIMATOR_NAMES[cls], estimator)
    return estimator


def _take_tree(tree: Any) -> Sequence[Any]:
    _, (n_features, n_classes, n_outputs), state = tree.__reduce__()
    return (
        int(n_features), n_classes, int(n_outputs), int(state["max_depth"]), int(state["node_count"]),
        state["nodes"], state["values"],
    )  # fmt: skip


def _put_tree(
    n_features: int, n_classes: Array, n_outputs: int, max_depth: int, node_count: int, nodes: Array, values: Array
) -> Any:
    # The constructor allocates by these numbers, so they are checked before it is called.
    nodes, n_classes = _without_padding(nodes), np.array(n_classes)
    checks.check_tree(n_features, n_classes, n_outputs, max_depth, node_count, nodes, values, _LAYOUTS["tree"])
    tree = Tree(n_features, n_classes, n_outputs)
    state = {"max_depth": max_depth, "node_count": node_count, "nodes": nodes, "values": np.ascontiguousarray(values)}
    tree.__setstate__(state)
    return tree


def _without_padding(nodes: Array) -> Array:
    """Return a copy whose padding is zero: numpy leaves in it what lay in that memory before, and pickles hold it."""
    copy: Array = np.zeros(nodes.shape, nodes.dtype)
    for name in nodes.dtype.names or ():
        copy[name] = nodes[name]
    return copy


def _take_neighbors(tree: Any) -> Sequence[Any]:
    state = tree.__getstate__()
    return [*state[:4], *[int(item) for item in state[4:11]], *state[11:]]


def _put_neighbors(cls: type[Any]) -> Callable[..., Any]:
    def put(*parts: Any) -> Any:
        data, index, nodes, bounds, *numbers, metric, weights = parts
        index, nodes = np.array(index), _without_padding(nodes)
        if type(metric).__name__ not in _METRICS:
            raise RemoteProtocolError("A neighbors tree has no metric.")
        name, _, vector, matrix = _take_metric(metric)
        checks.check_neighbors_tree(
            data, index, nodes, bounds, numbers, weights, (name, vector, matrix), cls is KDTree, _LAYOUTS["neighbors"]
        )
        tree = blank(cls)
        tree.__setstate__((data, index, nodes, bounds, *numbers, metric, weights))
        return tree

    return put


def _take_metric(metric: Any) -> Sequence[Any]:
    p, vector, matrix = metric.__getstate__()
    return type(metric).__name__, float(p), np.asarray(vector), np.asarray(matrix)


def _put_metric(name: str, p: float, vector: Array, matrix: Array) -> Any:
    cls = _METRICS[name]
    metric = blank(cls)
    if type(p) is not float or vector.ndim != 1 or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise RemoteProtocolError("A metric has parameters of wrong shapes.")
    metric.__setstate__((p, np.array(vector, dtype=np.float64), np.array(matrix, dtype=np.float64)))
    return metric


def _put_layout(name: str, raw: Array) -> Array:
    layout = _LAYOUTS[name]
    if raw.dtype != np.uint8 or raw.ndim != 1 or raw.nbytes % layout.itemsize:
        raise RemoteProtocolError("A structured array is malformed.")
    return np.array(raw).view(layout)


def _put_frame(array: Array) -> Frame:
    if type(array) is not np.ndarray or not array.ndim:
        raise RemoteProtocolError("A table holds something that is no table.")
    return Frame(array)


def _put_function(module: str, name: str) -> Any:
    found = vars(sys.modules[module]).get(name) if module in _FUNCTION_MODULES and module in sys.modules else None
    if not is_function(found):
        raise RemoteProtocolError("A value names a function that is not known.")
    return found


def _take_memory(memory: joblib.Memory) -> Sequence[Any]:
    if memory.location is not None:
        raise Unsupported("A cache on disk stays local.")
    return (int(memory._verbose),)


def _put_memory(verbose: int) -> joblib.Memory:
    return joblib.Memory(None, verbose=verbose)


def _put_loss(name: str) -> Any:
    if name not in _LOSSES:
        raise RemoteProtocolError("A value names a loss that is not known.")
    return _LOSSES[name]()


def _take_columns(columns: Any) -> Sequence[Any]:
    return columns.data, columns.future_dtype, columns.warning_was_emitted, columns.warning_enabled


def _put_columns(columns: Any, future_dtype: Any, was_emitted: Any, is_enabled: Any) -> Any:
    if RemainderColumns is None or type(columns) is not list or future_dtype not in (None, "str", "bool"):
        raise RemoteProtocolError("The columns of a remainder are malformed.")
    return RemainderColumns(
        columns, future_dtype=future_dtype, warning_was_emitted=bool(was_emitted), warning_enabled=bool(is_enabled)
    )


def _take_nothing(value: Any) -> Sequence[Any]:
    raise Unsupported("This object does not travel.")


_KINDS: dict[str, _Kind] = {
    "tree": _Kind(_take_tree, _put_tree),
    "kd_tree": _Kind(_take_neighbors, _put_neighbors(KDTree)),
    "ball_tree": _Kind(_take_neighbors, _put_neighbors(BallTree)),
    "metric": _Kind(_take_metric, _put_metric),
    "layout": _Kind(_take_nothing, _put_layout),
    "function": _Kind(lambda function: (function.__module__, function.__name__), _put_function),
    "memory": _Kind(_take_memory, _put_memory),
    "loss": _Kind(lambda loss: (type(loss).__name__,), _put_loss),
    "frame": _Kind(lambda frame: (frame.array,), _put_frame),
    "columns": _Kind(_take_columns, _put_columns),
    "table": _Kind(tables.take_apart, tables.put_together),
    "rows": _Kind(splits.take_apart, splits.put_together),
    **{name: _Kind(*both) for name, both in scorers.KINDS.items()},
}
_KIND_OF: dict[type[Any], str] = {
    Tree: "tree",
    KDTree: "kd_tree",
    BallTree: "ball_tree",
    Frame: "frame",
    joblib.Memory: "memory",
    HalfPoissonLoss: "loss",
    splits.Rows: "rows",
    tables.Table: "table",
    **scorers.KIND_OF,
    **({} if RemainderColumns is None else {RemainderColumns: "columns"}),
}
