"""Runledger from Python: submit an action, watch its run, get its result.

::

    async with Client("http://127.0.0.1:8000") as client:
        run = await client.submit("count_words", {"text": "to be or not to be"})
        async for event in client.stream(run.id):
            print(event.type, event.data)
        print(await client.result(run.id))

It needs httpx2 and pydantic, and nothing of the app.
"""

from runledger_client.client import Client
from runledger_client.errors import ClientError, NotRunledger, Refused, RunFailed, TryLater, Unreachable
from runledger_client.models import Event, Fault, Page, Problem, Progress, Reason, Run, Signal
from runledger_client.requests import RunOptions

__all__ = [
    "Client",
    "ClientError",
    "Event",
    "Fault",
    "NotRunledger",
    "Page",
    "Problem",
    "Progress",
    "Reason",
    "Refused",
    "Run",
    "RunFailed",
    "RunOptions",
    "Signal",
    "TryLater",
    "Unreachable",
]
