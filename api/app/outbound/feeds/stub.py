"""A news site, played: `news.example`, whose feed says the same every night, with three articles.

The name is one that nobody can have (RFC 2606). The feed knows its `ETag`, so who asks again hears that nothing is new.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

HOST = "news.example"
FEED = f"http://{HOST}/feed.xml"

ETAG = '"stub-1"'
ARTICLES = (
    (
        "The lighthouse has a new lamp",
        "After forty years the lamp of the lighthouse was changed last night.",
        "It took two people and a rope. The old lamp, which weighs as much as a piano, is now in the museum of the "
        "harbour, where children may switch it on. Ships report that the light is seen five miles further out.",
    ),
    (
        "Bakers agree on the shape of bread",
        "The bakers of the town have met for three days.",
        "Round it is, they say, because a round loaf stays fresh for a day longer. Only the baker of the station "
        "holds that travellers want it long. He may keep his shape, as long as he writes the reason on the bag.",
    ),
    (
        "A library that lends seeds",
        "Since Monday the library lends more than books.",
        "Whoever takes a bag of seeds in spring brings one back in autumn. Beans are the most popular, and the "
        "librarian has put up a shelf for what grows out of mistakes.",
    ),
)
"""Title, summary, and what the article says further."""


async def send_feed(request: Request) -> Response:
    if request.headers.get("If-None-Match") == ETAG:
        return Response(status_code=304, headers={"ETag": ETAG})
    items = "".join(
        f"<item><title>{title}</title><link>/articles/{number}</link><guid>stub-{number}</guid>"
        f"<description>{summary}</description></item>"
        for number, (title, summary, _) in enumerate(ARTICLES, start=1)
    )
    feed = f'<?xml version="1.0"?><rss version="2.0"><channel><title>News [stub]</title>{items}</channel></rss>'
    return Response(feed, media_type="application/rss+xml", headers={"ETag": ETAG})


async def send_article(request: Request) -> Response:
    number = request.path_params["number"]
    if not 1 <= number <= len(ARTICLES):
        return Response(status_code=404)
    title, summary, rest = ARTICLES[number - 1]
    return HTMLResponse(
        f"<!doctype html><html lang=en><title>{title}</title><article><h1>{title}</h1>"
        f"<p>{summary} {rest} [stub]</p></article></html>"
    )


stub = Starlette(routes=[Route("/feed.xml", send_feed), Route("/articles/{number:int}", send_article)])
