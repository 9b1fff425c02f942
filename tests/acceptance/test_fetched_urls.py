"""In production a URL that leads into our own network is refused where it is given, and nothing of it is stored."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from tests.support.processes import api_process
from tests.support.workshop import Workshop

KEY = base64.urlsafe_b64encode(bytes(32)).decode()
SECRET = "the secret of the machines, long enough"
URLS = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://[::1]/",
    "http://[::]/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "file:///etc/passwd",
    "gopher://x/",
    "ftp://x/",
    "javascript:1",
    "http://api:8000/runs",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25eth0]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://①②⑦.⓪.⓪.①/",
    "http://user:pw-c4n4ry@example.com/",
    "http://exa%0d%0ample.com/",
    "http://x.example:22/",
    "http://x.example:6379/",
    "http://x.example/" + "a" * 2048,
]
"""Names are not among them: where one leads is seen when it is looked up, and then nothing is sent there."""


PLACES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "/params/url of a page": ("/runs", lambda url: {"action": "scrape_page", "params": {"url": url}}),
    "/params/url of a site": ("/runs", lambda url: {"action": "scrape_site", "params": {"url": url}}),
    # Of http every webhook is refused.
    "/url of a webhook": ("/webhooks", lambda url: {"url": url.replace("http://", "https://")}),
}
"""Where a URL is given, and how."""


async def test_a_url_that_leads_into_our_own_network_is_422(workshop: Workshop, tmp_path: Path) -> None:
    settings = workshop.settings.model_copy(update={"environment": "production"})
    log = tmp_path / "log"
    async with (
        api_process(settings, log, ROADMAP_AI_SECRET=SECRET, WEBHOOK_KEY=KEY) as (url, _),
        httpx2.AsyncClient(base_url=url, headers={"x-roadmap-ai-secret": SECRET}, trust_env=False) as api,
    ):
        for place, (path, body) in PLACES.items():
            told = {each: await api.post(path, json=body(each)) for each in URLS}
            assert {each: answer.text for each, answer in told.items() if answer.status_code != 422} == {}, place
            assert {answer.json()["errors"][0]["pointer"] for answer in told.values()} == {place.split()[0]}
            assert not any("c4n4ry" in answer.text for answer in told.values())
            assert (await api.post(path, json=body("https://example.com/"))).status_code in (201, 202), place
    assert "c4n4ry" not in log.read_text()
    assert await workshop.value("SELECT count(*) FROM action_runs") == 2
    assert await workshop.value("SELECT count(*) FROM webhook_endpoints") == 1
