"""Every setting, by argument and by environment variable: what it allows, and what it changes."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn.preprocessing import Normalizer, StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import ConfigurationError, FallbackWarning, Unsupported, config, offload
from sklearn_wsl_gpu.config import PREFIX, Settings
from sklearn_wsl_gpu.reporting import CallRecord

X = np.random.default_rng(0).normal(size=(40, 3))

#: name: (argument, text in the environment, the setting that both make)
RIGHT: dict[str, tuple[Any, str, Any]] = {
    "endpoint": ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
    "engine": ("cpu", "cpu", "cpu"),
    "device": (1, "cuda:1", "cuda:1"),
    "include": (["KMeans", Ridge], "KMeans, Ridge", frozenset({"KMeans", "Ridge"})),
    "exclude": ({KMeans}, "KMeans", frozenset({"KMeans"})),
    "min_elements": (1000, "1000", 1000),
    "policy": ("auto", "auto", "auto"),
    "fallback": ("raise", "raise", "raise"),
    "precision": ("engine", "engine", "engine"),
    "verbose": (True and 2, "2", 2),
    "timeout": (3, "3", 3.0),
    "priority": ("high", "high", "high"),
    "slots": ([1, 2, 0], "1,2,0", (1, 2, 0)),
    "slot_bytes": (8192, "8192", 8192),
    "pool_limit": (2**33, "8589934592", 2**33),
    "prefault": (4096, "4096", 4096),
    "pool_dir": (Path("pool dir"), "pool dir", os.path.abspath("pool dir")),
    "carrier": ("stream", "stream", "stream"),
    "keys": ("~/keys", "~/keys", os.path.abspath(os.path.expanduser("~/keys"))),
    "model_bytes": (0, "0", 0),
    "distribution": ("Ubuntu 24.04", "Ubuntu 24.04", "Ubuntu 24.04"),
    "interpreter": (PurePosixPath("/opt/venv/bin/python"), "/opt/venv/bin/python", "/opt/venv/bin/python"),
}

#: (name, wrong argument, words of the message that say what is allowed)
WRONG: list[tuple[str, Any, str]] = [
    ("endpoint", "127.0.0.1:5555", "'tcp://HOST:PORT'"),
    ("endpoint", 5555, "'tcp://HOST:PORT'"),
    ("endpoint", "tcp://::1:5555", r"an IPv6 address stands in \[ \]"),
    ("endpoint", "tcp://[::1:5555", r"an IPv6 address stands in \[ \]"),
    ("endpoint", "tcp://127.0.0.1:65536", "'tcp://HOST:PORT'"),
    ("engine", "gpu", r"one of \['auto', 'array_api', 'cpu'"),
    ("device", "gpu", r"'auto', 'cpu', 'cuda:N' or the number N of a GPU"),
    ("device", -1, "the number N of a GPU"),
    ("device", True, "the number N of a GPU"),
    ("include", "KMean", "names of estimators, of these: .*KMeans"),
    ("include", 3, "names of estimators"),
    ("exclude", [np.mean], "names of estimators"),
    ("exclude", [3], "names of estimators"),
    ("min_elements", -1, "a whole number of at least 0"),
    ("min_elements", 1.5, "a whole number of at least 0"),
    ("min_elements", "many", "a whole number of at least 0"),
    ("policy", "never", r"one of \['always', 'auto'\]"),
    ("policy", None, r"one of \['always', 'auto'\]"),
    ("fallback", "warn", r"one of \['local', 'quiet', 'raise'\]"),
    ("precision", "double", r"one of \['exact', 'engine'\]"),
    ("verbose", "yes", "a whole number of at least 0"),
    ("timeout", 0, "None .*, or a positive number of seconds"),
    ("timeout", float("nan"), "a positive number of seconds"),
    ("timeout", float("inf"), "a positive number of seconds"),
    ("priority", "urgent", r"one of \['high', 'normal', 'low'\]"),
    ("priority", 1, r"one of \['high', 'normal', 'low'\]"),
    ("slots", (1, 2), "three numbers"),
    ("slots", (0, 1, 1), "the first two at least 1"),
    ("slots", "a,b,c", "three numbers"),
    ("slot_bytes", 4097, "a positive multiple of 4096"),
    ("slot_bytes", 0, "a whole number of at least 1"),
    ("slot_bytes", 2**50, "at most [0-9]+ bytes"),
    ("slots", (0, 0, 1), "the first two at least 1"),
    ("pool_limit", -1, "a whole number of at least 0"),
    ("pool_limit", "much", "a whole number of at least 0"),
    ("prefault", 0.5, "a whole number of at least 0"),
    ("pool_dir", 3, "None, or a directory"),
    ("carrier", "pigeon", r"one of \['auto', 'shared', 'stream', 'file'"),
    ("carrier", None, r"one of \['auto', 'shared', 'stream', 'file'"),
    ("keys", 3.5, "None, or a directory"),
    ("model_bytes", -1, "a whole number of at least 0"),
    ("distribution", "--shutdown", "the name of a distribution of WSL"),
    ("distribution", 3, "the name of a distribution of WSL"),
    ("interpreter", "C:\\Python\\python.exe", "a path on the worker's side: /... or ~/..."),
    ("interpreter", "python3", "a path on the worker's side: /... or ~/..."),
]


def test_the_tables_of_this_file_are_about_every_setting() -> None:
    names = {item.name for item in fields(Settings)}

    assert RIGHT.keys() == names
    assert {name for name, *_ in WRONG} == names


@pytest.mark.parametrize("name", RIGHT)
def test_a_setting_can_be_given_as_an_argument(name: str) -> None:
    argument, _, value = RIGHT[name]

    assert getattr(config.resolve({name: argument}), name) == value


@pytest.mark.parametrize("name", RIGHT)
def test_a_setting_can_be_given_in_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, value = RIGHT[name]
    monkeypatch.setenv(PREFIX + name.upper(), text)

    with offload() as session:
        assert getattr(session.settings, name) == value


@pytest.mark.parametrize("name", RIGHT)
def test_an_argument_beats_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, _ = RIGHT[name]
    default = getattr(Settings(), name)
    monkeypatch.setenv(PREFIX + name.upper(), text)

    assert getattr(config.resolve({name: default}), name) == default


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_a_wrong_argument_is_told_where_it_stands_with_what_is_allowed(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        offload(**{name: value})

    assert isinstance(caught.value, ValueError)
    assert name in str(caught.value)


@pytest.mark.parametrize(("name", "value", "words"), [case for case in WRONG if isinstance(case[1], str)])
def test_a_wrong_variable_names_itself_and_what_is_allowed(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), value)

    with pytest.raises(ConfigurationError, match=words) as caught:
        offload()

    assert PREFIX + name.upper() in str(caught.value)


def test_a_file_is_a_way_only_on_windows_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.name", "posix")
    assert Settings().carriers() == ["shared", "stream"]
    assert Settings(carrier="file").carriers() == ["file"]
    monkeypatch.setattr("os.name", "nt")

    assert Settings().carriers() == ["shared", "stream", "file"]


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="gpu"):
        offload(gpu=True)  # type: ignore[call-arg]


def test_what_is_not_given_is_taken_from_the_context_around() -> None:
    with offload(min_elements=5, verbose=1):
        with offload(fallback="raise") as inner:
            assert (inner.settings.min_elements, inner.settings.verbose, inner.settings.fallback) == (5, 1, "raise")
        with offload(min_elements=0) as inner:
            assert (inner.settings.min_elements, inner.settings.fallback) == (0, "local")


def test_a_context_that_was_made_outside_inherits_where_it_is_entered() -> None:
    context = offload(verbose=0)

    with offload(min_elements=7), context as inner:
        assert inner.settings.min_elements == 7


def test_settings_of_one_context_end_with_it() -> None:
    with offload(exclude=["Ridge"]):
        pass

    with offload() as session:
        assert session.settings.exclude is None


@pytest.fixture
def scaler_call(shared_worker: None) -> Callable[..., CallRecord]:
    """A function that fits a scaler under settings, and returns the record of it."""

    def call(**settings: Any) -> CallRecord:
        with offload(**settings) as session, warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)
            StandardScaler().fit(X)
        return session.report().calls[0]

    return call


@pytest.mark.parametrize(
    ("settings", "where", "code"),
    [
        ({}, "worker", None),
        ({"include": ["StandardScaler"]}, "worker", None),
        ({"include": ["KMeans"]}, "local", "not-included"),
        ({"include": []}, "local", "not-included"),
        ({"exclude": [StandardScaler]}, "local", "excluded"),
        ({"exclude": ["KMeans"]}, "worker", None),
        ({"include": ["StandardScaler"], "exclude": ["StandardScaler"]}, "local", "excluded"),
        ({"min_elements": 120}, "worker", None),
        ({"min_elements": 121}, "local", "below-min-elements"),
    ],
)
def test_include_exclude_and_min_elements_choose_what_goes(
    scaler_call: Callable[..., CallRecord], settings: dict[str, Any], where: str, code: str | None
) -> None:
    record = scaler_call(**settings)

    assert record.where == where
    assert (record.reason and record.reason.code) == code


@pytest.mark.falls_back
def test_fallback_says_what_happens_to_a_call_that_cannot_go(shared_worker: None) -> None:
    model = KMeans(2, init=lambda X, n_clusters, random_state: X[:n_clusters], n_init=1)

    with offload(fallback="raise"), pytest.raises(Unsupported, match="callable"):
        model.fit(X)
    assert not hasattr(model, "cluster_centers_")
    with offload(fallback="local"), pytest.warns(FallbackWarning, match=r"KMeans\.fit .*callable"):
        model.fit(X)
    assert hasattr(model, "cluster_centers_")


def test_verbose_tells_each_call_in_a_line_on_standard_error(
    scaler_call: Callable[..., CallRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    scaler_call(verbose=0)
    assert capsys.readouterr().err == ""

    scaler_call(verbose=1)
    scaler_call(verbose=1, exclude=["StandardScaler"])

    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"sklearn_wsl_gpu: StandardScaler\.fit worker \(cpu\) [0-9.]+ s", first)
    assert re.fullmatch(r"sklearn_wsl_gpu: StandardScaler\.fit local \(scikit-learn\) \[excluded\] [0-9.]+ s", second)


def test_config_context_takes_scikit_learns_settings_and_ours_together(shared_worker: None) -> None:
    before = sklearn.get_config()
    holes = np.where(X.max() == X, np.nan, X)
    with sklearn_wsl_gpu.config_context(assume_finite=True, exclude=["KMeans"], fallback="raise") as session:
        assert sklearn.get_config() == before | {"assume_finite": True}
        assert np.isnan(Normalizer().fit_transform(holes)).any()
        KMeans(1, n_init=1).fit(X)

    assert sklearn.get_config() == before
    assert [(call.estimator, call.where) for call in session.report().calls] == [
        ("Normalizer", "worker"),
        ("KMeans", "local"),
    ]


def test_scikit_learns_own_context_inside_keeps_its_meaning_and_offloading(shared_worker: None) -> None:
    with sklearn_wsl_gpu.config_context(fallback="raise", assume_finite=True) as session:
        with sklearn.config_context(transform_output="pandas", assume_finite=False):
            assert not sklearn.get_config()["assume_finite"]
            assert list(StandardScaler().fit_transform(X).columns) == ["x0", "x1", "x2"]
        assert type(StandardScaler().fit_transform(X)) is np.ndarray

    assert session.report().offloaded == 2


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"asume_finite": True}, TypeError, r"no setting 'asume_finite'; it takes .*assume_finite.*endpoint"),
        ({"fallback": "never"}, ConfigurationError, "fallback must be"),
    ],
)
def test_config_context_refuses_what_neither_knows_where_it_is_written(
    settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        sklearn_wsl_gpu.config_context(**settings)


def test_verbose_may_be_true_and_one_class_may_be_named_without_a_list() -> None:
    assert config.resolve({"verbose": True}).verbose == 1
    assert config.resolve({"include": KMeans}).include == frozenset({"KMeans"})
