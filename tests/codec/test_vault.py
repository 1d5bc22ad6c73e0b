"""The envelope: a limit before, the application's codec around."""

from __future__ import annotations

import zlib

import pytest

from durable_sqlite._codec import Codec, Vault
from durable_sqlite.errors import PayloadTooLarge, Undecodable, Unstorable


class Zip:
    name = "zip"

    def encode(self, data: bytes, /) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes, /) -> bytes:
        return zlib.decompress(data)


class Locked(Zip):
    name = "locked"

    def encode(self, data: bytes, /) -> bytes:
        raise OSError("no key")


def test_what_was_sealed_can_be_opened() -> None:
    codecs: list[Codec | None] = [None, Zip()]
    for codec in codecs:
        vault = Vault(codec, 1000)
        assert vault.open(vault.seal(b'{"a":1}', "w"), "w") == b'{"a":1}'
    assert Vault(None, 10).seal(b"[1]", "w") == b"[1]"
    assert Vault(Zip(), 1000).seal(b"a" * 1000, "w") == zlib.compress(b"a" * 1000)


def test_the_limit_is_on_the_encoded_bytes_and_says_which_option_raises_it() -> None:
    with pytest.raises(PayloadTooLarge, match=r"^step a#1: 1,001 bytes .* 1,000 that `payload_limit` allows"):
        Vault(Zip(), 1000).seal(b"a" * 1001, "step a#1")


def test_a_codec_that_cannot_read_is_named() -> None:
    with pytest.raises(Undecodable, match=r"^step a#1: the codec 'zip' could not decode .*error.*wrote it"):
        Vault(Zip(), 1000).open(b"not compressed", "step a#1")


def test_a_codec_that_cannot_write_is_named() -> None:
    with pytest.raises(Unstorable, match=r"^step a#1: the codec 'locked' could not encode: OSError: no key"):
        Vault(Locked(), 1000).seal(b"a", "step a#1")
