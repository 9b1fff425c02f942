"""What a digest is made of."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel

from app.domain.mail.message import MailSent
from app.domain.scraping.address import canonical
from app.outbound.web.page import Validators


def one_line(text: str) -> str:
    """The text in one line, without what no reader sees and some mail servers choke on."""
    return "".join(letter for letter in " ".join(text.split()) if unicodedata.category(letter) not in ("Cc", "Cs"))


Line = Annotated[str, AfterValidator(one_line)]


class Article(BaseModel):
    """An article, as a feed tells of it."""

    link: str
    """Absolute, http or https."""
    title: Line
    source: Line
    """The title of the feed."""
    published: datetime | None
    """`None`: the feed does not say, or says that it will be."""
    summary: Line
    """Up to 2,000 characters; empty if there is none."""

    @property
    def id(self) -> str:
        """The same for each spelling of its link, in whatever feed."""
        return hashlib.sha256(canonical(self.link).encode()).hexdigest()[:32]


class Item(BaseModel):
    """An article in a digest."""

    title: Line
    link: str
    source: Line
    published: datetime | None
    summary: Line


class FeedReport(BaseModel):
    """What became of a feed."""

    url: str
    articles: int
    """How many of its articles no digest had."""
    problem: str | None
    """Why it could not be read, if it could not."""


class Digest(BaseModel):
    """What a night's run came to."""

    night: date
    outcome: Literal["made", "made_before", "nothing_new", "no_feeds"]
    """`made_before`: the night's digest was there, and is told again, but not mailed again."""
    title: Line = ""
    summary: Line = ""
    items: list[Item] = []
    """The newest first."""
    passed_over: int = 0
    """New articles that there was no room for. No later digest has them."""
    feeds: list[FeedReport] = []
    mail: MailSent | None = None
    """`None`: nobody was to get it."""


class Shelf(Protocol):
    """Where digests are kept, and what feeds have said."""

    async def get_digest(self, night: date) -> Mapping[str, Any] | None:
        """The digest of a night: what a `Digest` is made of, and the `run_id` of who has made it."""
        ...

    async def get_validators(self, feed: str) -> Validators | None:
        """By what a feed can be asked whether it has changed since it was last part of a digest."""
        ...

    async def list_new(self, articles: Sequence[str]) -> set[str]:
        """Those of these ids that no digest had."""
        ...

    async def put_digest(
        self,
        night: date,
        run_id: str,
        *,
        digest: dict[str, Any],
        feeds: Sequence[dict[str, Any]],
        articles: Sequence[str],
    ) -> None:
        """Store a digest, and with it what `put_feeds` does, unless there is one of that night."""
        ...

    async def put_feeds(self, feeds: Sequence[dict[str, Any]]) -> None:
        """Remember how it went with feeds: `url`, `problem`; `validators` and `listed` unless they are the same."""
        ...
