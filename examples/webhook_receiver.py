"""Receive webhooks of Runledger: WEBHOOK_SECRET=whsec_… uvicorn --app-dir examples webhook_receiver:app --port 9000"""

import os
import sqlite3

from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
database = sqlite3.connect(os.environ.get("WEBHOOK_DATABASE", "webhooks.db"))
database.execute("CREATE TABLE IF NOT EXISTS ended_runs (webhook_id TEXT PRIMARY KEY, run_id TEXT, state TEXT)")
app = FastAPI()


@app.post("/hooks")
async def receive(request: Request) -> Response:
    # The bytes as they came: JSON that was read and written again has another signature.
    body = await request.body()
    try:
        event = webhook.verify(body, dict(request.headers))
    except (WebhookVerificationError, ValueError):  # the latter for what is no signature, or no JSON, at all
        return Response(status_code=401)
    with database:
        # An event may come twice. The effect, and the note that it was done, are one transaction.
        database.execute(
            "INSERT INTO ended_runs VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (request.headers["webhook-id"], event["data"]["id"], event["data"]["state"]),
        )
    return Response(status_code=200)
