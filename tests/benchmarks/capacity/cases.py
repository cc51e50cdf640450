"""The runs that are measured: some for the costs, and others that the model has to foretell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..drained_run import DrainLoad

_SINGLE = DrainLoad(20_000, 1, in_flight=64, users_per_call=1, batch_size=100, latency_ms=20)
_TEN = DrainLoad(50_000, 1, in_flight=32, users_per_call=10, batch_size=100, latency_ms=20)
_HUNDRED = DrainLoad(100_000, 1, in_flight=32, users_per_call=100, batch_size=500, latency_ms=20)
_FEW_CALLS = DrainLoad(2400, 1, in_flight=8, users_per_call=1, batch_size=20, latency_ms=50)

# Two runs that tell one thing each; see `fitting.py`.
ONE_BATCH = "one batch"
WAITING = "8 calls in flight"
# The costs of a call, an evaluation, a claim, a row and a batch follow from the others, which are different mixtures of
# them, and of which some have more to do than there is CPU.
CALIBRATION: Mapping[str, DrainLoad] = {
    ONE_BATCH: DrainLoad(100, 1, in_flight=32, users_per_call=100, batch_size=100, latency_ms=20),
    "1 user a call": _SINGLE,
    "10 users a call": _TEN,
    "100 users a call": _HUNDRED,
    "100 users a call, a quarter notable": replace(_HUNDRED, notable=0.25),
    "100 users a call, batches of 100": replace(_HUNDRED, batch_size=100),
    WAITING: _FEW_CALLS,
    "1 user a call, 4 processes": replace(_SINGLE, processes=4),
    "100 users a call, 2 processes": replace(_HUNDRED, processes=2),
}
VALIDATION: Mapping[str, DrainLoad] = {
    "1 user a call, 2 processes": replace(_SINGLE, processes=2),
    "10 users a call, 2 processes": replace(_TEN, processes=2),
    "100 users a call, 4 processes": replace(_HUNDRED, processes=4),
    "100 users a call, slow engine": replace(_HUNDRED, in_flight=8, latency_ms=200),
    "a quarter notable, 2 processes": replace(_HUNDRED, notable=0.25, processes=2),
    "8 calls in flight, 2 processes": replace(_FEW_CALLS, processes=2),
    "8 calls in flight, 4 processes": replace(_FEW_CALLS, processes=4),
    "8 calls in flight, 8 processes": replace(_FEW_CALLS, processes=8),
    "300,000 mentors": replace(_HUNDRED, mentors=300_000, notable=0.25),
}
CASES: Mapping[str, DrainLoad] = {**CALIBRATION, **VALIDATION}
