"""The real HTTP client and TLS: names, authorities, what is wrong with a certificate, TLS 1.3 and HTTP/2.

A proxy of this machine, which the environment names, leads every name to the server of the test, and sees what is
looked up.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from shared.http_client import HttpClient
from shared.post_client import HttpError, HttpResponse

ENGINE = "engine.example.org"


@pytest.fixture(autouse=True)
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    """The one that is trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return authority


async def answer_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                connection.send_headers(event.stream_id, [(":status", "200")])
                connection.send_data(event.stream_id, b"ok", end_stream=True)
        writer.write(connection.data_to_send())


@asynccontextmanager
async def engine(
    monkeypatch: pytest.MonkeyPatch,
    certificate: trustme.LeafCert,
    *,
    protocols: Sequence[str] = ("http/1.1",),
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
) -> AsyncIterator[list[bytes]]:
    """A proxy and the engine behind it, whatever it is asked to lead to; the heads of what each was sent."""
    heads: list[bytes] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = version
    context.set_alpn_protocols([*protocols])
    certificate.configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await writer.start_tls(context)
            if protocols == ("h2",):
                await answer_http2(reader, writer)
            else:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield heads


async def post(url: str = f"https://{ENGINE}/") -> HttpResponse:
    return await HttpClient(url, {}, connect_seconds=20).post(b"{}", {}, timeout_seconds=20, max_bytes=100)


async def trouble(monkeypatch: pytest.MonkeyPatch, certificate: trustme.LeafCert) -> str:
    async with engine(monkeypatch, certificate) as heads:
        with pytest.raises(HttpError) as caught:
            await post(f"https://{ENGINE}/?key=hush")
    assert len(heads) == 1, "nothing is sent to a server that is not the one meant"
    assert "hush" not in str(caught.value)
    return str(caught.value)


async def test_trouble_with_a_certificate_is_said_in_so_many_words(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = authority.issue_cert(ENGINE, not_before=yesterday - timedelta(days=1), not_after=yesterday)
    assert "certificate expired" in await trouble(monkeypatch, expired)
    assert f'not valid for name "{ENGINE}"' in await trouble(monkeypatch, authority.issue_cert("other.example.org"))
    unknown = "no connection: invalid peer certificate: UnknownIssuer: "
    unknown += "no certificate authority that is trusted here signed it"
    assert await trouble(monkeypatch, trustme.CA().issue_cert(ENGINE)) == unknown
    missing = f"{unknown} (SSL_CERT_FILE names no file of certificates)"
    assert len(missing) <= 300, "what the database keeps"
    (tmp_path / "empty.pem").touch()
    for bundle in ("none.pem", "empty.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / bundle))
        assert await trouble(monkeypatch, authority.issue_cert(ENGINE)) == missing


@pytest.mark.parametrize(
    ("protocols", "version"), [(("http/1.1",), ssl.TLSVersion.TLSv1_3), (("h2",), ssl.TLSVersion.TLSv1_2)]
)
async def test_tls_1_3_or_http_2_alone_is_enough(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, protocols: Sequence[str], version: ssl.TLSVersion
) -> None:
    async with engine(monkeypatch, authority.issue_cert(ENGINE), protocols=protocols, version=version):
        assert (await post()).content == b"ok"
