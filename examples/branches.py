"""Four cities at once. Kill it in the middle, start it again: each branch goes on with its own results."""

import asyncio
import sys

from pydantic import BaseModel

from durable_sqlite import Engine, step, workflow


class Forecast(BaseModel):
    city: str
    degrees: list[int]


@step
async def measure(city: str, hour: int) -> int:
    print(f"measuring {city} at {hour}", flush=True)
    await asyncio.sleep(0.1 * (1 + len(city) % 3))
    return len(city) + hour


@step
def render(forecast: Forecast) -> str:
    """A plain function: it runs in the engine's own threads."""
    sys.stdout.write(f"rendering {forecast.city}\n")  # one write: print() from several threads mixes its lines
    sys.stdout.flush()
    return f"{forecast.city} {max(forecast.degrees)}°"


async def observe(city: str) -> str:
    """A branch of several steps, written as an ordinary coroutine."""
    morning = await measure(city, 6)
    rest = await asyncio.gather(measure(city, 12), measure(city, 18))
    return await render(Forecast(city=city, degrees=[morning, *rest]))


@workflow
async def weather(cities: list[str]) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(observe(city)) for city in cities]
    return [task.result() for task in tasks]


async def main() -> None:
    async with Engine(sys.argv[1] if len(sys.argv) > 1 else "branches.db"):
        run = await weather.options(id="weather").start(["Oslo", "Accra", "Lima", "Hanoi"])
        print("today:", ", ".join(await run), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
