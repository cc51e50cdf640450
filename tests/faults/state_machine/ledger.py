"""What callers were told: the account against which the tables are held after each step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.integration.database.sql_core import Json

from .picture import BatchKey, Pair

IN_HAND_AT_MOST = 12


@dataclass
class Ledger:
    """Kept from answers alone. A worker that died was told nothing, so nothing of it stands here."""

    # Whether Vault holds the function's address and its token.
    has_secrets: bool = True
    # The newest slot that anybody asked for, in minutes from the first.
    newest_slot: int = 0
    # Runs whose callers were told that they are new; slots that are spent, and clients' keys, by which run.
    opened: set[str] = field(default_factory=set)
    slots: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    # The scope in which the engine sees a run's pairs, which its retries inherit; of a retry, what it is a retry of.
    scopes: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    # Of each run every pair that was accepted, with the outcome that was recorded for it, None: none yet.
    frozen: defaultdict[str, dict[Pair, str | None]] = field(default_factory=lambda: defaultdict(dict))
    cancelled: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    # Batches as they were handed out, the latest last: their workers may record them, or give them back, at any time.
    in_hand: list[Json] = field(default_factory=list)
    claims: Counter[BatchKey] = field(default_factory=Counter)
    # The reads of a batch that were given back as blameless.
    blameless: defaultdict[BatchKey, set[int]] = field(default_factory=lambda: defaultdict(set))
    # Batches that nobody else may be given as yet, by the read that hides them.
    hidden: dict[BatchKey, int] = field(default_factory=dict)
    # Messages that somebody put into a queue by hand, or took out of it.
    strays: set[tuple[str, int]] = field(default_factory=set)
    lost: set[tuple[str, int]] = field(default_factory=set)
    # Dispatches to which there is an answer (status code, error), and those that are so old that none counts.
    answers: dict[int, tuple[int | None, str | None]] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)

    def freeze(self, run_id: str, pairs: list[Pair]) -> None:
        known = self.frozen[run_id]
        assert len(pairs) == len(set(pairs)), "a page that holds a pair twice was accepted"
        assert not known.keys() & set(pairs), (
            f"pairs of {run_id} were frozen a second time: {known.keys() & set(pairs)}"
        )
        known |= dict.fromkeys(pairs)

    def record(self, run_id: str, outcomes: Mapping[Pair, str]) -> None:
        for pair, outcome in outcomes.items():
            known = self.frozen[run_id][pair]
            assert known is None, f"{pair} of {run_id} was recorded as {known}, and then as {outcome}"
            self.frozen[run_id][pair] = outcome

    def hand_out(self, batch: Json, *, hides: bool) -> None:
        """Of several in one moment, the order of the reads is the order in which they happened."""
        key, read = key_of(batch), batch["read_count"]
        later = any(key_of(other) == key and other["read_count"] > read for other in self.in_hand)
        is_hidden, hid_others = read > self.hidden.get(key, read), hides and later
        assert not is_hidden, f"batch {key} was handed out while another worker has it"
        assert not hid_others, f"batch {key} was handed out to another worker although this one has it"
        if hides:
            self.hidden[key] = read
        self.claims[key] += 1
        self.in_hand = [*self.in_hand, batch][-IN_HAND_AT_MOST:]

    def begin_anew(self, key: BatchKey) -> None:
        """Its message was lost, and is a new one: nobody knows how often the old one was read."""
        self.claims[key] = 0
        self.blameless[key].clear()
        self.hidden.pop(key, None)
        self.in_hand = [of_a_lost_message(batch) if key_of(batch) == key else batch for batch in self.in_hand]

    def forget(self, run_ids: set[str]) -> None:
        """They were pruned: a client may use their keys again."""
        self.keys = {key: run_id for key, run_id in self.keys.items() if run_id not in run_ids}


def key_of(batch: Json) -> BatchKey:
    return batch["invocation_id"], batch["batch_no"]


def of_a_lost_message(batch: Json) -> Json:
    """Reads are counted from one again, by which an old one could pass for a new one: nobody tries."""
    return {**batch, "read_count": -1}
