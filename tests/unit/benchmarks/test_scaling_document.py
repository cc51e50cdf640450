"""What docs/scaling.md says of several processes is what the benchmark found."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.scale_out import SCENARIOS

DOCS = Path(__file__).parents[3] / "docs"


def test_what_it_says_of_eight_processes_is_what_the_benchmark_found() -> None:
    results = json.loads((DOCS / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row["figures"] for row in results["sections"]["scale-out"]["rows"]}
    text = (DOCS / "scaling.md").read_text(encoding="utf-8")
    for scenario in SCENARIOS:
        found = rows[f"{scenario.name}: 8 processes"]
        shares = (found[name]["median"] for name in ("share_of_linear", "independent_share", "machine_share"))
        assert f"| {scenario.name} | {' | '.join(f'{share:.2f}' for share in shares)} |" in text
