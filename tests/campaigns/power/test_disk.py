"""What a power cut may leave of files, and what it may not: if this were too kind, nothing would be found."""

from __future__ import annotations

from random import Random

from .disk import Disk
from .tape import FolderSync, Link, Op, Sync, Tape, Truncate, Unlink, Write

_OLD, _NEW, _NEWER = b"o" * 8192, b"n" * 8192, b"m" * 8192


def left(*ops: Op, start: dict[str, bytes] | None = None, tries: int = 400) -> list[dict[str, bytes]]:
    """What cuts after these operations leave, by chance."""
    files = {"db": _OLD} if start is None else start
    disk = Disk(Tape(files, (), {name: number for number, name in enumerate(files, 1)}, "full", "3.0", list(ops)))
    disk.play(len(ops))
    return [disk.cut(Random(seed)) for seed in range(tries)]


def of_db(images: list[dict[str, bytes]]) -> set[bytes]:
    return {image["db"] for image in images}


def test_what_was_synced_is_there() -> None:
    assert of_db(left(Write(1, 0, _NEW), Sync(1, 1))) == {_NEW}
    assert of_db(left(Truncate(1, 100), Sync(1, 1))) == {_OLD[:100]}
    assert of_db(left(Write(1, 0, _NEW), Sync(1, 1), Write(1, 0, _NEWER), Sync(1, 3))) == {_NEWER}


def test_what_was_written_while_a_sync_was_under_way_may_be_missing() -> None:
    assert {_OLD, _NEW} <= of_db(left(Write(1, 0, _NEW), Sync(1, 0)))


def test_what_was_not_synced_may_be_there_or_not_or_in_part_but_a_sector_is_whole() -> None:
    images = of_db(left(Write(1, 0, _NEW)))
    assert {_OLD, _NEW} < images
    for image in images:
        assert all(len(set(image[at : at + 512])) == 1 for at in range(0, 8192, 512))
    small = [image for image in images if image[:512] != image[512:1024]]
    assert small, "no sector of 512 bytes was torn from its neighbour"


def test_bytes_beside_those_that_are_written_stay() -> None:
    for image in of_db(left(Write(1, 300, b"n" * 1000))):
        assert image[:300] + image[1300:] == _OLD[:300] + _OLD[1300:]


def test_of_two_changes_the_first_may_be_the_last() -> None:
    assert {_OLD, _NEW, _NEWER} < of_db(left(Write(1, 0, _NEW), Write(1, 0, _NEWER)))
    assert _OLD[:100] + bytes(8092) + _NEW in of_db(left(Write(1, 8192, _NEW), Truncate(1, 100)))


def test_a_later_file_may_be_there_and_an_earlier_one_not() -> None:
    images = left(Write(1, 0, _NEW), Write(2, 0, _NEW), start={"db": _OLD, "wal": _OLD})
    assert {"db": _OLD, "wal": _NEW} in images
    assert {"db": _NEW, "wal": _OLD} in images


def test_a_size_may_be_lost_or_be_there_without_what_was_written() -> None:
    images = of_db(left(Write(1, 8192, _NEW)))
    assert {_OLD, _OLD + _NEW} <= images
    assert any(len(image) > 8192 and set(image[8192:]) == {0} for image in images)
    assert any(len(set(image[8192:])) > 2 for image in images), "nothing but zeros and what was written is ever there"
    assert {_OLD, _OLD[:100]} <= of_db(left(Truncate(1, 100)))


def test_a_name_may_be_missing_until_the_folder_was_synced() -> None:
    made = (Link("wal", 2), Write(2, 0, b"w"), Sync(2, 2))
    assert {"wal" in image for image in left(*made)} == {True, False}
    assert {image.get("wal") for image in left(*made, FolderSync(3))} == {b"w"}


def test_a_file_that_was_removed_may_be_back_with_what_it_held() -> None:
    start = {"db": _OLD, "journal": b"j"}
    assert {image.get("journal") for image in left(Unlink("journal"), start=start)} == {None, b"j"}
    assert {image.get("journal") for image in left(Unlink("journal"), FolderSync(1), start=start)} == {None}
    again = left(Unlink("journal"), Link("journal", 3), start=start)
    assert {image.get("journal") for image in again} == {None, b"j", b""}
