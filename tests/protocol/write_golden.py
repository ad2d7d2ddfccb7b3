"""Write the golden frames: ``python tests/protocol/write_golden.py``, after raising `PROTOCOL` and never otherwise."""

from __future__ import annotations

from pathlib import Path

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.version import PROTOCOL

TOKEN = bytes(range(16))
VERSIONS = [["scikit-learn", "1.6.1"], ["sklearn_wsl_gpu", "0.1.0"]]

#: One of each message, in the order of their numbers.
MESSAGES: tuple[m.Message, ...] = (
    m.Hello(
        PROTOCOL,
        VERSIONS,
        4242,
        "5e5c8a6e-boot",
        [[2**62, 2**28, 4, 4, 8], [["shared", 4242, 7, bytes(32)], ["stream"]]],
    ),
    m.Welcome(
        PROTOCOL,
        VERSIONS,
        TOKEN,
        7,
        [["array_api", ["PCA"]], ["cpu", ["KMeans", "PCA"]]],
        [["stream", b"\xff" * 32, [["tcp", "", 40000]]], ["file", ["pread", "direct"], ["pwrite"]]],
        [["shared", "The worker does not share memory with this process."]],
        4243,
        "5e5c8a6e-boot",
        1,
    ),
    m.Call(TOKEN, 3, SpanRef(0, 2**21, 8192, 17), None, "high"),
    m.Wait(TOKEN, 3),
    m.Grant(TOKEN, 3, SpanRef(0, 2**33, 2**32, 2**40)),
    m.Cancel(TOKEN, 3),
    m.Status(TOKEN),
    m.Bye(TOKEN),
    m.Result(3, -1),
    m.NeedOutput(3, 2**35),
    m.NeedModel(3),
    m.Running(-1, "starting"),
    m.Failed(3, "estimator-error", "ValueError: näin ei käy"),
    m.Cancelled(3),
    m.Refused("version-mismatch", "Upgrade sklearn_wsl_gpu on the client's side."),
    m.Report([["sessions", 2], ["engine", "cpu"], ["seconds", 0.25]]),
    m.Farewell(),
    m.Stop(TOKEN),
    m.Progress(3, [["begin", [0, 2], "fit", -1, True, "PCA", "fit-pca"], ["score", [4], "0.5", 0, False, "", ""]]),
    m.Attach(TOKEN, 1, [[2**62, 2**28, 0, 0, 2], [["shared", 4242, 8, bytes(32)]]]),
    m.Attached(1, [["shared", b"\xff" * 32]]),
    m.Detach(TOKEN, 1),
    m.Warm(TOKEN, 0, 2**21, 2**28),
    m.Done(),
    m.Resize(b"", 2, 2**30),
    m.Fetch(TOKEN, 3, SpanRef(0, 2**21, 8192, 17), 64, 4096, 2**32 - 1),
    m.Store(TOKEN, 3, SpanRef(0, 2**21, 8192, 17), 0, 8192),
    m.Moved(2**32 - 1),
    m.Probe(TOKEN, 0, [2**21, 2**21 + 4088], True, 2),
    m.Probed(b"\xff" * 32),
)
_REF = [64, "<f8", [50, 3], "C", True]
BODIES: tuple[m.CallBody | m.ResultBody, ...] = (
    m.CallBody(
        "StandardScaler", "fit", "cpu", 0, 5, [["copy", True], ["with_mean", True]], [["a", 0]],
        [["sample_weight", None]], [_REF], [(SpanRef(0, 4096, 8192, 7), [_REF], True)], [["assume_finite", True]],
        ["g", -1, bytes(2496), 624, 0, 0.0], 2, 8192,
    ),
    m.ResultBody(
        ["self"], [["mean_", ["a", 0]], ["n_features_in_", 3]], [_REF, [bytes(8), "<f8", [1], "C", True, 16]],
        [["builtins.UserWarning", "text", "sklearn.base", 12]], [["stdout", "done\n"]],
        [[-1, ["g", -1, bytes(2496), 0, 1, -0.5]]], 0.125, True,
    ),
)  # fmt: skip


def frames() -> dict[str, bytes]:
    """Return the frames of this version by name."""
    heads = {type(message).__name__: m.encode(message) for message in MESSAGES}
    return heads | {type(body).__name__: m.encode_body(body) for body in BODIES}


def directory(protocol: int) -> Path:
    """Return where the frames of a protocol lie."""
    return Path(__file__).parent / "golden" / str(protocol)


def main() -> None:
    """Write the frames of this protocol."""
    where = directory(PROTOCOL)
    where.mkdir(parents=True, exist_ok=True)
    for name, frame in frames().items():
        (where / f"{name}.bin").write_bytes(frame)


if __name__ == "__main__":
    main()
