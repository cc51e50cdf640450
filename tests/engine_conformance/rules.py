"""The contract's rules, each judged by what was seen. The contract: docs/engine-contract.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .engine import BODY_BYTES, BYTES_PER_PAIR, Reply
from .examination import NOT_ASKED, UNKNOWN_TYPE, Transcript
from .protocols import Batch, Pair, Single

Verdict = Literal["pass", "FAIL", "not judged"]


@dataclass(frozen=True)
class Finding:
    """What came of a rule: `found` instead of what it demands, or why it could not be judged; how to fix it."""

    rule: str
    demands: str
    verdict: Verdict
    found: str | None = None
    fix: str | None = None


class _BrokenError(Exception):
    """What was found instead, and how to fix it."""


class _NotSeenError(Exception):
    """The rule could not be judged."""


Check = Callable[[Transcript], None]
_RULES: dict[str, tuple[str, tuple[str, ...], Check]] = {}
FORM = ("media-type", "bounded", "members", "every-pair-once", "nothing-foreign")
BATCH_ONLY = ("every-pair-once", "full-call", "key-of-the-pair", "failed-anew")


def _rule(name: str, demands: str, *rests_on: str) -> Callable[[Check], Check]:
    """Adds a rule, which rests on the answers' form where nothing else is given."""

    def add(check: Check) -> Check:
        _RULES[name] = demands, rests_on or ("one-user", *FORM[1:]), check
        return check

    return add


def names(protocol: Batch | Single) -> list[str]:
    """The rules for a protocol, in the order in which they are judged."""
    return [name for name in _RULES if name not in BATCH_ONLY or isinstance(protocol, Batch)]


class Judge:
    """Judges each rule once, and none that rests on a failed one."""

    def __init__(self, seen: Transcript) -> None:
        self._seen = seen
        self._left = names(seen.protocol)
        self._failed: dict[str, str] = {}
        """The failed rules, and those that rest on one: with the one that failed."""

    def judge(self, ready: Collection[str] | None = None) -> Iterator[Finding]:
        """Judges these of the rules that are left, or all."""
        for name in [name for name in self._left if ready is None or name in ready]:
            self._left.remove(name)
            yield self._judged(name, *_RULES[name])

    def _judged(self, name: str, demands: str, rests_on: tuple[str, ...], check: Check) -> Finding:
        failed = next((self._failed[other] for other in rests_on if other in self._failed), None)
        if failed is not None:
            self._failed[name] = failed
            return Finding(name, demands, "not judged", f"it rests on {failed}, which failed")
        try:
            check(self._seen)
        except _BrokenError as broken:
            self._failed[name] = name
            return Finding(name, demands, "FAIL", *broken.args)
        except _NotSeenError as unseen:
            return Finding(name, demands, "not judged", str(unseen))
        return Finding(name, demands, "pass")


@_rule("one-user", "a call about one user is answered with 200 (201 as well if single), in time")
def _one_user(seen: Transcript) -> None:
    fix = f"serve POST {seen.protocol.path}; check the URL and the token first"
    _demand(seen.one.is_answer, seen.one.described(), fix)


@_rule("media-type", "an answer is application/json", "one-user")
def _media_type(seen: Transcript) -> None:
    for reply in seen.first_answers():
        found = f"Content-Type: {reply.media_type or '(none)'}"
        _demand(reply.media_type == "application/json", found, "answer with Content-Type: application/json")


@_rule("bounded", "an answer is no longer than 1 MiB and 4 KiB for each pair", "one-user")
def _bounded(seen: Transcript) -> None:
    for reply in seen.first_answers():
        limit = BODY_BYTES + BYTES_PER_PAIR * len(reply.asked.pairs)
        fix = "leave out what the contract does not name: no caller reads it"
        _demand(not reply.is_too_long, f"more than {limit:,} bytes", fix)


@_rule("members", "an answer has the members of the contract, of their types", "one-user", "bounded")
def _members(seen: Transcript) -> None:
    for reply in seen.first_answers():
        _demand(not reply.oddities, "; ".join(reply.oddities[:3]), "answer what the contract's example shows")


