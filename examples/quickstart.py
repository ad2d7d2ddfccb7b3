"""scikit-learn code on real data, once as it is and once inside ``offload()``; then the report.

Run it with: python examples/quickstart.py
"""

import sys
import time

from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu


def analyse(X, y, rows_for_neighbors):
    """Ordinary scikit-learn: nothing in here knows of a worker."""
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    scaler = StandardScaler().fit(X_train)
    X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
    pca = PCA(n_components=10, random_state=0).fit(X_train)
    Z_train, Z_test = pca.transform(X_train), pca.transform(X_test)

    clusters = KMeans(n_clusters=len(set(y)), n_init=1, random_state=0).fit_predict(Z_train)
    linear = LogisticRegression(max_iter=200).fit(Z_train, y_train)
    forest = RandomForestClassifier(n_estimators=10, max_depth=8, random_state=0).fit(Z_train, y_train)
    neighbors = KNeighborsClassifier().fit(Z_train[:rows_for_neighbors], y_train[:rows_for_neighbors])
    return {
        "PCA, variance kept": float(pca.explained_variance_ratio_.sum()),
        "KMeans, adjusted Rand index": adjusted_rand_score(y_train, clusters),
        "LogisticRegression, accuracy": linear.score(Z_test, y_test),
        "RandomForestClassifier, accuracy": forest.score(Z_test, y_test),
        "KNeighborsClassifier, accuracy": neighbors.score(Z_test[:rows_for_neighbors], y_test[:rows_for_neighbors]),
    }


def verdict(value, other, tolerance):
    """Say how two scores compare."""
    if value == other:
        return "equal"
    return "close" if abs(value - other) <= tolerance else "DIFFERS"


def main():
    generated = make_classification(200_000, 50, n_informative=10, n_classes=3, random_state=0)
    data = {
        "digits (1,797 x 64)": (*load_digits(return_X_y=True), 1_000),
        "breast cancer (569 x 30)": (*load_breast_cancer(return_X_y=True), 1_000),
        "generated (200,000 x 50)": (*generated, 5_000),
    }

    begin = time.perf_counter()
    plain = {name: analyse(*arguments) for name, arguments in data.items()}
    middle = time.perf_counter()
    with sklearn_wsl_gpu.offload() as session:
        offloaded = {name: analyse(*arguments) for name, arguments in data.items()}
    end = time.perf_counter()

    # A GPU rounds otherwise than a CPU, and the libraries of Windows otherwise than those of Linux.
    exact = sys.platform != "win32" and {call.engine for call in session.report().calls} <= {"cpu"}
    verdicts = set()
    for name in data:
        print(f"\n{name}")
        for score, value in plain[name].items():
            other = offloaded[name][score]
            found = verdict(value, other, tolerance=0.0 if exact else 0.05)
            verdicts.add(found)
            print(f"  {score:36} plain {value:.6f}   offloaded {other:.6f}   {found}")
    print(
        f"\nplain scikit-learn: {middle - begin:.1f} s; offloaded, start of the worker included: {end - middle:.1f} s"
    )
    print(f"\n{session.report()}")
    if "DIFFERS" in verdicts:
        raise SystemExit("The scores differ.")


if __name__ == "__main__":
    main()
