"""Paths of Windows and of WSL: one is found from the other, and where a pool cannot live is said in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu import ConfigurationError, paths
from sklearn_wsl_gpu.paths import Mount

#: Lines as people have published them, of several years and versions.
MOUNTS = r"""/dev/sdc / ext4 rw,relatime,discard,errors=remount-ro,data=ordered 0 0
drivers /usr/lib/wsl/drivers 9p ro,dirsync,nosuid,nodev,noatime,aname=drivers;fmode=222;dmode=222,cache=5,trans=fd 0 0
C:\134 /mnt/c 9p rw,noatime,aname=drvfs;path=C:\;uid=1000;gid=1000;symlinkroot=/mnt/,cache=5,msize=65536,trans=fd 0 0
D:\134 /data\040of\040mine 9p rw,dirsync,noatime,aname=drvfs;path=D:\134;uid=1000;mmap,msize=262144,trans=virtio 0 0
\134\134server\134share /mnt/share 9p rw,noatime,aname=drvfs;path=UNC\server\share;cache=0x5,trans=fd 0 0
drvfsE0 /mnt/e virtiofs rw,noatime 0 0
F: /mnt/f drvfs rw,noatime,uid=1000,gid=1000 0 0
C:\134Users /users 9p rw,noatime,aname=drvfs;path=C:\Users;uid=1000,cache=mmap,trans=fd 0 0
"""


def test_the_directories_of_windows_are_found_among_all_mounts() -> None:
    assert paths.mounts(MOUNTS) == [
        Mount("C:\\", "/mnt/c"),
        Mount("D:\\", "/data of mine"),
        Mount("\\\\server\\share", "/mnt/share"),
        Mount("E:\\", "/mnt/e"),
        Mount("F:", "/mnt/f"),
        Mount("C:\\Users", "/users"),
    ]


def test_what_is_mounted_over_a_directory_of_windows_hides_it() -> None:
    assert paths.mounts(MOUNTS + "tmpfs /mnt/c tmpfs rw 0 0\n")[0] == Mount("D:\\", "/data of mine")


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("", "/mnt/"),
        ("[automount]\nenabled = true\n", "/mnt/"),
        ("[boot]\nsystemd=true\n[automount]\nroot = /\n", "/"),
        ("[automount]\nroot = /windir # all of them\n", "/windir/"),
        ('[automount]\nroot="/win dir/"\n', "/win dir/"),
        ("[automount]\nroot = nowhere\n", "/mnt/"),
        ("no section\n", "/mnt/"),
    ],
)
def test_the_root_of_drives_is_the_one_of_wsl_conf(text: str, root: str) -> None:
    assert paths.automount_root(text) == root


@pytest.mark.parametrize(
    ("windows", "posix"),
    [
        (r"C:\pool.bin", "/mnt/c/pool.bin"),
        (r"c:/ProgramData\\x/../pool.bin", "/mnt/c/ProgramData/pool.bin"),
        ("C:\\", "/mnt/c"),
        (r"C:\Users\Jörg Müller\AppData\Local\sklearn_wsl_gpu", "/users/Jörg Müller/AppData/Local/sklearn_wsl_gpu"),
        (r"c:\USERS\王伟\p.bin", "/users/王伟/p.bin"),
        (r"C:\Users2\p.bin", "/mnt/c/Users2/p.bin"),
        (r"\\?\D:\very long\p.bin", "/data of mine/very long/p.bin"),
        (r"\\SERVER\Share\x y\p.bin", "/mnt/share/x y/p.bin"),
        (r"\\?\UNC\server\share\p.bin", "/mnt/share/p.bin"),
        (r"E:\p.bin", "/mnt/e/p.bin"),
        (r"F:\p.bin", "/mnt/f/p.bin"),
        (r"\\wsl.localhost\Ubuntu\home\me\p.bin", "/home/me/p.bin"),
        (r"\\wsl$\Ubuntu", "/"),
    ],
)
def test_a_path_of_windows_is_found_by_the_table_of_mounts(windows: str, posix: str) -> None:
    assert paths.to_posix(windows, MOUNTS) == posix


def test_without_a_table_drives_are_where_wsl_conf_has_them() -> None:
    assert paths.to_posix(r"D:\x y\p.bin") == "/mnt/d/x y/p.bin"
    assert paths.to_posix(r"D:\x y\p.bin", root="/") == "/d/x y/p.bin"
    assert paths.to_windows("/d/x", "Ubuntu", root="/") == r"D:\x"
    assert paths.to_windows("/dev/x", "Ubuntu", root="/") == r"\\wsl.localhost\Ubuntu\dev\x"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pool.bin", "no whole path of Windows"),
        (r"C:pool.bin", "no whole path of Windows"),
        (r"\pool.bin", "no whole path of Windows"),
        ("", "no whole path of Windows"),
        (r"\\other\share\p.bin", "on a network share, which the distribution does not see"),
        (r"X:\p.bin", "does not see drive X: .* sudo mkdir -p /mnt/x && sudo mount -t drvfs X: /mnt/x"),
    ],
)
def test_a_path_that_the_distribution_does_not_see_is_an_error_that_says_what_to_do(path: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        paths.to_posix(path, MOUNTS)


@pytest.mark.parametrize(
    ("posix", "windows"),
    [
        ("/mnt/c/Users/Jörg Müller/p.bin", r"C:\Users\Jörg Müller\p.bin"),
        ("/users/me/../you", r"C:\Users\you"),
        ("/mnt/c", "C:\\"),
        ("/mnt/cd", r"\\wsl.localhost\Ubuntu 24.04\mnt\cd"),
        ("/data of mine/x", r"D:\x"),
        ("/mnt/share/x", r"\\server\share\x"),
        ("//home/me", r"\\wsl.localhost\Ubuntu 24.04\home\me"),
        ("/", "\\\\wsl.localhost\\Ubuntu 24.04\\"),
    ],
)
def test_a_path_in_the_distribution_is_found_from_windows(posix: str, windows: str) -> None:
    assert paths.to_windows(posix, "Ubuntu 24.04", MOUNTS) == windows


@pytest.mark.parametrize("path", ["home/me", "", "/home/a:b", "/home/a\\b", "/what?"])
def test_a_path_that_windows_cannot_name_is_an_error(path: str) -> None:
    with pytest.raises(ConfigurationError):
        paths.to_windows(path, "Ubuntu", MOUNTS)


NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters='<>:"|?*\\/'), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
ROOTS = st.one_of(st.just("/"), st.lists(NAMES, min_size=1, max_size=2).map(lambda parts: f"/{'/'.join(parts)}/"))


@given(drive=st.sampled_from("ACDZ"), parts=st.lists(NAMES, max_size=5), root=ROOTS)
def test_there_and_back_is_the_same_path_without_a_table(drive: str, parts: list[str], root: str) -> None:
    path = f"{drive}:\\" + "\\".join(parts)

    assert paths.to_windows(paths.to_posix(path, root=root), "Ubuntu", root=root) == path


@given(parts=st.lists(NAMES, max_size=5))
def test_there_and_back_is_the_same_path_with_a_table(parts: list[str]) -> None:
    for head in ("C:\\", "D:\\", "E:\\", "\\\\server\\share\\"):
        path = (head + "\\".join(parts)) if parts or head != "\\\\server\\share\\" else "\\\\server\\share"
        assert paths.to_windows(paths.to_posix(path, MOUNTS), "Ubuntu", MOUNTS).casefold() == path.casefold()


@given(parts=st.lists(NAMES, max_size=5))
def test_a_path_found_from_windows_leads_to_the_same_file(parts: list[str]) -> None:
    for head in ("/mnt/c", "/users", "/data of mine", "/home"):
        path = paths.to_windows("/".join([head, *parts]), "Ubuntu", MOUNTS)
        again = paths.to_windows(paths.to_posix(path, MOUNTS), "Ubuntu", MOUNTS)
        assert again.casefold() == path.casefold()  # C:\Users is seen in two places


LOCAL = r"C:\Users\Jörg Müller\AppData\Local\sklearn_wsl_gpu"


@pytest.mark.parametrize(
    ("path", "drive", "attributes", "words"),
    [
        (LOCAL, 3, 0x10, None),
        (r"\\?\C:\pool", 3, 0x2010, None),
        (LOCAL, 2, 0x10, "on a removable drive"),
        (LOCAL, 4, 0x10, "on a network drive"),
        (LOCAL, 5, 0x10, "on an optical drive"),
        (LOCAL, 77, 0x10, "of unknown kind"),
        (LOCAL, 3, 0x810, "is compressed"),
        (LOCAL, 3, 0x4010, "is encrypted"),
        (LOCAL, 3, 0x410, "leads to another directory"),
        (LOCAL, 3, 0x400010, "is fetched when it is read"),
        (r"\\server\share\pool", 4, 0x10, "on a network share"),
        (r"\\?\UNC\server\share\pool", 3, 0x10, "on a network share"),
        (r"\\wsl.localhost\Ubuntu\home\me", 4, 0x10, "lies in a distribution"),
        (r"C:\Users\me\OneDrive\Documents", 3, 0x10, "such as OneDrive"),
        (r"C:\Users\me\OneDrive - Contoso GmbH\x", 3, 0x10, "such as OneDrive"),
        (r"D:\Moved\cloud\x", 3, 0x10, "such as OneDrive"),
        (r"C:\Users\onedriver\x", 3, 0x10, None),
        ("pool", 3, 0x10, "no whole path of Windows"),
    ],
)
def test_where_a_pool_cannot_live_is_said_in_words(path: str, drive: int, attributes: int, words: str | None) -> None:
    found = paths.why_no_pool(path, drive, attributes, ["d:\\moved\\Cloud", "", "off", "s3cr3t", "\\"])

    assert (found is None) if words is None else (found is not None and words in found)
