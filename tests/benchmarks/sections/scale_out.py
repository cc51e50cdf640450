"""Past one process: throughput of two, four and eight, as a share of linear, for as long as there is CPU.

And as a share of what as many processes reach that have nothing in common but the machine, also beyond that.
"""

from __future__ import annotations

from ..peers.contenders import THIS_FUNCTION
from ..peers.requirements import require_deno
from ..scale_out import PROCESSES, SCENARIOS, WANTED_SHARE, ScaleOutFigures, measure_scale_out
from ..section import Conditions, Measured, Row, Section, Target
from ..spread import Spread


async def measure(conditions: Conditions) -> Measured:
    """This function alone."""
    processes = PROCESSES[:2] if conditions.quick else PROCESSES
    figures = await measure_scale_out(rounds=conditions.rounds, processes=processes, say=conditions.say)
    killed = figures.killed
    return Measured(
        [
            Row(
                THIS_FUNCTION,
                f"{scenario}: {point.processes} processes",
                {"processes": point.processes},
                {
                    "wall_seconds": Spread.of([point.seconds]),
                    "evaluations_per_second": Spread.of([point.evaluations_per_second]),
                    "share_of_linear": Spread.of([point.share_of_linear]),
                    "independent_share": Spread.of([point.independent_share]),
                    "machine_share": Spread.of([point.machine_share]),
                },
            )
            for scenario, points in figures.points.items()
            for point in points
        ],
        _targets(figures),
        [
            "Independent processes share nothing but the machine: each has mentors of its own, and no queue. Where even"
            f" they stay below {WANTED_SHARE} of linear, the machine's CPU is full: {_full_points(figures)}.",
            f"{killed.killed} processes were killed in a run of their own: {killed.load.evaluations} evaluations, "
            f"{killed.rows} rows, {killed.repeated} asked for again under the same key, none acted on twice.",
        ],
    )


def _full_points(figures: ScaleOutFigures) -> str:
    full = [
        f"{scenario}, {point.processes} processes"
        for scenario, points in figures.points.items()
        for point in points
        if point.is_cpu_full
    ]
    return "; ".join(full) or "nowhere"


def _targets(figures: ScaleOutFigures) -> list[Target]:
    until_full = [
        Target(
            f"share of linear throughput until the CPU is full, {scenario.name}",
            figures.least_share_of_linear(scenario.name),
            WANTED_SHARE,
            at_least=True,
        )
        for scenario in SCENARIOS
    ]
    always = Target(
        "share of what independent processes reach, whatever the CPU",
        figures.least_share_of_independent(),
        WANTED_SHARE,
        at_least=True,
    )
    return [*until_full, always]


SCALE_OUT = Section(
    "scale-out",
    "several processes drain one run",
    "One to eight processes of the function, started at once, against an engine of fixed latency; as many mentors for"
    " each process, however many there are.",
    require_deno,
    measure,
)
