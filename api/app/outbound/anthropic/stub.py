"""Anthropic, played: `POST /v1/messages` answers with data that fits the schema, the same for the same question.

Its texts are small stories, and say that they are invented: `[stub 3fa9]`. What asks another vendor's stub for trouble
is said again, so that a service that is given the text is asked.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.outbound.stubs import TROUBLE

SHORT = 300
"""A string that may not be longer than this is one sentence; any other is a paragraph."""
SENTENCES = 4
ITEMS = 3
"""Of a list that may have so many."""

WHO = (
    "The old sailor",
    "A small fox",
    "The baker's daughter",
    "Your friend Ana",
    "A man with a red hat",
    "The librarian",
)
DOES = ("opens", "finds", "follows", "remembers", "hides", "draws", "sells")
WHAT = (
    "a blue door",
    "the last map",
    "a letter without a name",
    "the bread of yesterday",
    "a key of glass",
    "the music",
)
WHERE = ("by the river", "behind the market", "in the quiet house", "on the night train", "under the bridge", "at sea")


async def create_message(request: Request) -> Response:
    asked = await request.json()
    prompt = asked["messages"][-1]["content"]
    mark = hashlib.sha256(f"{asked.get('system')}\n{prompt}".encode()).hexdigest()[:4]
    said = " ".join(trouble[0] for trouble in TROUBLE.finditer(prompt) if trouble["vendor"])
    schema = asked["output_config"]["format"]["schema"]
    text = json.dumps(Inventor(schema, mark, said).invent(schema))
    return JSONResponse(
        {
            "id": f"msg_stub_{mark}",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": len(prompt) // 4, "output_tokens": len(text) // 4},
        }
    )


class Inventor:
    """Makes up values for a schema, as the library sends it: what the API cannot check is in its descriptions."""

    def __init__(self, root: dict[str, Any], mark: str, said: str) -> None:
        self._definitions = root.get("$defs", {})
        self._dice = random.Random(mark)
        self._mark = mark
        self._said = said

    def invent(self, schema: dict[str, Any]) -> Any:
        match schema:
            case {"$ref": str(name)}:
                return self.invent(self._definitions[name.rpartition("/")[2]])
            case {"const": value}:
                return value
            case {"enum": list(values)}:
                return self._dice.choice(values)
            case {"anyOf": [first, *_]}:
                return self.invent(first)
            case {"type": "object"}:
                return {name: self.invent(each) for name, each in schema["properties"].items()}
            case {"type": "array"}:
                low, high = _limit(schema, "minItems", 0), _limit(schema, "maxItems", ITEMS)
                return [self.invent(schema["items"]) for _ in range(max(low, min(high, ITEMS)))]
            case {"type": "string"}:
                return self._text(_limit(schema, "maxLength", SHORT + 1))
            case {"type": "integer" | "number"}:
                low = _limit(schema, "minimum", 0)
                return self._dice.randint(low, _limit(schema, "maximum", low + 10))
            case {"type": "boolean"}:
                return self._dice.random() < 0.5
            case _:
                return None

    def _text(self, longest: int) -> str:
        if longest <= SHORT:
            return f"{self._sentence()} [stub {self._mark}]"[:longest]
        sentences = " ".join(self._sentence() for _ in range(SENTENCES))
        return " ".join(filter(None, (sentences, f"[stub {self._mark}]", self._said)))[:longest]

    def _sentence(self) -> str:
        return " ".join(self._dice.choice(words) for words in (WHO, DOES, WHAT, WHERE)) + "."


def _limit(schema: dict[str, Any], name: str, otherwise: int) -> int:
    said = re.search(rf"\b{name}: (-?\d+)", schema.get("description", ""))
    return int(said[1]) if said else schema.get(name, otherwise)


stub = Starlette(routes=[Route("/v1/messages", create_message, methods=["POST"])])
