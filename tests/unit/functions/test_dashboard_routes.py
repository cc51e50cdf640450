"""`GET /dashboard`: the page and its files, whoever asks, and how they are guarded."""

from __future__ import annotations

import re

import pytest

from functions.http.dashboard import FOLDER, PATHS
from tests.unit.functions.http_function import Function

FILES = sorted(PATHS - {"/dashboard/"})
SELF, NONE = "'self'", "'none'"
POLICY = dict.fromkeys(("script-src", "style-src", "connect-src"), SELF) | {"img-src": "'self' data:"}
POLICY |= dict.fromkeys(("default-src", "frame-ancestors", "base-uri", "form-action"), NONE)


@pytest.mark.parametrize("path", FILES)
async def test_each_file_is_served_without_a_token_under_a_strict_policy(function: Function, path: str) -> None:
    headers = (await function.http.get(path)).raise_for_status().headers
    assert dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")) == POLICY
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    kind = "css" if path.endswith(".css") else "javascript" if path.endswith(".js") else "html"
    assert headers["content-type"] == f"text/{kind}; charset=utf-8"
    assert function.sql.called() == []


async def test_a_file_is_sent_again_only_when_it_changed(function: Function) -> None:
    tags: set[str] = set()
    for path in FILES:
        first = await function.http.get(path)
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "no-cache"
        for known in ([tag], [f'"other", W/{tag}'], ['"other"', tag]):
            again = await function.http.get(path, headers=[("If-None-Match", each) for each in known])
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert (await function.http.get(path, headers={"If-None-Match": '"other"'})).content == first.content
        tags.add(tag)
    assert len(tags) == len(FILES)
    slip = await function.http.get("/dashboard/")
    assert (slip.status_code, slip.headers["location"]) == (308, "../dashboard")


def test_every_address_in_the_page_is_its_own_and_exists() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    linked = re.findall(r'(?:href|src)="(?!#|data:)([^"]+)"', page)
    assert {f"/{link}" for link in linked} == set(FILES) - {"/dashboard"}
    for file in FOLDER.glob("*.js"):
        for imported in re.findall(r'^import .* from "(.+)";$', file.read_text(encoding="utf-8"), re.MULTILINE):
            assert (FOLDER / imported).exists(), f"{file.name}: {imported}"


def test_no_file_would_need_a_weaker_policy_or_another_host() -> None:
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        weaker = r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://|style=\"| on\w+=\""
        assert not re.search(weaker, text), file.name
