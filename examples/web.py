"""Orders over HTTP: a request starts a run, others look at it and answer its question.

Needs `fastapi` and `uvicorn`: `uvicorn examples.web:app`. Kill it while an order waits, start it again: the order waits on.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from durable_sqlite import Engine, RunInfo, SignalRejected, Suspend, UnknownRun, step, workflow


class Order(BaseModel):
    item: str
    cents: int


class Decision(BaseModel):
    granted: bool
    by: str


class Review(Suspend[Decision], name="web-review"):
    order: Order


class State(BaseModel):
    id: str
    state: str
    status: str | None


@step
async def ship(order: Order) -> str:
    return f"{order.item} is on its way"


@workflow(name="web-order")
async def fulfil(order: Order) -> str:
    decision = await Review(order=order).wait(status="in review")
    return await ship(order) if decision.granted else f"refused by {decision.by}"


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with Engine(os.environ.get("ORDERS_DB", "web.db")):  # the only engine on this loop: handlers need not name it
        yield


app = FastAPI(lifespan=lifespan)


def shown(info: RunInfo) -> State:
    return State(id=info.id, state=info.state, status=info.status)


@app.put("/orders/{order_id}")  # the client chooses the id: asked twice, there is one run
async def start(order_id: str, order: Order) -> State:
    run = await fulfil.options(id=order_id).start(order)
    return shown(await run.info())


@app.get("/orders/{order_id}")
async def look(order_id: str) -> State:
    try:
        return shown(await fulfil.run(order_id).info())
    except UnknownRun as unknown:
        raise HTTPException(404, str(unknown)) from unknown


@app.post("/orders/{order_id}/review")
async def review(order_id: str, decision: Decision) -> State:
    run = fulfil.run(order_id)
    try:
        await run.answer(Review, decision, by=decision.by)
    except SignalRejected as refused:
        raise HTTPException(409, str(refused)) from refused
    return shown(await run.info())


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=8000)
