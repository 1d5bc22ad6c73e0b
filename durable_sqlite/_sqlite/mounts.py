"""Finds out whether a folder is on a network file system, where SQLite's WAL does not work.

The WAL needs memory that all who have the file open share, and locks that all of them see; over a network neither can be
relied on, and what is lost that way is lost silently.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["file_system_of", "find", "find_network", "is_network", "listed_by_mount", "listed_in_mountinfo"]

_NETWORK = frozenset(
    {
        "9p",
        "acfs",
        "afp",
        "afpfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "cvmfs",
        "davfs",
        "drvfs",
        "fhgfs",
        "ftp",
        "gfs2",
    }
    | {
        "glusterfs",
        "gpfs",
        "kafs",
        "lustre",
        "ncp",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "prl_fs",
        "pvfs2",
    }
    | {"smb", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "webdav", "wekafs"}
)
"""Kept on another machine, or outside of this virtual one: not all who have the file open share memory."""

_NETWORK_FUSE = frozenset(
    {
        "blobfuse",
        "blobfuse2",
        "ceph",
        "ceph-fuse",
        "cifs",
        "curlftpfs",
        "davfs",
        "davfs2",
        "gcsfuse",
        "glusterfs",
        "goofys",
    }
    | {
        "grpcfuse",
        "hdfs",
        "juicefs",
        "mfs",
        "moosefs",
        "mount-s3",
        "mountpoint-s3",
        "nfs",
        "onedriver",
        "osxfs",
        "rclone",
    }
    | {"s3fs", "s3ql", "seaweedfs", "smb", "smbnetfs", "sshfs", "vmhgfs-fuse", "webdavfs"}
)

_OCTAL = re.compile(r"\\([0-7]{3})")
_BY_MOUNT = re.compile(r"^.+? on (?P<point>/.*) \((?P<type>[^(),]+)[^()]*\)$", re.MULTILINE)
_PATIENCE = 5.0  # seconds that the listing of mounts may take


def is_network(file_system: str) -> bool:
    """Whether a type of file system, as the system names it, keeps its files on another machine, or outside of this one."""
    kind, _, of = file_system.lower().partition(".")
    return kind in _NETWORK or (kind in ("fuse", "macfuse", "osxfuse") and of in _NETWORK_FUSE)


def listed_in_mountinfo(text: str) -> Iterator[tuple[str, str]]:
    """Mount points and types in Linux's `/proc/self/mountinfo`, in its order."""
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if separator and len(fields) > 4 and kinds[0]:  # noqa: PLR2004 - the fifth field is the mount point
            yield _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4]), kinds[0]


def listed_by_mount(text: str) -> Iterator[tuple[str, str]]:
    """Mount points and types in what `mount` prints on macOS and the BSDs, in its order."""
    for found in _BY_MOUNT.finditer(text):
        yield found["point"], found["type"]


def file_system_of(folder: str, mounts: Iterator[tuple[str, str]]) -> str | None:
    """The type of the file system that a folder is on, or None if that is not listed."""
    best: tuple[str, str] | None = None
    for point, kind in mounts:
        beyond = point.rstrip("/")
        # Of two on the same point, the later one hides the earlier one.
        if (folder == point or folder.startswith(f"{beyond}/")) and (best is None or len(point) >= len(best[0])):
            best = (point, kind)
    return None if best is None else best[1]


def find_network(path: str) -> str | None:
    """The type of the network file system that a file is on, or would be; None if it is on none, or nobody knows."""
    kind = find(path)
    return kind if kind is not None and is_network(kind) else None


def find(path: str) -> str | None:
    """The type of the file system that a file is on, or would be; None if nobody knows."""
    try:
        return file_system_of(os.path.realpath(Path(path).parent), _mounts())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _mounts() -> Iterator[tuple[str, str]]:
    if sys.platform == "darwin":
        done = subprocess.run(["/sbin/mount"], capture_output=True, timeout=_PATIENCE, check=True)
        return listed_by_mount(os.fsdecode(done.stdout))
    return listed_in_mountinfo(os.fsdecode(Path("/proc/self/mountinfo").read_bytes()))
