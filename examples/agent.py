"""An agent: a model is asked what to do, a tool does it, and so on until the model has an answer.

Each question to the model and each tool is a step. Kill it anywhere, start it again: nothing that was paid for is asked
again, and no tool that has an outcome is called again. The model here is a small rule; put your own client in its place.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from durable_sqlite import Engine, Retry, StepFailed, set_status, step, workflow

MOST_TURNS = 10


class Message(BaseModel):
    role: str
    text: str


class Action(BaseModel):
    """What the model wants: a tool with its argument, or to say its answer."""

    tool: str | None = None
    argument: str = ""
    answer: str = ""


@step(retry=Retry(max_attempts=5, initial_delay=0.1), timeout=60)
async def ask_model(messages: list[Message]) -> Action:
    print(f"asking the model with {len(messages)} messages", flush=True)
    await asyncio.sleep(0.2)
    told = {message.text.partition(": ")[0]: message.text.partition(": ")[2] for message in messages}
    if "weather" not in told:
        return Action(tool="weather", argument="Oslo")
    if "multiply" not in told:
        return Action(tool="multiply", argument=f"{told['weather'].removesuffix(' degrees')} 2")
    return Action(answer=f"twice as warm would be {told['multiply']} degrees")


@step
async def weather(city: str) -> str:
    print(f"calling the weather service for {city}", flush=True)
    await asyncio.sleep(0.2)
    return f"{len(city) + 17} degrees"


@step
async def multiply(numbers: str) -> str:
    print(f"multiplying {numbers}", flush=True)
    first, second = numbers.split()
    return str(int(first) * int(second))


TOOLS: dict[str, Callable[[str], Awaitable[str]]] = {"weather": weather, "multiply": multiply}


@workflow
async def agent(question: str) -> str:
    messages = [Message(role="user", text=question)]
    for turn in range(MOST_TURNS):
        set_status(f"turn {turn + 1}")
        action = await ask_model(messages)
        if action.tool is None:
            return action.answer
        try:
            result = await TOOLS[action.tool](action.argument)
        except (KeyError, StepFailed) as error:  # the model hears of it, and may try something else
            result = f"failed: {error}"
        messages.append(Message(role="tool", text=f"{action.tool}: {result}"))
    return "no answer"


async def main() -> None:
    async with Engine(sys.argv[1] if len(sys.argv) > 1 else "agent.db"):
        run = await agent.options(id="agent").start("How warm is twice as warm as Oslo?")
        print("answer:", await run, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
