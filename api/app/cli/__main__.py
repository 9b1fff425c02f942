"""`python -m app.cli` is `runledger`."""

from __future__ import annotations

from app.cli import main

main()
