"""Public list prices and sizes, in dollars of the United States, without taxes, free tiers and discounts.

Read on 2026-11-25. Cloud Run: https://cloud.google.com/run/pricing, tier 1 regions, request-based billing. Supabase:
https://supabase.com/docs/guides/platform/compute-and-disk, as of commit 02a13c9be470 of its documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

VCPU_SECOND = 0.000024
GIB_SECOND = 0.0000025
MILLION_REQUESTS = 0.40

DISK_GB_MONTH = 0.125
DISK_GB_INCLUDED = 8

# An instance of the function: one core, and room beside what it takes (see `make bench`).
FUNCTION_VCPU = 1
FUNCTION_GIB = 0.5


@dataclass(frozen=True)
class Compute:
    """A size of a project's own machine.

    Args:
        name: Supabase's.
        dollars_per_month: with it running all the time.
        cores: of which those of Micro, Small and Medium are shared with others.
        disk_megabytes_per_second: that it can sustain.
    """

    name: str
    dollars_per_month: float
    cores: int
    disk_megabytes_per_second: float


def _compute(name: str, dollars_per_month: float, cores: int, disk_megabits_per_second: float) -> Compute:
    return Compute(name, dollars_per_month, cores, disk_megabits_per_second / 8)


MICRO = _compute("Micro", 10, 2, 87)
SMALL = _compute("Small", 15, 2, 174)
MEDIUM = _compute("Medium", 60, 2, 347)
LARGE = _compute("Large", 110, 2, 630)
XL = _compute("XL", 210, 4, 1188)
XXL = _compute("2XL", 410, 8, 2375)
XXXXL = _compute("4XL", 960, 16, 4750)


def function_dollars(instance_seconds: float, requests: float) -> float:
    """For instances that are busy so long, and called so often."""
    per_second = FUNCTION_VCPU * VCPU_SECOND + FUNCTION_GIB * GIB_SECOND
    return instance_seconds * per_second + requests / 1e6 * MILLION_REQUESTS


def disk_dollars_per_month(stored_bytes: float) -> float:
    """For what is kept."""
    return max(0.0, stored_bytes / 1e9 - DISK_GB_INCLUDED) * DISK_GB_MONTH
