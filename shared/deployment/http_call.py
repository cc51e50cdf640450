"""One HTTP request, and what a person reads of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from shared.config import split_name, split_tokens
from shared.deployment.report import CheckError
from shared.sanitize import sanitize

LONGEST_ANSWER = 1024 * 1024


def send(client: httpx.Client, method: str, url: str, **options: Any) -> httpx.Response:
    """Sends one request, and returns the answer with the beginning of its body; `options` are those of httpx.

    Raises:
        CheckError: there was no answer.
    """
    body = b""
    try:
        with client.stream(method, url, **options) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > LONGEST_ANSWER:
                    break
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The texts of others may repeat a header.
        reason = error if isinstance(error, httpx.ConnectError) else type(error).__name__
        raise CheckError(f"{url}: no answer ({reason})") from error
    return httpx.Response(response.status_code, content=body)


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
    texts = body.get("code"), body.get("detail") or body.get("message") or body.get("title")
    code, detail = (text if isinstance(text, str) else "" for text in texts)
    # Before they are cut: half of a secret is one as well.
    hidden = split_tokens(",".join(secrets.values()))
    hidden += [split_name(secret)[1] for secret in hidden]
    for secret in sorted(hidden, key=len, reverse=True):
        code, detail = code.replace(secret, "[secret]"), detail.replace(secret, "[secret]")
    said = f"{answer.status_code} {sanitize(code, limit=80)}".rstrip()
    return f"{said}: {sanitize(detail, limit=300)}" if detail else said
