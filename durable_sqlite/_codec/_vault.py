"""The envelope: what happens to encoded bytes on their way into the journal and out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..errors import PayloadTooLarge, Undecodable, Unstorable

__all__ = ["Codec", "Vault"]


class Codec(Protocol):
    """Turns encoded bytes into stored bytes and back: compression, encryption. It sees every value and every error.

    A journal keeps the name of its codec: an engine with another codec does not drive it.
    """

    @property
    def name(self) -> str:
        """The name that is stored with the journal; a new name where `decode` would no longer read old bytes."""
        ...

    def encode(self, data: bytes, /) -> bytes:
        """Turn UTF-8 JSON into what is stored."""
        ...

    def decode(self, data: bytes, /) -> bytes:
        """Turn what is stored back into the JSON that `encode` was given; raise where that cannot be done."""
        ...


class Vault:
    """Seals encoded bytes for storage and opens them again.

    Args:
        codec: The hook of the application, or None.
        payload_limit: The largest number of bytes of one encoded value, before the codec sees it.
    """

    def __init__(self, codec: Codec | None, payload_limit: int) -> None:
        self._codec = codec
        self._limit = payload_limit

    def seal(self, data: bytes, where: str) -> bytes:
        """The bytes to be stored for encoded bytes.

        Raises:
            PayloadTooLarge: There are more than `payload_limit` encoded bytes.
            Unstorable: The codec failed.
        """
        self.check(data, where)
        return self._encoded(data, where)

    def check(self, data: bytes, where: str) -> None:
        """Refuse encoded bytes that are too many, before anything is done with them.

        Raises:
            PayloadTooLarge: There are more than `payload_limit` encoded bytes.
        """
        if len(data) > self._limit:
            raise PayloadTooLarge(
                f"{where}: {len(data):,} bytes of JSON are more than the {self._limit:,} that `payload_limit` allows; "
                f"keep large data in a file or a table and pass its name, or raise Engine(payload_limit=…)"
            )

    def seal_up(self, items: Sequence[bytes], where: str) -> tuple[bytes, int]:
        """As many of these encoded values as there is room for, sealed as one JSON array; and how many."""
        size, count = 1, 0
        for item in items:
            size += len(item) + 1
            if count and size > self._limit:
                break
            count += 1
        # One item alone may be as large as allowed, and the brackets are not its fault.
        return self._encoded(b"[" + b",".join(items[:count]) + b"]", where), count

    def seal_error(self, data: bytes, where: str) -> bytes:
        """The bytes to be stored for a described error: its size has a bound of its own, and it must be recorded anyhow.

        Raises:
            Unstorable: The codec failed.
        """
        return self._encoded(data, where)

    def _encoded(self, data: bytes, where: str) -> bytes:
        if self._codec is None:
            return data
        try:
            return self._codec.encode(data)
        except Exception as error:
            raise Unstorable(f"{where}: the codec {self._codec.name!r} could not encode: {_said(error)}") from error

    def open(self, data: bytes, where: str) -> bytes:
        """The encoded bytes that were sealed.

        Raises:
            Undecodable: The codec could not read them: another key or version of it wrote them, or they are damaged.
        """
        if self._codec is None:
            return data
        try:
            return self._codec.decode(data)
        except Exception as error:
            raise Undecodable(
                f"{where}: the codec {self._codec.name!r} could not decode what is stored: {_said(error)}; "
                f"open the engine with the codec and the key that wrote it"
            ) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
