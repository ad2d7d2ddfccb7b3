"""Rows for `sklearn.linear_model`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row("sklearn.linear_model.LinearRegression", "fit predict score", in_place="copy_X"),
    Row("sklearn.linear_model.Ridge", "fit predict score", in_place="copy_X"),
    Row("sklearn.linear_model.RidgeCV", "fit predict score", widens=True, unchecked="fit@cv"),
    Row("sklearn.linear_model.RidgeClassifier", "fit predict decision_function score", in_place="copy_X"),
    Row("sklearn.linear_model.RidgeClassifierCV", "fit predict decision_function score"),
    Row("sklearn.linear_model.Lasso", "fit predict score", in_place="copy_X"),
    Row("sklearn.linear_model.PoissonRegressor", "fit predict score"),
    Row("sklearn.linear_model.ElasticNet", "fit predict score", in_place="copy_X"),
    Row(
        "sklearn.linear_model.LogisticRegression",
        "fit predict predict_proba predict_log_proba decision_function score",
    ),
)
