"""The journal in one SQLite file: the storage adapter behind the port."""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from .journal import SqliteJournal

__all__ = ["SqliteJournal"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the journal once it is asked for: the command line uses what lies beside it, and wants to be quick."""
        if name != "SqliteJournal":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .journal import SqliteJournal  # noqa: PLC0415

        return SqliteJournal
