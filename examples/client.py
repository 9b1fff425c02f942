"""Submit a run from Python and watch it, while `make up` runs: python examples/client.py [URL]"""

import asyncio
import sys

from runledger_client import Client, RunFailed


async def main(url: str = "http://127.0.0.1:8000") -> None:
    async with Client(url) as client:
        run = await client.submit("count_words", {"text": "to be or not to be"}, tags=["example"])
        async for event in client.stream(run.id):
            if event.type == "progress":
                print(event.data["message"])
        try:
            print(await client.result(run.id))
        except RunFailed as failed:
            print(failed)


asyncio.run(main(*sys.argv[1:]))
