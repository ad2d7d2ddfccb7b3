r"""Paths of Windows as a distribution sees them, and back; and where on Windows a pool cannot live.

Both sides use it: the client on what it knows of the distribution, the worker on its own tables. A distribution that
runs knows best (`wslpath`); this is for where it is not asked.

References
----------
Microsoft, "Advanced settings configuration in WSL", section automount of wsl.conf; proc_pid_mounts(5); microsoft/WSL,
``src/linux/init/drvfs.cpp``, for lines such as
``C:\134 /mnt/c 9p rw,noatime,aname=drvfs;path=C:\;uid=1000;symlinkroot=/mnt/,cache=5,msize=65536,trans=fd,rfd=6``.
"""

from __future__ import annotations

import configparser
import ntpath
import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

from sklearn_wsl_gpu.errors import ConfigurationError

#: Where drives are mounted, if ``wsl.conf`` does not say otherwise.
ROOT = "/mnt/"
#: Names of a Windows path by which the files of distributions are reached.
_HOSTS = ("wsl.localhost", "wsl$")
#: In the names of files Windows has none of these.
_NOT_IN_WINDOWS = re.compile(r'[\x00-\x1f<>:"|?*\\]')

_REMOVABLE, _FIXED, _REMOTE = 2, 3, 4
_DRIVES = {
    0: "a drive of unknown kind", 1: "no drive at all", _REMOVABLE: "a removable drive", _REMOTE: "a network drive",
    5: "an optical drive", 6: "a RAM disk",
}  # fmt: skip
#: Bits of GetFileAttributesW, in the order in which they are told.
_ATTRIBUTES = {
    0x800: "is compressed", 0x4000: "is encrypted", 0x400: "leads to another directory or is kept by another program",
    0x1000: "is kept offline", 0x40000: "is fetched when it is opened", 0x400000: "is fetched when it is read",
}  # fmt: skip
_SYNCHRONIZED = re.compile(r"(onedrive|dropbox|google ?drive|icloud ?drive|nextcloud)\b", re.IGNORECASE)
_ELSEWHERE = "Name a directory on a local NTFS drive, or leave pool_dir unset, which takes one below %LOCALAPPDATA%."


class Mount(NamedTuple):
    """A directory of Windows, and where the distribution has it."""

    source: str
    point: str


def mounts(text: str) -> list[Mount]:
    """Return the directories of Windows in the text of ``/proc/mounts``; of two at one point the later counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        fields = [re.sub(r"\\([0-7]{3})", _character, field) for field in line.split(" ")]
        if len(fields) < 4:
            continue
        source, point, kind, options = fields[:4]
        path = re.search(r"(?:^|[,;])aname=drvfs(?:;[^,]*?)?;path=([^;,]+)", options)
        share = re.fullmatch(r"drvfs([A-Za-z])[0-9]*", source)
        found.pop(point, None)
        if kind == "9p" and path is not None:
            found[point] = _windows(path[1])
        elif kind == "drvfs":
            found[point] = _windows(source)
        elif kind == "virtiofs" and share is not None:
            found[point] = f"{share[1].upper()}:\\"
    return [Mount(source, point) for point, source in found.items()]


def _character(code: re.Match[str]) -> str:
    return chr(int(code[1], 8))


def _windows(source: str) -> str:
    r"""Return a path as Windows writes it: WSL names a share ``UNC\server\share``, or with slashes."""
    path = source.replace("/", "\\")
    return f"\\\\{path[4:]}" if path[:4].upper() == "UNC\\" else path


def automount_root(wsl_conf: str) -> str:
    """Return where drives are mounted, by the text of ``/etc/wsl.conf``; it ends with a slash."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, inline_comment_prefixes=("#",))
    try:
        parser.read_string(wsl_conf)
        root = parser["automount"]["root"].strip().strip('"')
    except (configparser.Error, KeyError):
        return ROOT
    return f"{root.rstrip('/')}/" if root.startswith("/") else ROOT


def plain(path: str) -> str:
    r"""Return a path of Windows without ``.``, ``..``, doubled and forward slashes, and ``\\?\``.

    Raises
    ------
    ConfigurationError
        If it does not begin with a drive and a slash, or with a server's name.
    """
    text = path.replace("/", "\\")
    if text[:8].upper() == "\\\\?\\UNC\\":
        text = f"\\\\{text[8:]}"
    elif text[:4] in ("\\\\?\\", "\\\\.\\"):
        text = text[4:]
    text = ntpath.normpath(text)
    drive, rest = ntpath.splitdrive(text)
    if not drive or not (rest.startswith("\\") or drive.startswith("\\\\")):
        raise ConfigurationError(
            f"{path!r} is no whole path of Windows: it has to begin with a drive and a backslash, such as C:\\, or "
            "with \\\\server\\share."
        )
    return text if rest else f"{text}\\"


