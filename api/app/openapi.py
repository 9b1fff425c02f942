"""The API's OpenAPI document, and the list of what it promises.

`python -m app.openapi` prints the document; `python -m app.openapi FILE` adds what is new to the list of promises in
the file, which no command takes anything away from.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from app.main import create_app
from app.routers.promises import promises


def document() -> str:
    """The OpenAPI document as it is committed in docs/reference/openapi.json."""
    return json.dumps(create_app().openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Print the document, or add to the list of promises."""
    if len(sys.argv) == 1:
        sys.stdout.write(document())
        return
    file = Path(sys.argv[1])
    kept = set(file.read_text().splitlines()) if file.exists() else set[str]()
    file.write_text("\n".join(sorted(kept | promises(json.loads(document())))) + "\n")


if __name__ == "__main__":
    main()
