"""Rows for `sklearn.preprocessing`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row(
        "sklearn.preprocessing.StandardScaler",
        "fit partial_fit transform fit_transform inverse_transform",
        refits=True,
        in_place="copy",
        overwrites="transform fit_transform inverse_transform",
        targetless=True,
    ),
    Row(
        "sklearn.preprocessing.MinMaxScaler",
        "fit partial_fit transform fit_transform inverse_transform",
        refits=True,
        in_place="copy",
        overwrites="transform fit_transform inverse_transform",
        targetless=True,
    ),
    Row(
        "sklearn.preprocessing.MaxAbsScaler",
        "fit partial_fit transform fit_transform inverse_transform",
        refits=True,
        in_place="copy",
        overwrites="transform fit_transform inverse_transform",
        targetless=True,
    ),
    Row(
        "sklearn.preprocessing.Normalizer",
        "fit transform fit_transform",
        in_place="copy",
        overwrites="transform fit_transform",
        targetless=True,
    ),
    Row(
        "sklearn.preprocessing.Binarizer",
        "fit transform fit_transform",
        in_place="copy",
        overwrites="transform fit_transform",
        targetless=True,
    ),
    Row("sklearn.preprocessing.KernelCenterer", "fit transform fit_transform", targetless=True),
    Row("sklearn.preprocessing.PolynomialFeatures", "fit transform fit_transform", targetless=True),
    Row(
        "sklearn.preprocessing.OneHotEncoder",
        "fit transform fit_transform inverse_transform",
        by_column=True,
        targetless=True,
    ),
    Row("sklearn.preprocessing.TargetEncoder", "fit transform fit_transform", by_column=True),
    Row("sklearn.preprocessing.LabelEncoder", "fit transform fit_transform inverse_transform", named=False),
    Row(
        "sklearn.preprocessing.LabelBinarizer",
        "fit transform fit_transform inverse_transform",
        named=False,
        unchecked="inverse_transform<1.8",
    ),
)
