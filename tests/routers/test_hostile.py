"""Bytes that no client would send, over a socket to the API as it runs in production: a clear answer, nothing stored,
nothing told, and the server goes on. Rows of one number are neighbours of one kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import api_process
from tests.support.wire import Answer, request, send
from tests.support.workshop import Workshop

CANARY = "c4n4ry"
SECRET = "s3cr3t-s3cr3t-s3cr3t"
WITH_SECRET = f"X-ROADMAP-AI-SECRET: {SECRET}"
JSON = "Content-Type: application/json"
OK = json.dumps({"action": "echo", "params": {"message": CANARY}}).encode()


@dataclass(frozen=True)
class Row:
    """What is sent, and what may come back. Status 0: the connection is closed without an answer."""

    name: str
    sent: bytes
    status: int | tuple[int, ...]
    headers: dict[str, str] = field(default_factory=dict[str, str])
    says: str = ""

    @property
    def statuses(self) -> tuple[int, ...]:
        return self.status if isinstance(self.status, tuple) else (self.status,)


def get(target: str, *headers: str, **options: str | None) -> bytes:
    return request("GET", target, WITH_SECRET, *headers, **options)


def post(body: bytes | str, *headers: str, target: str = "/runs") -> bytes:
    sent = body if isinstance(body, bytes) else body.encode()
    return request("POST", target, WITH_SECRET, *(headers or (JSON,)), body=sent)


def submit(**fields: object) -> bytes:
    return post(json.dumps({"action": "echo", "params": {"message": CANARY}} | fields))


def params(raw: bytes | str) -> bytes:
    """A submission whose params are these bytes."""
    sent = raw if isinstance(raw, bytes) else raw.encode()
    return post(b'{"action": "echo", "params": ' + sent + b"}")


def with_chunks(*chunks: bytes) -> bytes:
    return request("POST", "/runs", WITH_SECRET, JSON, "Transfer-Encoding: chunked") + b"".join(chunks)


def transport() -> Iterator[Row]:
    yield Row("B1 no Host", get("/runs", host=None), 400, says="Send a Host header")
    yield Row("B2 two Hosts", get("/runs", "Host: b"), 400)
    yield Row("B2 an empty Host", get("/runs", host=""), 400)
    yield Row("B2 a Host that is not one", get("/runs", host="a/b@c"), 400)
    yield Row(
        "B3 Content-Length and chunked", with_chunks().replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"), 400
    )
    yield Row("B4 two lengths", post(OK, JSON, "Content-Length: 3"), 400)
    yield Row("B5 a negative length", request("POST", "/runs", WITH_SECRET, JSON, "Content-Length: -1"), 400)
    yield Row("B5 a length with a sign", request("POST", "/runs", WITH_SECRET, JSON, "Content-Length: +1"), 400)
    yield Row("B7 unknown coding", request("POST", "/runs", WITH_SECRET, JSON, "Transfer-Encoding: xchunked"), 400)
    yield Row("B8 chunk size zz", with_chunks(b"zz\r\n"), 400)
    yield Row("B9 a line folded", get("/runs", "X-A: 1\r\n 2"), 400)
    yield Row("B10 a header of 100 kB", get("/runs", f"X-A: {CANARY * 17_000}"), 431, says="16384 bytes")
    yield Row("B10 headers of 17 kB", get("/runs", *(f"X-{n}: {'a' * 1000}" for n in range(17))), 431)
    yield Row("B10 headers of 15 kB are taken", get("/livez", *(f"X-{n}: {'a' * 1000}" for n in range(15))), 200)
    yield Row("B11 5,000 headers", get("/runs", *(f"X-{n}: 1" for n in range(5000))), 431)
    yield Row("B12 a URL of 9 kB", get("/runs?tag=" + "a" * 9000), 414)
    yield Row("B13 NUL in a header", get("/runs", "X-A: a\x00b"), 400)
    yield Row("B16 method FOO", request("FOO", "/runs"), 400)
    yield Row("B16 no method", b"\r\n\r\n \r\n\r\n", 400)
    yield Row("B17 TRACE", request("TRACE", "/runs", WITH_SECRET), 405)
    yield Row("B17 CONNECT", request("CONNECT", "evil.example:443", host="evil.example:443"), 400)
    yield Row("B18 PUT", request("PUT", "/runs", WITH_SECRET, JSON, body=OK), 405)
    yield Row("B19 HTTP/9.9", get("/runs").replace(b"HTTP/1.1", b"HTTP/9.9"), 400)
    yield Row("B20 TLS", bytes.fromhex("160301020001000001fc0303") + b"a" * 500, 400)
    yield Row("B21 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400)
    yield Row("B22 absolute form, another host", get("http://evil.example/runs"), 400, says="another host")
    yield Row("B22 absolute form, the same host", get("http://127.0.0.1/livez"), 200)
    yield Row("B23 a foreign Host", get("/runs", host="evil.example"), 400, says="ALLOWED_HOSTS")
    yield Row("B25 dot segments", get("/runs/../../etc/passwd"), 404)
    yield Row("B26 encoded dot segments", get("/runs/%2e%2e%2f"), 404)
    yield Row("B26 a slash too much", get("/runs/"), 404)
    yield Row("B28 space before the colon", get("/runs", "X-A : 1"), 400)
    yield Row("B29 asks before it sends 101 MB", asking(101_000_000), 413)
    yield Row("B30 upgrade to websocket", get("/livez", "Upgrade: websocket", "Sec-WebSocket-Key: a"), 200)


def asking(length: int) -> bytes:
    return request("POST", "/runs", WITH_SECRET, JSON, f"Content-Length: {length}", "Expect: 100-continue")


def bodies() -> Iterator[Row]:
    yield Row("B31 half an object", post("{"), 400)
    yield Row("B32 trailing bytes", post(OK + b" x"), 400, says="trailing characters")
    yield Row("B33 no body", post(b""), 422)
    yield Row("B34 UTF-16", post(OK.decode().encode("utf-16")), 400)
    yield Row("B34 a byte order mark", post(b"\xef\xbb\xbf" + OK), 400)
    yield Row("B35 not UTF-8", post(b'"\xff\xfe"'), 400)
    yield Row("B36 not UTF-8 in a value", params(b'{"message": "\xff"}'), 400)
    yield Row("B37 a raw surrogate", post(b'{"action": "\xed\xa0\x80"}'), 400)
    yield Row("B38 half a surrogate pair", params(r'{"message": "\ud800"}'), 400)
    yield Row("B40 half a pair as a key", params(r'{"\udc00": 1}'), 400)
    yield Row("B41 NUL in a value", params(r'{"message": "a\u0000b"}'), 422, says="/params/message")
    yield Row("B43 NUL in a key", params(r'{"\u0000": 1}'), 422)
    yield Row("B43 NUL in the action", post(r'{"action": "\u0000"}'), 422, says="/action")
    yield Row("B44 a raw NUL", params(b'{"message": "\x00"}'), 400)
    for number, word in enumerate(("NaN", "Infinity", "-Infinity"), start=44):
        yield Row(f"B{number} {word}", params(f'{{"message": {word}}}'), 400)
    yield Row("B47 1e400", params('{"message": 1e400}'), 422, says="finite")
    yield Row("B48 2**63", params(f'{{"message": {2**63}}}'), 422, says="64 bits")
    yield Row("B49 priority 10**30", submit(priority=10**30), 422, says="/priority")
    yield Row("B50 5,000 digits", post('{"action": "echo", "priority": ' + "9" * 5000 + "}"), 400)
    yield Row("B52 priority true", submit(priority=True), 422, says="/priority")
    yield Row("B53 priority as text", submit(priority="1"), 422, says="/priority")
    yield Row("B54 priority 1.5", submit(priority=1.5), 422, says="/priority")
    yield Row("B55 nested 100 deep", params("[" * 100 + "]" * 100), 422, says="32 levels")
    yield Row("B55 nested 33 deep", post("[" * 33 + "]" * 33), 422, says="32 levels")
    yield Row("B56 nested 900 deep", params("[" * 900 + "]" * 900), 400)
    yield Row("B57 100,000 open brackets", post(b"[" * 100_000), 400)
    yield Row("B57 a million values", params("[" + "1," * 999_990 + "1]"), 422, says="100,000 values")
    yield Row("B57 half a million in a batch", post('{"runs": [' + "{}," * 500_000 + "{}]}", target="/runs/batch"),
              422, says="100,000 values")  # fmt: skip
    yield Row("B58 10 MB", post(b'"' + b"a" * 10_000_000 + b'"'), (413, 0))
    yield Row(
        "B59 3 MB in chunks", with_chunks(*[b"100000\r\n" + b"a" * 0x100000 + b"\r\n"] * 3, b"0\r\n\r\n"), (413, 0)
    )
    yield Row("B61 a key twice", post('{"action": "nothing", "action": "echo", "params": {"message": "x"}}'), 400,
              says="twice")  # fmt: skip
    yield Row("B61 a key twice, escaped", params(r'{"message": "x", "m\u0065ssage": "y"}'), 400, says="twice")
    yield Row("B62 fields that are not the caller's", submit(status="succeeded", tenant_id=2), 422, says="/tenant_id")
    for number, value in enumerate(("[1]", "null", '"x"', "1", "true"), start=64):
        yield Row(f"B{number} {value}", post(value), 422)
    yield Row("B67 no Content-Type", post(OK, "X-A: 1"), 415, says="application/json")
    yield Row("B68 text/plain", post(OK, "Content-Type: text/plain"), 415)
    yield Row("B69 a form", post(b"action=echo", "Content-Type: application/x-www-form-urlencoded"), 415)
    yield Row("B70 charset utf-16", post(OK, f"{JSON}; charset=utf-16"), 415)
    yield Row("B70 charset utf-8 is taken", post(b'{"action": "x"}', f'{JSON}; charset="UTF-8"'), 404)
    yield Row("B70 a charset that is not one", post(OK, f"{JSON}; charset={CANARY}"), 415)
    yield Row("B71 compressed", post(OK, JSON, "Content-Encoding: gzip"), 415, says="Content-Encoding")
    yield Row("B72 an unknown action", post(f'{{"action": "{CANARY}"}}'), 404)
    yield Row("B73 an action of 65 characters", post(json.dumps({"action": "a" * 65})), 422, says="/action")
    yield Row("B74 no action", post("{}"), 422, says="/action")
    yield Row("B75 a lock of 3,000 characters", submit(lock="é" * 3000), 422, says="/lock")
    yield Row("B76 beyond the last year", submit(schedule_at="9999-12-31T23:59:59-23:59"), 422, says="/schedule_at")
    yield Row("B77 no zone", submit(schedule_at="2026-01-01T00:00:00"), 422, says="/schedule_at")
    for number in (0, -1, 10**9, True, "5"):
        yield Row(f"B78 max_attempts {number!r}", submit(max_attempts=number), 422, says="/max_attempts")
    for seconds in (-1, 1e12, "1"):
        yield Row(f"B79 delay {seconds!r}", submit(delay=seconds), 422, says="/delay")
    yield Row("B80 101 tags", submit(tags=["a"] * 101), 422, says="/tags")
    yield Row("B81 a batch of none", post('{"runs": []}', target="/runs/batch"), 422)
    yield Row("B81 a batch of 1,001", post(json.dumps({"runs": [{}] * 1001}), target="/runs/batch"), 422)
    yield Row("B83 what cannot be stored, in a batch", post(r'{"runs": [{"action": "\u0000"}]}', target="/runs/batch"),
              422, says="/runs/0/action")  # fmt: skip


def queries_and_paths() -> Iterator[Row]:
    yield Row("B84 NUL in a parameter", get("/runs?tag=%00"), 422, says="tag")
    yield Row("B85 a parameter that is not UTF-8", get("/runs?tag=%ff%fe"), 422, says="tag")
    yield Row("B85 overlong UTF-8", get("/runs?cursor=%c0%80"), 422)
    yield Row("B86 raw bytes in the URL", get("/runs?tag=\xff"), (400, 422))
    yield Row("B87 an id that is not one", get("/runs/9223372036854775808"), 404)
    yield Row("B87 an id with a space", get("/runs/%201"), 404)
    yield Row("B88 NUL in the path", get("/runs/%00"), 422)
    yield Row("B88 NUL in the path of a run", get("/runs/run_%00/events"), 422)
    yield Row("B88 NUL in the name of an action", get("/actions/%00"), 422)
    yield Row("B89 a path that is not UTF-8", get("/runs/%ff"), 422)
    yield Row("B90 an unknown parameter", get(f"/runs?tenant_id={CANARY}"), 422, says="no such parameter")
    yield Row("B90 … where there are none", get("/health?a=1"), 422, says="none")
    yield Row("B91 no credential", request("GET", "/runs"), 401, {"www-authenticate": "bearer"})
    yield Row("B91 no credential, a body", request("POST", "/runs", JSON, body=OK), 401, {"www-authenticate": "bearer"})
    yield Row("B92 a wrong secret", request("GET", "/runs", f"X-ROADMAP-AI-SECRET: {CANARY}"), 401)
    yield Row("B93 a secret in Latin-1", request("GET", "/runs", "X-ROADMAP-AI-SECRET: \xe9"), 401)
    yield Row("B94 two Authorizations", get("/runs", "Authorization: Bearer a", "Authorization: Bearer b"), 400)
    # Strictness comes first: the parameter is refused whoever asks.
    yield Row("B96 a key in the query", request("GET", f"/runs?api_key={CANARY}"), (401, 422))
    for sent in ("99999999999999999999", "-1", "abc"):
        yield Row(f"B122 Last-Event-ID {sent}", get(f"{NO_RUN}/events", f"Last-Event-ID: {sent}"), 400)


NO_RUN = "/runs/run_20200101T000000Z_00000000"


async def test_the_corpus(workshop: Workshop, tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    hosts = {"ALLOWED_HOSTS": "127.0.0.1,localhost", "ROADMAP_AI_SECRET": SECRET}
    async with api_process(workshop.settings, log, **hosts) as (url, process):
        port = int(url.rsplit(":", 1)[1])
        failures: list[str] = []
        for row in (*transport(), *bodies(), *queries_and_paths()):
            told = await send(port, row.sent)
            stored = await workshop.value("SELECT count(*) FROM action_runs")
            alive = await send(port, request("GET", "/livez"))
            if fault := wrong(row, told, stored, alive):
                failures.append(f"{row.name}: {fault}")
                await workshop.execute("DELETE FROM procrastinate_jobs")
        assert failures == []
        assert (await send(port, post(OK))).status == 202
        assert process.poll() is None
    assert CANARY not in log.read_text()
    assert SECRET not in log.read_text()
    assert "Traceback" not in log.read_text()


def wrong(row: Row, told: Answer, stored: int, alive: Answer) -> str | None:
    """What is not as it should be."""
    if told.status not in row.statuses:
        return f"{told.status} instead of {row.status}: {told.body[:300]!r}"
    if told.status >= 400:
        if told.headers.get("content-type") != "application/problem+json":
            return f"no problem document: {told.raw[:300]!r}"
        if row.says not in json.dumps(told.problem):
            return f"{told.problem} does not say {row.says}"
    if any(not told.headers.get(name, "").startswith(value) for name, value in row.headers.items()):
        return f"lacks headers: {told.headers}"
    if CANARY.encode() in told.raw or b"100 Continue" in told.raw:
        return f"says too much: {told.raw[:300]!r}"
    if stored:
        return "something was stored"
    return None if alive.status == 200 else f"afterwards {alive.status}"