@_rule("every-pair-once", "each pair that is asked for has exactly one result", "members")
def _every_pair_once(seen: Transcript) -> None:
    for reply in seen.first_answers():
        met = Counter((item.user_id, item.scenario_type) for item in reply.items)
        asked = reply.asked.pairs
        missing = [pair for pair in asked if not met[pair]]
        repeated = [pair for pair in asked if met[pair] > 1]
        found = f"{len(missing)} of {len(asked)} pairs have no result, such as {missing and _name(missing[0])}"
        fix = "answer each pair, also of users and types that you do not know: as failed, with an error"
        _demand(not missing, found, fix)
        found = f"{len(repeated)} pairs have several results, such as {repeated and _name(repeated[0])}"
        _demand(not repeated, found, "answer each pair once")


@_rule("nothing-foreign", "there is no result for a pair that was not asked for", "members")
def _nothing_foreign(seen: Transcript) -> None:
    for reply in seen.first_answers():
        asked = set(reply.asked.pairs)
        for item in reply.items:
            pair = (item.user_id, item.scenario_type)
            fix = "answer the pairs of this call and no others; repeat user_id as it was sent, letter for letter"
            _demand(pair in asked, f"a result for {_name(pair)}", fix)


@_rule("token", "a wrong token is refused with 401, and so is none", "one-user")
def _token(seen: Transcript) -> None:
    for what, reply in seen.tokens.items():
        fix = "compare the whole bearer token before anything else, and answer 401"
        _demand(reply.failure is None and reply.status == 401, f"{reply.described()} for {what}", fix)


@_rule("malformed", "what is no call is refused with 400 or 422, and harms no later one", "one-user")
def _malformed(seen: Transcript) -> None:
    for what, reply in seen.malformed.items():
        fix = "check the body before anything is evaluated: a 5xx would be tried again and again"
        _demand(reply.failure is None and reply.status in (400, 422), f"{reply.described()} for {what}", fix)
    found = f"{seen.afterwards.described()} for the next call"
    _demand(seen.afterwards.is_answer, found, "a bad call must not break the process")


@_rule("unknown-user", "an unknown user costs no other, and is not worth another attempt")
def _unknown_user(seen: Transcript) -> None:
    reply = seen.with_unknown_user
    pairs = [pair for pair in reply.asked.pairs if pair[0] == seen.unknown_user]
    _costs_only_itself(seen, reply, pairs, "an unknown user", ("failed", "not_triggered", "suppressed"))


@_rule("unknown-type", "an unknown scenario type costs no other, and is not worth another attempt")
def _unknown_type(seen: Transcript) -> None:
    reply = seen.with_unknown_type
    pairs = [pair for pair in reply.asked.pairs if pair[1] == UNKNOWN_TYPE]
    # A misspelt type has to show; one pair a call has no other answer for it.
    allowed = ("failed",) if isinstance(seen.protocol, Batch) else ("not_triggered",)
    _costs_only_itself(seen, reply, pairs, "an unknown scenario type", allowed)


def _costs_only_itself(seen: Transcript, reply: Reply, pairs: list[Pair], what: str, allowed: tuple[str, ...]) -> None:
    is_single = isinstance(seen.protocol, Single)
    # 401 and 403 are about all calls, 408 and 429 about no pair.
    if is_single and 400 <= reply.status < 500 and reply.status not in (401, 403, 408, 429):
        return
    _needs(is_single or seen.known_again.is_answer, f"the same call without {what} is not answered either")
    fix = "answer 200, and that pair as failed, retryable false: else the scheduler has to halve the call to find it"
    fix = "answer 404 or 422, or should_notify false" if is_single else fix
    _demand(reply.is_answer, f"{reply.described()} for a call with {what}", fix)
    for pair in reply.asked.pairs:
        item, outcome, alone = reply.of(pair), reply.outcome_of(pair), seen.known_again.outcome_of(pair)
        if pair in pairs:
            _demand(outcome in allowed, f"{what} is {outcome or 'left out'}", fix)
            is_retryable = item is not None and item.error is not None and item.error.retryable
            retry_fix = "set retryable to true only for what may pass by itself within seconds"
            _demand(not is_retryable, f"{what} is failed and retryable", retry_fix)
        else:
            found = f"{_name(pair)} is {alone} alone and {outcome} beside {what}"
            _demand(alone == outcome, found, "decide about each pair by itself")


@_rule("full-call", "a call as large as may be is answered with 200", "one-user")
def _full_call(seen: Transcript) -> None:
    unknown_are_not = "fewer users than fill a call are given, and users whom it does not know are not answered"
    _needs(seen.full is not NOT_ASKED, unknown_are_not)
    fix = "take as many users a call as ENGINE_USERS_PER_CALL says, and evaluate them together, not one by one"
    _demand(seen.full.is_answer, f"{seen.full.described()} for {len(seen.full.asked.users)} users", fix)


