"""Print the API's OpenAPI document: `python -m app.openapi`."""

from __future__ import annotations

import json
import sys

from app.main import create_app


def document() -> str:
    """The OpenAPI document as it is committed in docs/reference/openapi.json."""
    return json.dumps(create_app().openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
