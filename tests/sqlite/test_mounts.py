"""A journal on a network file system is refused; what the system says of its mounts is read, and never needed."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from durable_sqlite import Engine
from durable_sqlite._sqlite import mounts
from durable_sqlite._sqlite.mounts import file_system_of, find_network, is_network, listed_by_mount, listed_in_mountinfo
from durable_sqlite.errors import JournalError

LINUX = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
23 22 0:21 / /proc rw,relatime - proc proc rw
30 22 0:31 / /srv rw,relatime shared:7 master:3 - nfs4 host:/srv rw,vers=4.2
31 30 0:32 / /srv/local\040disk rw,relatime - xfs /dev/vdb rw
32 22 0:33 / /home rw,relatime - autofs /etc/auto.home rw
33 32 0:34 / /home rw,relatime - fuse.sshfs ada@host: rw
34 22 254:0 /data /mnt/bound rw,relatime - ext4 /dev/vda rw
a line that is cut
"""

MACOS = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
//ada@host/share on /Volumes/the (old) share (smbfs, nodev, nosuid, mounted by ada)
/dev/disk5s1 on /Volumes/stick (msdos, local, nodev)
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/app", "nfs4"),
        ("/srv/local disk/app", "xfs"),
        ("/srvice", "ext4"),
        ("/home/ada", "fuse.sshfs"),  # the later of two mounts on one point hides the earlier
        ("/mnt/bound", "ext4"),
    ],
)
def test_the_longest_mount_point_on_the_way_decides(folder: str, kind: str) -> None:
    assert file_system_of(folder, listed_in_mountinfo(LINUX)) == kind


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/Users/ada", "apfs"), ("/Volumes/the (old) share/x", "smbfs"), ("/Volumes/stick", "msdos")],
)
def test_what_mount_prints_is_read_as_well(folder: str, kind: str) -> None:
    assert file_system_of(folder, listed_by_mount(MACOS)) == kind


def test_where_nothing_is_listed_nothing_is_known() -> None:
    assert file_system_of("/somewhere", listed_in_mountinfo("")) is None


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "ceph",
        "lustre",
        "afs",
        "vboxsf",
        "virtiofs",
        "fuse.sshfs",
        "FUSE.rclone",
    ],
)
def test_these_are_network_file_systems(kind: str) -> None:
    assert is_network(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "apfs", "tmpfs", "overlay", "fuseblk", "fuse", "fuse.ntfs-3g"]
)
def test_these_are_not(kind: str) -> None:
    assert not is_network(kind)


def nowhere() -> Iterator[tuple[str, str]]:
    raise FileNotFoundError(2, "no such file", "/proc/self/mountinfo")


def stuck() -> Iterator[tuple[str, str]]:
    raise subprocess.TimeoutExpired("mount", 5)


@pytest.mark.parametrize("listing", [nowhere, stuck, lambda: iter(())])
def test_a_system_that_says_nothing_of_its_mounts_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: Any
) -> None:
    monkeypatch.setattr(mounts, "_mounts", listing)
    assert find_network(str(tmp_path / "j.db")) is None


def test_the_folder_is_looked_up_by_where_it_really_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    listing = [("/", "ext4"), (str(real.resolve()), "nfs")]
    monkeypatch.setattr(mounts, "_mounts", lambda: iter(listing))
    assert find_network(str(link / "j.db")) == "nfs"
    assert find_network(str(tmp_path / "j.db")) is None


def test_an_engine_refuses_a_network_file_system_before_it_creates_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_mounts", lambda: iter([("/", "nfs4")]))
    path = tmp_path / "j.db"

    async def main() -> None:
        with pytest.raises(JournalError, match=r"network file system \(nfs4\).*Engine\(network=True\)"):
            async with Engine(path):
                pass
        assert not os.path.lexists(path)  # noqa: ASYNC240 - nothing else is going on
        async with Engine(path, network=True):
            pass

    asyncio.run(main())
    assert path.exists()


def test_on_macos_the_listing_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, b"host:/x on / (nfs)\n", b"")

    monkeypatch.setattr("durable_sqlite._sqlite.mounts.sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr("durable_sqlite._sqlite.mounts.subprocess.run", run)
    assert find_network(str(tmp_path / "j.db")) == "nfs"
    assert asked == [["/sbin/mount"]]
