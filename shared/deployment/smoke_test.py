"""Checks a deployment: the function is up, reads mentors and reaches the engine. A dry run sends no notification."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from shared.deployment.http_call import describe_problem, read_object, send
from shared.deployment.report import CheckError, say
from shared.deployment.settings import Deployment
from shared.fingerprint import Fingerprint
from shared.version import VERSION

INVOCATIONS = "/api/v1/scheduler-invocations"
ENDED = frozenset({"success", "partial", "failed", "cancelled"})
HINTS = {
    "engine_rejected": "the engine turns the function away: look at SCENARIO_ENGINE_URL and SCENARIO_ENGINE_TOKEN",
    "engine_unavailable": "the engine is unavailable: check SCENARIO_ENGINE_URL",
}


def describe(fingerprint: Fingerprint) -> str:
    """Returns the beginnings of both digests."""
    return f"code {fingerprint.code_digest[:12]}, settings {fingerprint.settings_digest[:12]}"


def check_secret_key(deployment: Deployment, client: httpx.Client) -> None:
    """Raises CheckError unless the Data API accepts the key."""
    url, key = deployment.config.supabase_url, deployment.config.supabase_secret_key.get_secret_value()
    # An opaque key is no bearer token; a legacy one is both.
    headers = {"apikey": key} | ({} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"})
    try:
        answer = send(client, "GET", f"{url}/rest/v1/", headers=headers, timeout=20)
    except CheckError as error:
        raise CheckError(f"SUPABASE_URL: {error}") from error
    if answer.status_code in (401, 403):
        raise CheckError(f"SUPABASE_SECRET_KEY: refused by {url} ({describe_problem(answer, deployment.secrets)})")
    if answer.status_code == 404:
        raise CheckError(f"SUPABASE_URL: {url} has no Data API at /rest/v1/ (404)")


def _describe_old(expected: Fingerprint, body: dict[str, Any]) -> str:
    """Returns what is known, from its answer, of a function that is not the one that was deployed."""
    if "code_digest" not in body:
        reason = "it knows no token of SCHEDULER_ADMIN_TOKENS, or is older than digests"
        return f"version {body['version']} without digests: still in service is the old one ({reason})"
    found = Fingerprint(*(f"{body.get(name)}" for name in asdict(expected)))
    pairs = zip(("code", "settings"), asdict(found).values(), asdict(expected).values(), strict=False)
    old = " and ".join(part for part, digest, wanted in pairs if digest != wanted)
    return f"{describe(found)}: still in service is the old {old}, with the schedule {found.schedule}"


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """Checks the function at `url`, with the first admin token; a check that fails raises CheckError."""

    url: str
    deployment: Deployment
    client: httpx.Client
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def wait_until_up(self, expected: Fingerprint) -> None:
        """Waits until the function answers with the code and the settings that were deployed."""
        found = ""
        for _ in self._attempts(self.deployment.config.function_start_seconds):
            try:
                answer = self._health()
            except CheckError as error:
                found = f"{error}"
                continue
            body = read_object(answer)
            if answer.status_code != 200 or "version" not in body:
                found = describe_problem(answer, self.deployment.secrets)
            elif body.items() >= asdict(expected).items():
                say(f"version {VERSION} is up at {self.url}: {describe(expected)}")
                return
            else:
                found = _describe_old(expected, body)
        raise CheckError(f"expected {describe(expected)} at {self.url}, found {found}")

    def _health(self) -> httpx.Response:
        """Returns the answer to the first token that the function knows, if it knows one."""
        tokens = [token for _, token in self.deployment.config.admin_tokens()]
        answers = [self._send("GET", "/health", token=token, timeout=10) for token in tokens]
        return next((answer for answer in answers if "code_digest" in read_object(answer)), answers[0])

    def check_token(self) -> None:
        """Checks that the function knows the token."""
        self._read("GET", f"{INVOCATIONS}?limit=1")

    def dry_run(self) -> None:
        """Evaluates ten mentors without consequences, if there are any and the engine supports dry runs."""
        if "dry_run" not in self.deployment.config.engine_supports:
            say("the engine supports no dry runs (ENGINE_SUPPORTS), so nothing was tried")
            return
        mentors = self._read("GET", f"{INVOCATIONS}/active-peer-mentors?limit=10")["data"]
        if not mentors:
            say("no mentor is active yet, so nothing was tried; a scheduled run needs at least one")
            return
        request = {"user_ids": [mentor["user_id"] for mentor in mentors], "dry_run": True}
        invocation = self._read("POST", INVOCATIONS, request | {"note": f"smoke test of version {VERSION}"})
        for _ in self._attempts(2 * self.deployment.config.time_budget_seconds + 30):
            if invocation["status"] in ENDED or invocation["error_code"] in HINTS:
                break
            invocation = self._read("GET", f"{INVOCATIONS}/{invocation['id']}")
        counts = invocation["counts"]
        if invocation["status"] == "success":
            say(
                f"a dry run of {counts['mentors']} mentors succeeded: {counts['evaluations']} evaluations, "
                f"{counts['triggered']} would have notified"
            )
            return
        if invocation["status"] not in ENDED:
            # Otherwise it would continue for hours.
            self._send("PUT", f"{INVOCATIONS}/{invocation['id']}", {"status": "cancelled"})
        causes = [f"{cause['count']} times {cause['code']}: {cause['message']}" for cause in invocation["failures"]]
        error = invocation["error_code"]
        found = [*causes, *filter(None, (HINTS.get(error, error), invocation["error_message"]))]
        raise CheckError(
            f"the dry run {invocation['id']}: expected success, found {invocation['status']}; "
            + "; ".join(found or [f"{counts['not_evaluated']} not evaluated"])
        )

    def _read(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = self._send(method, path, body)
        if answer.status_code == 401:
            raise CheckError(f"{path}: the function does not know the first of SCHEDULER_ADMIN_TOKENS (401)")
        found = read_object(answer)
        if answer.status_code not in (200, 201, 202) or not found:
            problem = describe_problem(answer, self.deployment.secrets)
            raise CheckError(f"{path}: expected an answer, found {problem}")
        return found

    def _send(
        self, method: str, path: str, body: object = None, token: str = "", timeout: float | None = None
    ) -> httpx.Response:
        config = self.deployment.config
        headers = {"Authorization": f"Bearer {token or config.admin_tokens()[0][1]}"}
        timeout = timeout or config.time_budget_seconds + 60
        return send(self.client, method, f"{self.url}{path}", headers=headers, json=body, timeout=timeout)

    def _attempts(self, seconds: float) -> Iterator[None]:
        """Yields at once, then at growing intervals until the time is over."""
        until, pause = self.clock() + seconds, 0.2
        yield
        while self.clock() < until:
            self.sleep(pause)
            pause = min(pause * 1.5, 5.0)
            yield
