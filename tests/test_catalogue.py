"""The table of actions that is committed is the code's."""

from __future__ import annotations

import pytest

from app.catalogue import table
from app.config import ROOT
from app.routers.actions import example_of
from app.tasks import action, procrastinate_app


def test_the_committed_table_is_the_code_s() -> None:
    committed = (ROOT / "docs/reference/actions.md").read_text()
    assert committed == table(procrastinate_app, action), "Run `make openapi`."


def test_it_has_a_row_for_every_action_with_what_it_promises() -> None:
    rows = {row.split(" | ")[0].strip("| `"): row for row in table(procrastinate_app, action).splitlines()[7:]}
    assert rows.keys() == set(action)
    assert "| `url` | ScrapedPage | `default` | 5 |" in rows["scrape_page"]
    assert "`17 3 * * *` UTC" in rows["prune_ledger"]


@pytest.mark.parametrize("name", sorted(action))
def test_every_action_has_an_example_that_fits(name: str) -> None:
    action[name].check(example_of(action[name].input))
