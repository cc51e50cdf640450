"""Posts a message to a webhook, signed as Standard Webhooks (specification 1.0) says where there is a secret.

Neither the URL, which lets whoever knows it post, nor anything that the other side says is in an error.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import SecretStr

from shared.errors import AlertNotSentError
from shared.http_transport import PostTransport

# A slice has done its work by then, and its caller is waiting for the answer.
TIMEOUT_SECONDS = 3.0
# Slack says "ok". What is longer is not read, and nobody looks at what was.
ANSWER_BYTES = 64 * 1024


class AlertWebhook:
    """One address, and what proves to it that a message is ours.

    Args:
        url: where to.
        secret: `whsec_` and the key in base64; None: messages are not signed.
        transport: sends the requests.
        now: the clock; a receiver refuses what is minutes old.
        timeout_seconds: for the whole exchange.
    """

    def __init__(
        self,
        url: SecretStr,
        secret: SecretStr | None,
        *,
        transport: PostTransport,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._url = url
        self._key = None if secret is None else base64.b64decode(secret.get_secret_value().removeprefix("whsec_"))
        self._transport = transport
        self._now = now
        self._timeout_seconds = timeout_seconds

    async def send(self, message_id: str, message: Mapping[str, Any]) -> None:
        """Sends it, once.

        Args:
            message_id: the same each time that the same message is sent: a receiver knows by it what it has.
            message: must fit JSON.

        Raises:
            AlertNotSentError: it was not taken, or nobody said so.
        """
        body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            answer = await self._transport.post(
                self._url.get_secret_value(),
                headers=self._headers(message_id, body),
                content=body,
                timeout_seconds=self._timeout_seconds,
                max_bytes=ANSWER_BYTES,
            )
        except httpx.TimeoutException as error:
            raise AlertNotSentError("webhook_timeout") from error
        except httpx.TransportError as error:
            raise AlertNotSentError("webhook_unreachable") from error
        except httpx.DecodingError:
            # It has answered at such length that it is no webhook; or what it sent cannot be unpacked.
            raise AlertNotSentError("webhook_bad_answer") from None
        except (httpx.InvalidURL, ValueError, OverflowError):
            # A port that there cannot be, a host that no name can stand for. Their words quote the URL.
            raise AlertNotSentError("webhook_bad_url") from None
        if not 200 <= answer.status < 300:
            raise AlertNotSentError(f"webhook_http_{answer.status}")

    def _headers(self, message_id: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._now().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "scenario-evaluation-scheduler",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
        }
        if self._key is not None:
            signed = f"{message_id}.{timestamp}.".encode() + body
            signature = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
            headers["webhook-signature"] = f"v1,{signature}"
        return headers