def to_posix(path: str, mounts_text: str = "", root: str = ROOT) -> str:
    r"""Return what a path of Windows is called in a distribution.

    Parameters
    ----------
    path : str
        Such as ``C:\Users\me\pool.bin``, or ``\\wsl.localhost\Ubuntu\home\me``, which is the distribution's own.
    mounts_text : str
        Text of its ``/proc/mounts``; empty if it is not known: then drives are where they are by default.
    root : str
        From `automount_root`.

    Raises
    ------
    ConfigurationError
        If it is no whole path, or the distribution does not see it.
    """
    text = plain(path)
    parts = text.strip("\\").split("\\")
    if text.startswith("\\\\") and parts[0].lower() in _HOSTS:
        return posixpath.join("/", *parts[2:])
    best: tuple[int, str] | None = None
    for source, point in mounts(mounts_text):
        head = source.strip("\\").split("\\")
        same = source.startswith("\\\\") == text.startswith("\\\\")
        if same and [part.lower() for part in parts[: len(head)]] == [part.lower() for part in head]:
            best = max(best or (0, ""), (len(head), posixpath.join(point, *parts[len(head) :])))
    if best is not None:
        return best[1]
    if text.startswith("\\\\"):
        raise ConfigurationError(
            f"{path!r} is on a network share, which the distribution does not see. Use a local drive."
        )
    letter = parts[0][0].lower()
    if mounts_text:
        raise ConfigurationError(
            f"The distribution does not see drive {letter.upper()}: of {path!r}. In it, run: sudo mkdir -p "
            f"{root}{letter} && sudo mount -t drvfs {letter.upper()}: {root}{letter}"
        )
    return posixpath.join(root, letter, *parts[1:])


def to_windows(path: str, distribution: str, mounts_text: str = "", root: str = ROOT) -> str:
    r"""Return what a path in a distribution is called on Windows.

    Parameters
    ----------
    path : str
        Absolute.
    distribution : str
        Name of the distribution.
    mounts_text, root : str
        As for `to_posix`.

    Returns
    -------
    path : str
        Of what lies in the distribution itself ``\\wsl.localhost\Ubuntu\…``.

    Raises
    ------
    ConfigurationError
        If it is not absolute, or has a character that Windows has in no name.
    """
    if not path.startswith("/"):
        raise ConfigurationError(f"{path!r} is no absolute path of Linux: it has to begin with a slash.")
    text = "/" + posixpath.normpath(path).lstrip("/")
    if _NOT_IN_WINDOWS.search(text):
        raise ConfigurationError(f"{path!r} has a character that no name on Windows can have. Rename it.")
    known = mounts(mounts_text)
    if not mounts_text:
        drive = re.match(rf"{re.escape(root)}([a-z])(?=/|$)", text)
        known = [Mount(f"{drive[1].upper()}:\\", drive[0])] if drive else []
    inside = [mount for mount in known if f"{text}/".startswith(f"{mount.point.rstrip('/')}/")]
    if not inside:
        return "\\".join([f"\\\\wsl.localhost\\{distribution}", *text.strip("/").split("/")]).rstrip("\\") + (
            "\\" if text == "/" else ""
        )
    source, point = max(inside, key=lambda mount: len(mount.point))
    rest = text[len(point.rstrip("/")) :].strip("/")
    return ntpath.join(source, *rest.split("/")) if rest else source


def _parts(directory: str) -> list[str]:
    """Return the parts of a directory's path, in lower case; none for what is no whole path."""
    try:
        return [part for part in plain(directory).strip("\\").lower().split("\\") if part]
    except ConfigurationError:
        return []


def why_no_pool(path: str, drive: int, attributes: int, synchronized: Sequence[str] = ()) -> str | None:
    r"""Return why a pool cannot live in a directory of Windows, in words for a person; None if it can.

    Parameters
    ----------
    path : str
        The directory.
    drive : int
        What GetDriveTypeW tells of its drive; 3 is a fixed one.
    attributes : int
        What GetFileAttributesW tells of it.
    synchronized : sequence of str
        Directories that a program keeps the same elsewhere: values of ``%OneDrive%`` and the like.
    """
    try:
        text = plain(path)
    except ConfigurationError as error:
        return str(error)
    parts = text.strip("\\").lower().split("\\")
    if text.startswith("\\\\"):
        if parts[0] in _HOSTS:
            return (
                f"{path} lies in a distribution, which Windows reaches at a few MB/s, and with crashes on record. "
                f"{_ELSEWHERE}"
            )
        return f"{path} is on a network share, whose two sides are not kept the same. {_ELSEWHERE}"
    heads = [head for other in synchronized if (head := _parts(other))]
    if any(parts[: len(head)] == head for head in heads) or any(_SYNCHRONIZED.match(part) for part in parts[1:]):
        return f"{path} is copied to the internet by a program such as OneDrive, again and again. {_ELSEWHERE}"
    if drive != _FIXED:
        return f"{path} is on {_DRIVES.get(drive, _DRIVES[0])}. {_ELSEWHERE}"
    for bit, words in _ATTRIBUTES.items():
        if attributes & bit:
            return f"{path} {words}. {_ELSEWHERE}"
    return None
