"""Each way to break the contract is caught by the rule that it breaks, and by no other."""

from __future__ import annotations

import pytest

from tests.engine_conformance.engine import Engine
from tests.engine_conformance.examination import examine
from tests.engine_conformance.rules import Finding, judge, names

from .broken_engine import FAULTS, TOKEN, TYPES, USERS, Fault, broken_engine

CAUGHT_BY: dict[Fault, set[str]] = {
    "answers nobody": {"one-user", "token"},
    "takes fifty users": {"hundred-users"},
    "answers as text": {"json"},
    "answers a bare list": {"json"},
    "has an outcome of its own": {"json"},
    "fails without an error": {"json"},
    "leaves a pair out": {"every-pair-once"},
    "answers a pair twice": {"every-pair-once"},
    "answers about somebody else": {"nothing-foreign"},
    "echoes the token": {"nothing-foreign"},
    "writes user ids in capitals": {"every-pair-once", "nothing-foreign"},
    "tells stories": {"bounded"},
    "refuses a call with an unknown user": {"unknown-user"},
    "crashes at an unknown type": {"unknown-type"},
    "triggers an unknown user": {"unknown-user"},
    "lets unknown types be tried again": {"unknown-type"},
    "decides by who is asked about beside her": {"unknown-user", "key-of-the-pair"},
    "says that unknown types do not apply": {"unknown-type"},
    "takes any token": {"token"},
    "takes half of a token for the whole": {"token"},
    "forbids instead": {"token"},
    "takes no token": {"token"},
    "crashes at what is no call": {"malformed"},
    "guesses whether it is dry": {"malformed"},
    "is broken by what is no call": {"malformed"},
    "notifies in a dry run": {"dry-run"},
    "notifies in a dry run and cools down": {"dry-run"},
    "cools down after a dry run": {"dry-run"},
    "remembers dry runs": {"dry-run"},
    "keeps the key of a dry run": {"dry-run"},
    "names no notification": {"notification-id"},
    "notifies both of two at once": {"same-key-at-once"},
    "refuses the second of two at once": {"same-key-at-once"},
    "notifies at every repeat": {"same-key-at-once", "same-key-again", "key-of-the-pair"},
    "suppresses a repeat": {"same-key-at-once", "same-key-again", "key-of-the-pair"},
    "keeps keys of calls": {"key-of-the-pair"},
    "keeps keys of users": {"other-key"},
    "replays failures": {"failed-anew"},
    "takes too long": {"one-user"},
    "dribbles about a hundred": {"hundred-users"},
}


# Long enough for a slow machine to answer, where it answers.
TIMEOUTS: dict[Fault, float] = {"takes too long": 0.2, "dribbles about a hundred": 2}


async def findings_about(
    fault: Fault, *, users: list[str] | None = None, dry_run_only: bool = False
) -> dict[str, Finding]:
    async with broken_engine(fault) as url:
        engine = Engine(url, TOKEN, timeout_seconds=TIMEOUTS.get(fault, 10))
        try:
            seen = await examine(engine, users=users or USERS, scenario_types=TYPES, dry_run_only=dry_run_only)
        finally:
            await engine.aclose()
    return {finding.rule: finding for finding in judge(seen)}


async def test_an_engine_that_keeps_the_contract_passes_every_rule() -> None:
    findings = await findings_about("none")
    assert {rule: finding.verdict for rule, finding in findings.items()} == dict.fromkeys(names(), "pass")


def test_every_rule_is_broken_by_some_engine() -> None:
    assert set(CAUGHT_BY) == set(FAULTS)
    assert set().union(*CAUGHT_BY.values()) == set(names())


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_broken_is_caught_and_nothing_else_is_blamed(fault: Fault) -> None:
    findings = await findings_about(fault)
    broken = {rule: finding for rule, finding in findings.items() if finding.verdict == "FAIL"}
    assert set(broken) == CAUGHT_BY[fault], broken
    assert all(finding.found and finding.fix for finding in broken.values())


async def test_what_cannot_be_judged_is_said_and_not_passed() -> None:
    dry = await findings_about("none", dry_run_only=True)
    unseen = {rule for rule, finding in dry.items() if finding.verdict == "not judged"}
    assert unseen == {
        "same-key-at-once",
        "same-key-again",
        "key-of-the-pair",
        "other-key",
        "failed-anew",
        "notification-id",
    }
    assert all(dry[rule].found == "only dry runs were asked for" for rule in unseen)


@pytest.mark.parametrize("fault", ["notifies in a dry run and cools down", "cools down after a dry run"])
async def test_an_engine_that_acts_in_dry_runs_is_caught_by_dry_runs_alone(fault: Fault) -> None:
    findings = await findings_about(fault, dry_run_only=True)
    assert {rule for rule, finding in findings.items() if finding.verdict == "FAIL"} == {"dry-run"}


async def test_a_few_users_are_filled_up_with_strangers() -> None:
    assert (await findings_about("none", users=USERS[:3]))["hundred-users"].verdict == "pass"
    assert (await findings_about("takes fifty users", users=USERS[:3]))["hundred-users"].verdict == "FAIL"
    refused = (await findings_about("refuses a call with an unknown user", users=USERS[:3]))["hundred-users"]
    assert refused.verdict == "not judged"


async def test_who_ties_keys_to_users_is_not_blamed_for_it() -> None:
    findings = await findings_about("ties keys to users")
    assert {rule for rule, finding in findings.items() if finding.verdict != "pass"} == {"failed-anew"}
    assert findings["failed-anew"].verdict == "not judged"


async def test_without_a_sixth_user_nothing_is_said_of_failures() -> None:
    finding = (await findings_about("replays failures", users=USERS[:5]))["failed-anew"]
    assert (finding.verdict, finding.found) == ("not judged", "fewer than six users are given")
