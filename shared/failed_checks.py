"""How many failed token checks an address has before it is told to wait.

The limit is there to bound log lines and work, not to protect the tokens: guessing one of 32 characters or more is
hopeless at any rate. So only failures are counted, and a known token is to pass from a limited address as well; else
whoever shares pg_net's address (behind a proxy, behind NAT) could lock the nightly run out.

It is per instance of the function, as nothing else is shared. Somebody with very many addresses is not stopped by it.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one failed check.

    Args:
        retry_after_seconds: None: it was counted, and nothing more. Else the address is over its limit, and a failure
            would be counted again after so many whole seconds.
        newly_limited: whether this is the first one over the limit since the address last had its whole allowance.
    """

    retry_after_seconds: int | None
    newly_limited: bool = False


class FailedCheckLimit:
    """A token bucket for each address, in bounded memory.

    An IPv6 address counts as its /64, within which one machine takes new addresses as it likes (RFC 8981), an
    IPv4-mapped one as the IPv4 address that it is. Callers without an address share one bucket.

    Args:
        burst: failures that are counted at once.
        seconds_each: after which one more is.
        max_addresses: how many are remembered; beyond it the one that failed longest ago is forgotten.
        now: monotonic seconds.
    """

    def __init__(
        self,
        *,
        burst: int = 10,
        seconds_each: float = 6,
        max_addresses: int = 10_000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds_each = seconds_each
        self._longest_debt = burst * seconds_each
        self._max_addresses = max_addresses
        self._now = now
        # When the allowance will be whole again: one number is all that a token bucket needs (GCRA, ITU-T I.371). And
        # whether the address was called limited since it last was.
        self._whole_at: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many addresses have a bucket."""
        return len(self._whole_at)

    def count(self, address: IPv4Address | IPv6Address | None) -> Verdict:
        """Counts one failed check.

        Args:
            address: the caller's; None if it is not known.
        """
        network = _network(address)
        now = self._now()
        whole_at, was_limited = self._whole_at.pop(network, (now, False))
        if whole_at <= now:
            whole_at, was_limited = now, False
        wait = whole_at + self._seconds_each - self._longest_debt - now
        if wait > 0:
            self._whole_at[network] = (whole_at, True)
            verdict = Verdict(math.ceil(wait), newly_limited=not was_limited)
        else:
            self._whole_at[network] = (whole_at + self._seconds_each, was_limited)
            verdict = Verdict(None)
        if len(self._whole_at) > self._max_addresses:
            self._whole_at.popitem(last=False)
        return verdict


def _network(address: IPv4Address | IPv6Address | None) -> bytes:
    if address is None:
        return b""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped.packed if address.ipv4_mapped else address.packed[:8]
    return address.packed
