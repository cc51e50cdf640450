"""Every incident of docs/operations.md is caused by the test that it links."""

from __future__ import annotations

import re

from tests.faults.runbook.operator import DOCUMENT, incidents


def test_each_of_ten_incidents_links_the_file_of_its_test() -> None:
    assert [incident.number for incident in incidents()] == list(range(1, 11))
    for incident in incidents():
        test = "test_" + re.sub(r"[^a-z0-9]+", "_", incident.title.lower()).strip("_")
        assert f"async def {test}(" in (DOCUMENT.parent / incident.shown_by).read_text(encoding="utf-8")
