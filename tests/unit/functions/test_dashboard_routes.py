"""`GET /dashboard`: the page and its files, whoever asks, and how they are guarded."""

from __future__ import annotations

import re

import pytest

from functions.http.dashboard import FOLDER, PATHS
from tests.unit.functions.http_function import Function, problem_in

FILES = sorted(PATHS - {"/dashboard/"})
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}


@pytest.mark.parametrize("path", FILES)
async def test_each_file_is_served_without_a_token_under_a_strict_policy(function: Function, path: str) -> None:
    response = await function.http.get(path)
    assert response.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    kind = "css" if path.endswith(".css") else "javascript" if path.endswith(".js") else "html"
    assert response.headers["content-type"] == f"text/{kind}; charset=utf-8"
    assert function.sql.called() == []


@pytest.mark.parametrize("path", FILES)
async def test_who_has_a_file_already_is_not_sent_it_again(function: Function, path: str) -> None:
    first = await function.http.get(path)
    assert first.headers["cache-control"] == "no-cache"
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = await function.http.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert (await function.http.get(path, headers={"If-None-Match": '"other"'})).content == first.content


async def test_different_files_have_different_tags(function: Function) -> None:
    tags = {(await function.http.get(path)).headers["etag"] for path in FILES}
    assert len(tags) == len(FILES)


async def test_whoever_types_a_slash_after_it_gets_there_also_below_another_path(function: Function) -> None:
    response = await function.http.get("/dashboard/")
    assert (response.status_code, response.headers["location"]) == (308, "../dashboard")


async def test_it_is_only_read(function: Function) -> None:
    assert (await function.http.head("/dashboard")).status_code == 200
    response = await function.http.post("/dashboard")
    problem_in(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/dashboard/..", "/dashboard/../main.py", "/dashboard/index.html", "/dashboard/x.js"])
async def test_nothing_else_is_below_it(function: Function, path: str) -> None:
    problem_in(await function.http.get(path), 401, "unauthorized")


def test_every_address_in_the_page_and_its_modules_is_its_own_and_is_there() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    linked = re.findall(r'(?:href|src)="(?!#|data:)([^"]+)"', page)
    assert {f"/{link}" for link in linked} == set(FILES) - {"/dashboard"}
    for file in FOLDER.glob("*.js"):
        for imported in re.findall(r'^import .* from "(.+)";$', file.read_text(encoding="utf-8"), re.MULTILINE):
            assert (FOLDER / imported).exists(), f"{file.name}: {imported}"


def test_nothing_in_it_would_need_a_weaker_policy_or_another_host() -> None:
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        weaker = r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://|style=\"| on\w+=\""
        assert not re.search(weaker, text), file.name
