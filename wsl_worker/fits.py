"""The fits of a search or of a cross-validation: each is scikit-learn's own function for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sklearn.base import clone
from sklearn.model_selection._validation import _fit_and_predict, _fit_and_score

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.estimators import METHODS, Row, row_of, walk
from sklearn_wsl_gpu.state import checks
from sklearn_wsl_gpu.state.splits import Rows
from sklearn_wsl_gpu.support import Request, request_of
from sklearn_wsl_gpu.support.fits import COMMON, OWN
from wsl_worker.binding import Binding
from wsl_worker.progress import ToldFits
from wsl_worker.resident import give_back

FUNCTIONS: dict[str, Callable[..., Any]] = {"fit_and_score": _fit_and_score, "fit_and_predict": _fit_and_predict}


class Fits:
    """Fits that were asked for, after checking them.

    Parameters
    ----------
    function : str
        A key of `FUNCTIONS`.
    arguments : sequence
        X, y, the estimators, the candidates as dicts of parameters (or None), the splits as pairs of `Rows`; and the
        fits: numbers of the estimator, the candidate and the split, and a dict of what is the fit's own.
    common : mapping of str to object

    Raises
    ------
    RemoteProtocolError
        If a fit is none.
    """

    def __init__(self, function: str, arguments: Sequence[Any], common: Mapping[str, Any]) -> None:
        if function not in FUNCTIONS:
            raise Unsupported(f"{function} is none of this worker's functions.", "not-in-table")
        self._function = function
        try:
            self.X, self.y, self._estimators, self._candidates, self._splits, self._fits = arguments
            is_right = all(
                min(one[:3]) >= 0
                and one[0] < len(self._estimators)
                and one[1] < len(self._candidates)
                and one[2] < len(self._splits)
                and one[3].keys() <= OWN
                for one in self._fits
            )
            is_right &= all(len(split) == 2 and all(type(rows) is Rows for rows in split) for split in self._splits)
            is_right &= all(isinstance(one, (dict, type(None))) for one in self._candidates)
            is_right &= common.keys() <= COMMON
        except (TypeError, ValueError, IndexError, AttributeError):
            is_right = False
        method = common.get("method", "predict")
        if not is_right or method not in METHODS or METHODS[method].fits:
            raise RemoteProtocolError("The fits of a cross-validation are malformed.")
        self._common = common

    def requests(self, facts: Mapping[str, Any]) -> Iterator[Request]:
        """Yield what an engine is asked about each estimator with its parameters, after checking these."""
        for estimator in self._estimators:
            _check(estimator)
        for number, candidate in sorted({(one[0], one[1]) for one in self._fits}):
            estimator = clone(self._estimators[number])
            estimator.set_params(**clone(self._candidates[candidate] or {}, safe=False))
            row = _check(estimator)
            yield request_of(row, "fit", vars(estimator), facts)

    def bind(self, binding: Binding) -> None:
        """Have engines compute the estimators, with the data on their device."""
        binding.bind([self._estimators, self._candidates])
        self.X = binding.along(self.X)

    def run(self, told: ToldFits | None) -> list[Any]:
        """Do all fits, one after the other, and tell of them."""
        results = []
        for place, (number, candidate, split, progress) in enumerate(self._fits):
            train, test = (rows.numbers for rows in self._splits[split])
            estimator = clone(self._estimators[number])
            if self._function == "fit_and_score":
                own = {"train": train, "test": test, "parameters": self._candidates[candidate], **progress}
                if told is not None:
                    own |= told.arguments(place)
                result = _fit_and_score(estimator, self.X, self.y, **own, **self._common)
                score = result["test_scores"]
            else:
                result = _fit_and_predict(estimator, self.X, self.y, train, test, **self._common)
                result, score = give_back(result), None
            results.append(result)
            if told is not None:
                told.score(place, score)
        return results


def _check(estimator: Any) -> Row:
    row = row_of(type(estimator))
    for own, part in [(row, estimator), *(walk(row, vars(estimator)) if row is not None else ())]:
        if own is None:
            raise Unsupported(f"{type(part).__qualname__} is not in this worker's table.", "unsupported-part")
        checks.check_estimator(own.name, part)
    assert row is not None
    return row
