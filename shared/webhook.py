"""Posts a message to a webhook, signed as Standard Webhooks (specification 1.0) says where there is a secret.

No error contains the URL, which is a secret, or text of the answer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import SecretStr

from shared.errors import AlertNotSentError
from shared.http_client import HttpClient
from shared.post_client import Connect, HttpError, HttpTimeoutError

# A slice has done its work by then, and its caller is waiting for the answer.
TIMEOUT_SECONDS = 3.0
CONNECT_SHARE = 0.9
# Slack says "ok". What is longer is not read.
ANSWER_BYTES = 64 * 1024


class AlertWebhook:
    """One address, and the secret that signs messages to it, if there is one: `whsec_` and the key in base64."""

    def __init__(
        self,
        url: SecretStr,
        secret: SecretStr | None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        connect: Connect = HttpClient,
    ) -> None:
        self._key = None if secret is None else base64.b64decode(secret.get_secret_value().removeprefix("whsec_"))
        headers = {"Content-Type": "application/json", "User-Agent": "scenario-evaluation-scheduler"}
        self._client = connect(url.get_secret_value(), headers, connect_seconds=CONNECT_SHARE * timeout_seconds)
        self._timeout_seconds = timeout_seconds

    async def send(self, message_id: str, message: Mapping[str, Any]) -> None:
        """Sends a message, once; a receiver recognizes a repeated message by its id.

        Raises:
            AlertNotSentError: it was not accepted, or no answer confirmed it.
        """
        body = orjson.dumps(message)
        try:
            answer = await self._client.post(
                body, self._headers(message_id, body), timeout_seconds=self._timeout_seconds, max_bytes=ANSWER_BYTES
            )
        except HttpTimeoutError as error:
            raise AlertNotSentError("webhook_timeout") from error
        except HttpError as error:
            raise AlertNotSentError("webhook_unreachable") from error
        except ValueError:
            # A port that cannot be, a host that no name can stand for. The text may quote the URL.
            raise AlertNotSentError("webhook_bad_url") from None
        # Its status counts: what took a message took it, whatever else it answers.
        if not 200 <= answer.status < 300:
            raise AlertNotSentError(f"webhook_http_{answer.status}")

    def _headers(self, message_id: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
        if self._key is not None:
            signed = f"{message_id}.{timestamp}.".encode() + body
            signature = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
            headers["webhook-signature"] = f"v1,{signature}"
        return headers
