"""The protocol's number, and how two sides agree.

When to raise `PROTOCOL`: whenever a message gains, loses or reorders a field, a node of the value codec
changes its meaning, or the layout of a span changes. How: raise the number here; write the new golden frames
with ``python tests/protocol/write_golden.py`` and keep the old files, which must from then on be refused with
`VersionMismatch`; say in the changelog which releases speak which number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sklearn_wsl_gpu.errors import VersionMismatch

PROTOCOL = 7
#: What a client offers to a worker that refuses `PROTOCOL`: the same messages, but the array refs of a `ResultBody` are
#: names of ``.npy`` files in a directory, whose path is the last item of the `Hello`'s offer. So answered the first
#: workers; this package's own refuse it.
FILE_REPLIES = 0


def minor(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", version)[:2])


def agree(
    protocol: int,
    versions: Mapping[str, str],
    other_protocol: int,
    other_versions: Mapping[str, str],
    other: str,
) -> None:
    """Check that two sides fit each other.

    Parameters
    ----------
    protocol, other_protocol : int
        The protocol that this side and the other side speak.
    versions, other_versions : mapping of str to str
        Versions of ``scikit-learn`` and of ``sklearn_wsl_gpu`` on either side.
    other : str
        What to call the other side in a message: ``"client"`` or ``"worker"``.

    Raises
    ------
    VersionMismatch
        With the side to upgrade.
    """
    this = "worker" if other == "client" else "client"
    if protocol != other_protocol:
        older = this if protocol < other_protocol else other
        raise VersionMismatch(
            f"The {this} speaks protocol {protocol} and the {other} protocol {other_protocol}. "
            f"Upgrade sklearn_wsl_gpu on the {older}'s side."
        )
    here, there = versions.get("scikit-learn", ""), other_versions.get("scikit-learn", "")
    if minor(here) != minor(there):
        older = this if minor(here) < minor(there) else other
        raise VersionMismatch(
            f"The {this} has scikit-learn {here or 'none'} and the {other} {there or 'none'}; the first two "
            f"numbers must be equal, or results could differ. Upgrade scikit-learn on the {older}'s side."
        )
