"""Gemini, played: `generateContent` answers with a hum, as long as the text would take to say."""

from __future__ import annotations

import base64
import math
import struct

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

RATE = 8_000
CHARACTERS_A_SECOND = 15
HERTZ = 220
LOUDNESS = 3_000


async def generate_content(request: Request) -> Response:
    asked = await request.json()
    text = "".join(part["text"] for content in asked["contents"] for part in content["parts"])
    data = base64.b64encode(_hum(len(text) / CHARACTERS_A_SECOND)).decode()
    part = {"inlineData": {"mimeType": f"audio/L16;codec=pcm;rate={RATE}", "data": data}}
    return JSONResponse({"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}]})


def _hum(seconds: float) -> bytes:
    samples = [round(LOUDNESS * math.sin(math.tau * HERTZ * n / RATE)) for n in range(round(seconds * RATE))]
    return struct.pack(f"<{len(samples)}h", *samples)


stub = Starlette(routes=[Route("/{version}/models/{model}", generate_content, methods=["POST"])])
