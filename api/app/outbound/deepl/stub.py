"""DeepL, played: `POST /v2/translate` gives each text back, marked with the language it would be in: `[fr] …`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def translate(request: Request) -> Response:
    asked = await request.json()
    language = asked["target_lang"].partition("-")[0].lower()
    translations = [
        {
            "detected_source_language": asked["source_lang"],
            "text": f"[{language}] {text}",
            "billed_characters": len(text),
        }
        for text in asked["text"]
    ]
    return JSONResponse({"translations": translations})


stub = Starlette(routes=[Route("/v2/translate", translate, methods=["POST"])])
