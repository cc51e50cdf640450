"""Every incident of docs/operations.md is caused by the test that it links."""

from __future__ import annotations

import pytest

from tests.faults.runbook.runbook import DOCUMENT, Incident, incidents


@pytest.mark.parametrize("incident", incidents(), ids=lambda incident: incident.title)
def test_an_incident_links_the_file_of_its_test(incident: Incident) -> None:
    assert f"async def {incident.test_name}(" in (DOCUMENT.parent / incident.shown_by).read_text(encoding="utf-8")


def test_incidents_are_ten_numbered_in_order() -> None:
    assert [incident.number for incident in incidents()] == list(range(1, 11))
