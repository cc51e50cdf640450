"""Past one process: throughput of two, four and eight, as a share of linear, for as long as there is CPU."""

from __future__ import annotations

from ..peers.contenders import THIS_FUNCTION
from ..peers.requirements import require_deno
from ..scale_out import PROCESSES, WANTED_SHARE, ScaleOutFigures, measure_scale_out
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
                    "machine_share": Spread.of([point.machine_share]),
                },
            )
            for scenario, points in figures.points.items()
            for point in points
        ],
        _targets(figures),
        [
            *(
                f"{scenario}, {point.processes} processes: {WANTED_SHARE} of linear would take "
                f"{point.cpu_for_wanted_share:.2f} of the machine's CPU, so this point is not held to it."
                for scenario, points in figures.points.items()
                for point in points[1:]
                if point.is_cpu_full
            ),
            f"{killed.killed} processes were killed in a run of their own: {killed.load.evaluations} evaluations, "
            f"{killed.rows} rows, {killed.repeated} asked for again under the same key, none acted on twice.",
        ],
    )


def _targets(figures: ScaleOutFigures) -> list[Target]:
    """The least share of linear among the points at which the machine still had CPU to give."""
    return [
        Target(
            f"share of linear throughput until the CPU is full, {scenario}",
            min(point.share_of_linear for point in points if not point.is_cpu_full or point is points[0]),
            WANTED_SHARE,
            at_least=True,
        )
        for scenario, points in figures.points.items()
    ]


SCALE_OUT = Section(
    "scale-out",
    "several processes drain one run",
    "One to eight processes of the function, started at once, against an engine of fixed latency.",
    require_deno,
    measure,
)