@_rule("dry-run", "a dry run decides, and stores and sends nothing")
def _dry_run(seen: Transcript) -> None:
    _needs("dry_run" in seen.protocol.supports, "the engine is not said to support dry_run")
    before, again = seen.dry_before, seen.dry_again
    _needs(before.is_answer and again.is_answer, "dry runs are not answered")
    # What an engine of one pair a call answers has an id in any case.
    for reply in seen.answers() if isinstance(seen.protocol, Batch) else []:
        for pair in _triggered(reply) if reply.asked.dry_run else []:
            found = f"a dry run of {_name(pair)} has a notification id"
            _demand(reply.notification_of(pair) is None, found, "queue nothing in a dry run, so there is no id")
    for pair in before.asked.pairs:
        first, later, one, next_one = (
            reply.outcome_of(pair) for reply in (seen.known, seen.known_again, before, again)
        )
        is_counted = first == "triggered" and not {later, one}.isdisjoint({"suppressed", "not_triggered"})
        found = f"{_name(pair)} is {first} in the first dry run, {later} and {one} in later ones, under other keys"
        _demand(not is_counted, found, "start no cool-down in a dry run, and count nothing as sent")
        found = f"{_name(pair)} is {one} in a dry run and {next_one} in the next"
        fix = "remember nothing of a dry run: neither its key nor that the user was notified"
        _demand(one == next_one, found, fix)
    fix = "store no key in a dry run: the real call must still act"
    for pair in _triggered(before):
        meant = [item for reply in seen.at_once if reply.is_answer and (item := reply.of(pair)) is not None]
        if not meant or _is_nameless(seen, pair):
            continue  # for notification-id to say
        was, said = f"{_name(pair)} is triggered in a dry run, and {meant[0].outcome}", before.of(pair)
        found = f"{was} without a notification id when it is meant, under the same key"
        _demand(any(item.notification_id is not None for item in meant), found, fix)
        # Where each answer has an id, the time tells an answer that is repeated from an id made of the key.
        is_repeated = said is not None and said.evaluated_at is not None and said in meant
        _demand(not is_repeated, f"{was} with the same id and evaluated_at when it is meant, under the same key", fix)


@_rule("notification-id", "what is triggered names its notification, unless it is a dry run")
def _notification_id(seen: Transcript) -> None:
    _needs(not seen.dry_run_only, "only dry runs were asked for")
    acted = dict.fromkeys(pair for reply in seen.at_once for pair in _triggered(reply))
    _needs(bool(acted), "no user was triggered: give users whom a scenario applies to")
    for pair in acted:
        found = f"{_name(pair)} is triggered without a notification_id"
        fix = "name what was queued: else no caller can see that a repeat queued nothing more"
        _demand(not _is_nameless(seen, pair), found, fix)


def _is_nameless(seen: Transcript, pair: Pair) -> bool:
    """Whether it is triggered for real, and under no key with a notification id."""
    triggered = [reply for reply in seen.at_once if reply.is_answer and reply.outcome_of(pair) == "triggered"]
    return bool(triggered) and not any(reply.notification_of(pair) for reply in [*triggered, seen.under_other_keys])


@_rule("same-key-at-once", "of equal calls at once one acts, and all name its id", "notification-id")
def _same_key_at_once(seen: Transcript) -> None:
    _was_meant(seen)
    for reply in seen.at_once:
        fix = "let the second wait for the first one's key, and answer what that one came to"
        _demand(reply.is_answer, f"{reply.described()} when equal calls came at the same instant", fix)
    for pair in _acted_on(seen):
        met = {reply.notification_of(pair) for reply in seen.at_once}
        found = f"{len(met)} different answers for {_name(pair)}: {', '.join(sorted(map(str, met)))}"
        fix = "store the key before acting, under a unique constraint, in one transaction with the notification"
        _demand(len(met) == 1, found, fix)


@_rule("same-key-again", "a triggered key is answered with its id, and does not act again", "notification-id")
def _same_key_again(seen: Transcript) -> None:
    _was_meant(seen)
    found = f"{seen.repeated.described()} for a call that came before"
    _demand(seen.repeated.is_answer, found, "answer a repeat as the first time")
    fix = "look the key up before you decide, and repeat its outcome and notification id"
    _repeats(seen, seen.repeated, _acted_on(seen), "when asked again under its key", fix)


