"""Money moves between accounts. Kill it wherever you like, start it again: the sum stays, and nothing is booked twice.

The accounts live in the journal's own file. So a transfer's rows, its result and its journal entry are one commit.
"""

import asyncio
import sys
from pathlib import Path

from pydantic import BaseModel

from durable_sqlite import Engine, Tx, transaction, workflow

SCHEMA = Path(__file__).parent / "transfer_schema"  # numbered SQL files, applied when the engine opens


class Account(BaseModel):
    name: str
    cents: int


class NotEnough(Exception):
    """An answer, not a fault: it is recorded, and raised as itself on every replay."""


@transaction(raises=(NotEnough,))  # a plain function, on the journal's thread; its Tx is injected
def transfer(tx: Tx, debit: str, credit: str, cents: int) -> int:
    account = tx.fetch_one(Account, "SELECT name, cents FROM accounts WHERE name = ?", (debit,))
    if account is None or account.cents < cents:
        raise NotEnough(debit, cents)  # undoes the rows of this transaction alone
    tx.execute("UPDATE accounts SET cents = cents - ? WHERE name = ?", (cents, debit))
    tx.execute("UPDATE accounts SET cents = cents + ? WHERE name = ?", (cents, credit))
    booked = tx.execute("INSERT INTO bookings (debit, credit, cents) VALUES (?, ?, ?)", (debit, credit, cents))
    print(f"booking {booked.lastrowid}: {cents} from {debit} to {credit}", flush=True)
    return booked.lastrowid or 0


@workflow
async def pass_on(cents: int) -> int:
    last = 0
    for debit, credit in (("ann", "bob"), ("bob", "cay"), ("cay", "ann")) * 3:
        try:
            last = await transfer(debit, credit, cents)
        except NotEnough:
            break
        await asyncio.sleep(0.2)
    return last


async def main() -> None:
    journal = sys.argv[1] if len(sys.argv) > 1 else "transfer.db"
    async with Engine(journal, schema=SCHEMA) as engine:
        print("last booking:", await (await pass_on.options(id="round").start(30)), flush=True)

        def accounts(tx: Tx) -> list[Account]:
            return tx.fetch_all(Account, "SELECT name, cents FROM accounts ORDER BY name")

        found = await engine.transact(accounts)  # outside a run, unrecorded
        print(", ".join(f"{account.name} {account.cents}" for account in found), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
