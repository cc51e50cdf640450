"""The REST API is built for the first request that asks for it, once, and by no other."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI

import functions.api
from functions.api import RestApi, create_api
from functions.invocation_routes import PREFIX
from tests.unit.functions.http_function import ADMIN, Function
from tests.unit.functions.pretend_sql import RUN_ID
from tests.unit.log_lines import LogLines


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[RestApi]:
    """Every REST API that was built."""
    built: list[RestApi] = []

    def build(*arguments: object) -> RestApi:
        built.append(create_api(*arguments))  # type: ignore[arg-type]  # whatever it is, it is passed on
        return built[-1]

    monkeypatch.setattr(functions.api, "create_api", build)
    return built


async def test_the_clock_and_monitors_build_nothing(function: Function, built: list[FastAPI]) -> None:
    await function.start()
    for path in ("/health", "/health/last-run"):
        await function.http.get(path)
    assert built == []


async def test_strangers_build_nothing(function: Function, built: list[FastAPI]) -> None:
    for path in (PREFIX, f"{PREFIX}/{RUN_ID}", "/nowhere"):
        await function.http.get(path)
    assert built == []


async def test_many_first_requests_at_once_build_it_once_and_are_all_answered(
    function: Function, built: list[FastAPI]
) -> None:
    asked = [function.ask("GET"), function.http.get("/openapi.json"), function.start()] * 10
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert len(built) == 1


async def test_a_defect_within_it_is_answered_and_logged_once(function: Function, log: LogLines) -> None:
    function.broken_by = LookupError("inner words")
    response = await function.http.get(PREFIX, headers=ADMIN)
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert len(log.of("internal_error")) == 1