def _repeats(seen: Transcript, reply: Reply, pairs: list[Pair], when: str, fix: str) -> None:
    """Whether a reply says of each pair what the calls at once did."""
    for pair in pairs:
        met = {once.notification_of(pair) for once in seen.at_once}
        outcome, notification = reply.outcome_of(pair), reply.notification_of(pair)
        was = ", ".join(sorted(map(str, met)))
        found = f"{_name(pair)} was triggered as {was}, and is {outcome} as {notification} {when}"
        _demand(outcome == "triggered" and notification in met, found, fix)


@_rule("other-key", "another key is another question", "notification-id")
def _other_key(seen: Transcript) -> None:
    _was_meant(seen)
    reply = seen.under_other_keys
    _needs(reply.is_answer, "the call under other keys is not answered")
    for pair in _acted_on(seen):
        again = reply.notification_of(pair)
        is_repeated = again is not None and again in {once.notification_of(pair) for once in seen.at_once}
        found = f"{_name(pair)} is answered with the notification of another key, {again}"
        fix = "keep what was done under the whole key: by user and type alone, the next run would notify no user"
        _demand(not is_repeated, found, fix)


@_rule("key-of-the-pair", "a pair's key is known in other calls", "same-key-again")
def _key_of_the_pair(seen: Transcript) -> None:
    _was_meant(seen)
    reply = seen.beside_others
    _needs(len(reply.calls[0].asked.users) > 1, "a user is asked about in a call alone")
    _needs(reply.is_answer, "the call with another user first is not answered")
    answered = [pair for pair in _acted_on(seen) if reply.of(pair) is not None]
    fix = "keep a key for each pair, which is prefix, colon and scenario type, and none for the call"
    _repeats(seen, reply, answered, "in a call about others as well", fix)


@_rule("failed-anew", "what failed under a key is decided anew under it")
def _failed_anew(seen: Transcript) -> None:
    _needs(not seen.dry_run_only, "only dry runs were asked for")
    before, failure, after = seen.before_failure, seen.failure, seen.after_failure
    _needs(before is not NOT_ASKED, "fewer than six users are given")
    _needs(all(reply.is_answer for reply in (before, failure, after)), "not all of its calls are answered")
    due = _triggered(before)
    _needs(bool(due), "no scenario applies to the sixth user")
    for pair in due:
        failed, item = failure.of((seen.unknown_user, pair[1])), after.of(pair)
        error = failed.error if failed is not None and failed.outcome == "failed" else None
        _needs(error is not None, "an unknown user does not fail, and there is no other failure to be had from outside")
        if item is None or item.outcome == "triggered":
            continue
        unseen = "the engine ties a key to its user: have one pair fail that works later, and ask twice"
        _needs(item.outcome != "failed" or item.error == error, unseen)
        fix = "keep the keys of what was triggered and no others: a failed pair is asked about again to be decided"
        raise _BrokenError(f"{_name(pair)} is {item.outcome} under a key that only ever failed", fix)


@_rule("every-answer", "the later answers have that form, too", "one-user", *FORM, "unknown-user", "unknown-type")
def _every_answer(seen: Transcript) -> None:
    for reply in seen.answers():
        for name in FORM:
            _RULES[name][2](replace(seen, one=reply, known=NOT_ASKED))


def _was_meant(seen: Transcript) -> None:
    _needs(not seen.dry_run_only, "only dry runs were asked for")
    _needs("idempotency" in seen.protocol.supports, "the engine is not said to support idempotency")
    _needs(any(reply.is_answer for reply in seen.at_once), "no call that was meant was answered")
    unseen = "no user was triggered with a notification id: give users whom a scenario applies to"
    _needs(bool(_acted_on(seen)), unseen)


def _acted_on(seen: Transcript) -> list[Pair]:
    """The pairs that were triggered, with a notification, by any of the calls at once."""
    named = (pair for reply in seen.at_once for pair in _triggered(reply) if reply.notification_of(pair) is not None)
    return list(dict.fromkeys(named))


def _triggered(reply: Reply) -> list[Pair]:
    return [pair for pair in reply.asked.pairs if reply.outcome_of(pair) == "triggered"]


def _needs(holds: bool, unseen: str) -> None:
    if not holds:
        raise _NotSeenError(unseen)


def _demand(holds: bool, found: str, fix: str) -> None:
    if not holds:
        raise _BrokenError(found, fix)


def _name(pair: Pair) -> str:
    return f"{pair[0]} x {pair[1]}"
