"""Checks a deployment: the function is up, reads mentors and reaches the engine. A dry run sends no notification."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from shared.deployment.report import CheckError, attempts, say
from shared.deployment.settings import Deployment
from shared.fingerprint import Fingerprint
from shared.sanitize import sanitize
from shared.version import VERSION

INVOCATIONS = "/api/v1/scheduler-invocations"
ENGINE_ERRORS = ("engine_rejected", "engine_unavailable")


def read_object(answer: httpx.Response) -> dict[str, Any]:
    """Returns the JSON object of the body, an empty one where the body is anything else."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def describe_problem(answer: httpx.Response, secrets: Mapping[str, str]) -> str:
    """Returns status, code and detail of an error on one line, cut, without the secrets that it may repeat."""
    body = read_object(answer)
    detail = body.get("detail") or body.get("message") or body.get("title")
    said = f"{answer.status_code} {body.get('code') or ''}".rstrip() + (f": {detail}" if detail else "")
    # Of a list each token, without its name. Before it is cut: half of a secret is one as well.
    for secret in sorted(re.findall(r"[^\s,:]{8,}", ",".join(secrets.values())), key=len, reverse=True):
        said = said.replace(secret, "[secret]")
    return sanitize(said, limit=400)


def ask(client: httpx.Client, secrets: Mapping[str, str], method: str, url: str, **options: Any) -> dict[str, Any]:
    """Returns the JSON object of the answer, or raises CheckError for none or an error, without these secrets."""
    try:
        answer = client.request(method, url, **options)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The texts of others may repeat a header.
        reason = error if isinstance(error, httpx.ConnectError) else type(error).__name__
        raise CheckError(f"{url}: no answer ({reason})") from error
    if not answer.is_success:
        raise CheckError(f"{url}: {describe_problem(answer, secrets)}")
    return read_object(answer)


def check_secret_key(deployment: Deployment) -> None:
    """Raises CheckError unless the Data API accepts the key."""
    url, key = f"{deployment.config.supabase_url}/rest/v1/", deployment.secrets["SUPABASE_SECRET_KEY"]
    # An opaque key is no bearer token; a legacy one is both.
    headers = {"apikey": key} | ({} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"})
    try:
        ask(httpx.Client(), deployment.secrets, "GET", url, headers=headers, timeout=20)
    except CheckError as error:
        raise CheckError(f"SUPABASE_URL or SUPABASE_SECRET_KEY: {error}") from error


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """Checks the function at `url`, with the first admin token; a check that fails raises CheckError."""

    url: str
    deployment: Deployment
    client: httpx.Client = field(default_factory=httpx.Client)
    attempts: Callable[[float], Iterable[None]] = attempts

    def wait_until_up(self, expected: Fingerprint, serve_command: str) -> None:
        """Waits until the function answers with what was deployed; `serve_command` has it answer where others do."""
        found = ""
        for _ in self.attempts(self.deployment.config.function_start_seconds):
            try:
                body = self._ask("GET", "/health", timeout=10)
            except CheckError as error:
                found = f"{error}"
                continue
            if body.items() >= asdict(expected).items():
                say(f"version {VERSION} is up at {self.url}: {expected}")
                return
            # Without digests to one that does not know the first of SCHEDULER_ADMIN_TOKENS.
            said = sanitize(", ".join(f"{name} {text}" for name, text in body.items()), limit=400)
            found = f"{said or 'no such function'}: still in service is the old one; change that: {serve_command}"
        raise CheckError(f"expected {expected} at {self.url}, found {found}")

    def dry_run(self) -> None:
        """Evaluates ten mentors without consequences, if there are any and the engine supports dry runs."""
        if "dry_run" not in self.deployment.config.engine_supports:
            say("the engine supports no dry runs (ENGINE_SUPPORTS), so nothing was tried")
            return
        mentors = self._ask("GET", f"{INVOCATIONS}/active-peer-mentors?limit=10")["data"]
        if not mentors:
            say("no mentor is active yet, so nothing was tried; a scheduled run needs at least one")
            return
        request = {"user_ids": [mentor["user_id"] for mentor in mentors], "dry_run": True}
        run = self._ask("POST", INVOCATIONS, json=request | {"note": f"smoke test of version {VERSION}"})
        for _ in self.attempts(2 * self.deployment.config.time_budget_seconds + 30):
            if run["finished_at"] or run["error_code"] in ENGINE_ERRORS:
                break
            run = self._ask("GET", f"{INVOCATIONS}/{run['id']}")
        counts, error = run["counts"], run["error_code"]
        if run["status"] == "success":
            numbers = f"{counts['evaluations']} evaluations, {counts['triggered']} would have notified"
            say(f"a dry run of {counts['mentors']} mentors succeeded: {numbers}")
            return
        if not run["finished_at"]:
            # It would continue for hours, unless it has just ended.
            with suppress(CheckError):
                self._ask("PUT", f"{INVOCATIONS}/{run['id']}", json={"status": "cancelled"})
        causes = [f"{cause['count']} times {cause['code']}: {cause['message']}" for cause in run["failures"]]
        causes += [*filter(None, (error, run["error_message"]))]
        found = "; ".join(causes or [f"{counts['not_evaluated']} not evaluated"])
        raise CheckError(f"the dry run {run['id']}: expected success, found {run['status']}; {found}")

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        config = self.deployment.config
        headers = {"Authorization": f"Bearer {config.admin_tokens()[0][1]}"}
        options = {"timeout": config.time_budget_seconds + 60, "headers": headers, **options}
        return ask(self.client, self.deployment.secrets, method, f"{self.url}{path}", **options)
