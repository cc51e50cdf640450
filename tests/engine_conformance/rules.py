"""The contract's rules, each judged by what was seen. The contract: docs/engine-contract.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from .engine import BODY_BYTES, BYTES_PER_PAIR, Item, Pair, Reply
from .examination import NOT_ASKED, UNKNOWN_TYPE, Transcript

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
    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found = found
        self.fix = fix


class _NotSeenError(Exception):
    """The rule could not be judged."""


Check = Callable[[Transcript], None]
_RULES: list[tuple[str, str, Check]] = []


def _rule(name: str, demands: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        _RULES.append((name, demands, check))
        return check

    return add


def names() -> list[str]:
    """The rules, in the order in which they are judged."""
    return [name for name, _, _ in _RULES]


def judge(transcript: Transcript) -> Iterator[Finding]:
    """Judges all rules."""
    for name, demands, check in _RULES:
        try:
            check(transcript)
        except _BrokenError as broken:
            yield Finding(name, demands, "FAIL", broken.found, broken.fix)
        except _NotSeenError as unseen:
            yield Finding(name, demands, "not judged", str(unseen))
        else:
            yield Finding(name, demands, "pass")


@_rule("one-user", "a call about one user is answered with 200, in time")
def _one_user(seen: Transcript) -> None:
    _demand(seen.one.is_answer, seen.one.described(), "serve POST /v1/evaluations; check the URL and the token first")


@_rule("hundred-users", "a call about a hundred users is answered with 200, in time")
def _hundred_users(seen: Transcript) -> None:
    _needs(seen.one.is_answer, "not even one user was answered")
    unknown_are_not = "fewer than a hundred users are given, and users whom it does not know are not answered"
    _needs(seen.many is not NOT_ASKED, unknown_are_not)
    fix = "take as many users a call as ENGINE_USERS_PER_CALL says, and evaluate them together, not one by one"
    _demand(seen.many.is_answer, seen.many.described(), fix)


@_rule(
    "json", "an answer is application/json: an object with a list of results, of members of the types in the contract"
)
def _json(seen: Transcript) -> None:
    for reply in _answers(seen):
        found = f"Content-Type: {reply.media_type or '(none)'}"
        _demand(reply.media_type == "application/json", found, "answer with Content-Type: application/json")
        _demand(not reply.oddities, "; ".join(reply.oddities[:3]), "answer what the contract's example shows")


@_rule("every-pair-once", "each pair that is asked for has exactly one result")
def _every_pair_once(seen: Transcript) -> None:
    for reply in _answers(seen):
        met = Counter((item["user_id"], item["scenario_type"]) for item in reply.items)
        asked = reply.asked.pairs
        missing = [pair for pair in asked if not met[pair]]
        repeated = [pair for pair in asked if met[pair] > 1]
        if missing and reply.items:
            raise _BrokenError(
                f"{len(missing)} of {len(asked)} pairs have no result, such as {_name(missing[0])}",
                "answer each pair, also of users and types that you do not know: as failed, with an error",
            )
        if repeated:
            raise _BrokenError(
                f"{len(repeated)} pairs have several results, such as {_name(repeated[0])}", "answer each pair once"
            )


@_rule("nothing-foreign", "there is no result for a pair that was not asked for")
def _nothing_foreign(seen: Transcript) -> None:
    for reply in _answers(seen):
        asked = set(reply.asked.pairs)
        for item in reply.items:
            pair = (item["user_id"], item["scenario_type"])
            fix = "answer the pairs of this call and no others; repeat user_id as it was sent, letter for letter"
            _demand(pair in asked, f"a result for {_name(pair)}", fix)


@_rule("bounded", "an answer is no longer than 1 MiB and 4 KiB for each pair")
def _bounded(seen: Transcript) -> None:
    for reply in _answers(seen):
        limit = BODY_BYTES + BYTES_PER_PAIR * len(reply.asked.pairs)
        fix = "leave out what the contract does not name: no caller reads it"
        _demand(not reply.is_too_long, f"more than {limit:,} bytes", fix)


@_rule("unknown-user", "a user whom the engine does not know costs no other user, and is not worth another attempt")
def _unknown_user(seen: Transcript) -> None:
    _needs(seen.known_again.is_answer, "the same call without the user is not answered either")
    _costs_only_itself(seen, seen.with_unknown_user, "a user whom it does not know")
    for scenario_type in seen.known.asked.scenario_types:
        _is_settled(seen.with_unknown_user, (seen.unknown_user, scenario_type), "an unknown user")


@_rule("unknown-type", "a scenario type that the engine does not know costs no other, and is not worth another attempt")
def _unknown_type(seen: Transcript) -> None:
    _needs(seen.known_again.is_answer, "the same call without it is not answered either")
    _costs_only_itself(seen, seen.with_unknown_type, "a scenario type that it does not know")
    for user_id in seen.known.asked.users:
        pair = (user_id, UNKNOWN_TYPE)
        _is_settled(seen.with_unknown_type, pair, "an unknown scenario type")
        outcome = seen.with_unknown_type.outcome_of(pair)
        found = f"an unknown scenario type is {outcome}"
        _demand(outcome in ("failed", None), found, "answer failed: a misspelt type has to show")


def _costs_only_itself(seen: Transcript, reply: Reply, what: str) -> None:
    fix = "answer 200, and that pair as failed, retryable false: else the scheduler has to halve the call to find it"
    _demand(reply.is_answer, f"{reply.described()} for a whole call with {what}", fix)
    for pair in seen.known.asked.pairs:
        before, after = seen.known_again.outcome_of(pair), reply.outcome_of(pair)
        found = f"{_name(pair)} is {before} alone and {after} beside {what}"
        _demand(before is None or after in (before, None), found, "decide about each pair by itself")


def _is_settled(reply: Reply, pair: Pair, what: str) -> None:
    item = reply.of(pair)
    if item is None:
        return  # for every-pair-once to say
    _demand(item.get("outcome") != "triggered", f"{what} is triggered", "answer failed, with retryable false")
    error = item.get("error")
    is_retryable = item.get("outcome") == "failed" and isinstance(error, dict) and error.get("retryable") is True
    fix = "set retryable to true only for what may pass by itself within seconds"
    _demand(not is_retryable, f"{what} is failed and retryable", fix)


@_rule("token", "a wrong token is refused with 401, and so is none")
def _token(seen: Transcript) -> None:
    replies = (seen.wrong_token, seen.longer_token, seen.no_token)
    tokens = ("a wrong token", "the right token with something behind it", "no token")
    for what, reply in zip(tokens, replies, strict=True):
        fix = "compare the whole bearer token before anything else, and answer 401"
        _demand(reply.failure is None and reply.status == 401, f"{reply.described()} for {what}", fix)


@_rule("malformed", "what is no call is refused with 400 or 422, and harms no later one")
def _malformed(seen: Transcript) -> None:
    _needs(seen.known.is_answer, "no call is answered")
    for what, reply in seen.malformed.items():
        fix = "check the body before anything is evaluated: a 5xx would be tried again and again"
        _demand(reply.failure is None and reply.status in (400, 422), f"{reply.described()} for {what}", fix)
    found = f"{seen.afterwards.described()} for the next call"
    _demand(seen.afterwards.is_answer, found, "a bad call must not break the process")


@_rule("dry-run", "a dry run decides, and stores and sends nothing")
def _dry_run(seen: Transcript) -> None:
    before, again = seen.dry_before, seen.dry_again
    _needs(before.is_answer, "dry runs are not answered")
    _needs(again.is_answer, "dry runs are not answered a second time")
    for reply in seen.calls():
        for pair in _triggered(reply) if reply.asked.dry_run else []:
            found = f"a dry run of {_name(pair)} has a notification id"
            _demand(reply.notification_of(pair) is None, found, "queue nothing in a dry run, so there is no id")
    for pair in before.asked.pairs:
        for later in (seen.known_again, before):
            first, then = seen.known.outcome_of(pair), later.outcome_of(pair)
            is_counted = first == "triggered" and then in ("suppressed", "not_triggered")
            found = f"{_name(pair)} is {first} in the first dry run and {then} in a later one, under another key"
            _demand(not is_counted, found, "start no cool-down in a dry run, and count nothing as sent")
        one, next_one = before.outcome_of(pair), again.outcome_of(pair)
        found = f"{_name(pair)} is {one} in a dry run and {next_one} in the next"
        fix = "remember nothing of a dry run: neither its key nor that the user was notified"
        _demand(one == next_one, found, fix)
    for pair in _triggered(before):
        meant = [reply for reply in seen.at_once if reply.is_answer and reply.of(pair) is not None]
        if _is_nameless(seen, pair):
            continue  # for notification-id to say
        if meant and not any(reply.notification_of(pair) for reply in meant):
            raise _BrokenError(
                f"{_name(pair)} is triggered in a dry run, and {meant[0].outcome_of(pair)} without a notification id"
                " when it is meant, under the same key",
                "store no key in a dry run: the real call must still act",
            )


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


@_rule("same-key-at-once", "of equal calls at the same instant one acts, and all name its notification")
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


@_rule(
    "same-key-again", "a key that was triggered is answered with the same notification, and no user is notified again"
)
def _same_key_again(seen: Transcript) -> None:
    _was_meant(seen)
    found = f"{seen.repeated.described()} for a call that came before"
    _demand(seen.repeated.is_answer, found, "answer a repeat as the first time")
    fix = "look the key up before you decide, and repeat its outcome and notification id"
    _repeats(seen, seen.repeated, _acted_on(seen), "when asked again under its key", fix)


@_rule("key-of-the-pair", "a pair's key is known again in whatever call it comes")
def _key_of_the_pair(seen: Transcript) -> None:
    _was_meant(seen)
    reply = seen.beside_others
    _needs(reply.is_answer, "the call with another user first is not answered")
    answered = [pair for pair in _acted_on(seen) if reply.of(pair) is not None]
    fix = "keep a key for each pair, which is prefix, colon and scenario type, and none for the call"
    _repeats(seen, reply, answered, "in a call about others as well", fix)


def _repeats(seen: Transcript, reply: Reply, pairs: list[Pair], when: str, fix: str) -> None:
    """Whether a reply says of each pair what the calls at once did."""
    for pair in pairs:
        met = {once.notification_of(pair) for once in seen.at_once}
        outcome, notification = reply.outcome_of(pair), reply.notification_of(pair)
        was = ", ".join(sorted(map(str, met)))
        found = f"{_name(pair)} was triggered as {was}, and is {outcome} as {notification} {when}"
        _demand(outcome == "triggered" and notification in met, found, fix)


@_rule("other-key", "another key is another question")
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


@_rule("failed-anew", "what failed under a key is decided anew under it")
def _failed_anew(seen: Transcript) -> None:
    _needs(not seen.dry_run_only, "only dry runs were asked for")
    before, failure, after = seen.before_failure, seen.failure, seen.after_failure
    _needs(before is not NOT_ASKED, "fewer than six users are given")
    _needs(all(reply.is_answer for reply in (before, failure, after)), "not all of its calls are answered")
    due = _triggered(before)
    _needs(bool(due), "no scenario applies to the sixth user")
    for pair in due:
        failed, item = failure.of((seen.unknown_user, pair[1])) or {}, after.of(pair)
        unseen = "an unknown user does not fail, and there is no other failure to be had from outside"
        _needs(failed.get("outcome") == "failed", unseen)
        if item is None or item.get("outcome") == "triggered":
            continue
        is_of_its_own = item.get("outcome") == "failed" and _code_of(item) != _code_of(failed)
        unseen = "the engine ties a key to its user: have one pair fail that works later, and ask twice"
        _needs(not is_of_its_own, unseen)
        raise _BrokenError(
            f"{_name(pair)} is {item.get('outcome')} under a key that only ever failed",
            "keep the keys of what was triggered and no others: a failed pair is asked about again to be decided",
        )


def _code_of(item: Item) -> object:
    return item["error"].get("code") if isinstance(item.get("error"), dict) else None


def _was_meant(seen: Transcript) -> None:
    _needs(not seen.dry_run_only, "only dry runs were asked for")
    _needs(any(reply.is_answer for reply in seen.at_once), "no call that was meant was answered")
    unseen = "no user was triggered with a notification id: give users whom a scenario applies to"
    _needs(bool(_acted_on(seen)), unseen)


def _acted_on(seen: Transcript) -> list[Pair]:
    """The pairs that were triggered, with a notification, by any of the calls at once."""
    named = (pair for reply in seen.at_once for pair in _triggered(reply) if reply.notification_of(pair) is not None)
    return list(dict.fromkeys(named))


def _triggered(reply: Reply) -> list[Pair]:
    return [pair for pair in reply.asked.pairs if reply.outcome_of(pair) == "triggered"]


def _answers(seen: Transcript) -> list[Reply]:
    answers = [reply for reply in seen.calls() if reply.is_answer]
    _needs(bool(answers), "no call was answered")
    return answers


def _needs(holds: bool, unseen: str) -> None:
    if not holds:
        raise _NotSeenError(unseen)


def _demand(holds: bool, found: str, fix: str) -> None:
    if not holds:
        raise _BrokenError(found, fix)


def _name(pair: Pair) -> str:
    return f"{pair[0]} x {pair[1]}"
