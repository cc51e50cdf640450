"""The audit of what is installed: all is asked about, and neither silence nor nonsense passes for a clean answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests import dependency_audit
from tests.dependency_audit import UnreachableError, installed, vulnerabilities

PACKAGES = {"sound": "1.0", "broken": "2.0", "worse": "3.0"}


@asynccontextmanager
async def service(answer: Callable[[Any], tuple[int, bytes]]) -> AsyncIterator[str]:
    """A service that answers what `answer` makes of the request's JSON; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"post /v1/querybatch ")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        status, body = answer(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body)) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def known(request: Any) -> tuple[int, bytes]:
    """As OSV answers: a result for each query, in their order, empty where nothing is known."""
    ids = {"broken": ["PYSEC-2"], "worse": ["PYSEC-4", "GHSA-3"]}
    results = [
        {"vulns": [{"id": id_, "modified": "2026-01-01T00:00:00Z"} for id_ in ids[query["package"]["name"]]]}
        if query["package"]["name"] in ids
        else {}
        for query in request["queries"]
    ]
    return 200, json.dumps({"results": results}).encode()


async def test_each_vulnerability_is_told_with_its_package_and_version() -> None:
    async with service(known) as url:
        assert await vulnerabilities(PACKAGES, url) == {"broken 2.0": ["PYSEC-2"], "worse 3.0": ["GHSA-3", "PYSEC-4"]}


async def test_each_package_is_asked_about_in_its_version() -> None:
    asked: list[Any] = []

    def remembered(request: Any) -> tuple[int, bytes]:
        asked.append(request)
        return known(request)

    async with service(remembered) as url:
        await vulnerabilities(PACKAGES, url)
    assert asked[0]["queries"][0] == {"package": {"name": "sound", "ecosystem": "PyPI"}, "version": "1.0"}
    assert len(asked[0]["queries"]) == 3


async def test_a_vulnerability_that_was_accepted_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependency_audit, "ACCEPTED", {"PYSEC-2": "we do not call it", "GHSA-3": "nor this"})
    async with service(known) as url:
        assert await vulnerabilities(PACKAGES, url) == {"worse 3.0": ["PYSEC-4"]}


@pytest.mark.parametrize("status", [404, 429, 500, 503])
async def test_a_service_that_does_not_serve_is_unreachable(status: int) -> None:
    async with service(lambda _: (status, b"")) as url:
        with pytest.raises(UnreachableError, match=str(status)):
            await vulnerabilities(PACKAGES, url)


async def test_a_service_that_is_away_is_unreachable() -> None:
    async with service(known) as url:
        pass
    with pytest.raises(UnreachableError):
        await vulnerabilities(PACKAGES, url)


@pytest.mark.parametrize("body", [b"hello", b"{}", b'{"results": []}', b'{"results": [{}]}'])
async def test_an_answer_that_is_none_is_not_taken_for_a_clean_one(body: bytes) -> None:
    async with service(lambda _: (200, body)) as url:
        with pytest.raises(ValueError, match=r"."):
            await vulnerabilities(PACKAGES, url)


async def test_what_the_function_and_its_tests_need_is_all_asked_about() -> None:
    assert installed().keys() >= {"fastapi", "starlette", "pydantic", "postgrest", "pytest", "ruff"}
    assert "typing-extensions" in installed()  # whatever its own spelling is


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--required"], 1)])
async def test_an_audit_that_could_not_be_made_says_so_and_fails_where_it_is_required(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    async with service(known) as url:
        pass
    assert await asyncio.to_thread(dependency_audit.main, arguments, service=url) == code
    assert "NOT audited" in capsys.readouterr().err


async def test_a_known_vulnerability_fails_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    def fastapi_is_vulnerable(request: Any) -> tuple[int, bytes]:
        results = [
            {"vulns": [{"id": "PYSEC-1"}]} if query["package"]["name"] == "fastapi" else {}
            for query in request["queries"]
        ]
        return 200, json.dumps({"results": results}).encode()

    async with service(fastapi_is_vulnerable) as url:
        assert await asyncio.to_thread(dependency_audit.main, [], service=url) == 1
    assert f"fastapi {installed()['fastapi']}: PYSEC-1" in capsys.readouterr().err
