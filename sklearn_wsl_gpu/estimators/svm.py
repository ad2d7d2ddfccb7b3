"""Rows for `sklearn.svm`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row("sklearn.svm.SVC", "fit predict predict_proba predict_log_proba decision_function score"),
    Row("sklearn.svm.SVR", "fit predict score"),
    Row("sklearn.svm.LinearSVC", "fit predict decision_function score"),
    Row("sklearn.svm.LinearSVR", "fit predict score"),
)
