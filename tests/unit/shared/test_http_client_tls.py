"""The real HTTP client and TLS: names, authorities, faults of a certificate, TLS 1.3 and HTTP/2.

A proxy of this machine, which the environment names, leads every name to the server of the test.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from shared.database import Database, connect
from shared.errors import DatabaseUnavailableError
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
    certificate: trustme.LeafCert | SelfSigned,
    *,
    protocol: str = "http/1.1",
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
) -> AsyncIterator[SimpleNamespace]:
    """A proxy, and the engine behind it; yields what they saw."""
    seen = SimpleNamespace(tunnels=[], names=[], heads=[])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = version
    context.set_alpn_protocols([protocol])
    context.sni_callback = lambda _, name, __: seen.names.append(name)
    certificate.configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.tunnels.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await writer.start_tls(context)
            if protocol == "h2":
                await answer_http2(reader, writer)
            else:
                seen.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield seen


async def post(url: str = f"https://{ENGINE}/") -> HttpResponse:
    return await HttpClient(url, {}, connect_seconds=20).post(b"{}", {}, timeout_seconds=20, max_bytes=100)


@pytest.mark.parametrize(
    ("given", "name", "certified"),
    [
        ("ENGINE.example.org", "engine.example.org", "engine.example.org"),
        ("engine.example.org.", "engine.example.org.", "engine.example.org"),
        ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("bücher.example.", "xn--bcher-kva.example.", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example", "xn--fa-hia.example"),
    ],
)
async def test_tunnel_certificate_check_and_host_header_use_the_urls_name(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, given: str, name: str, certified: str
) -> None:
    async with engine(monkeypatch, authority.issue_cert(certified)) as seen:
        assert (await post(f"https://{given}/")).content == b"ok"
    assert seen.tunnels == [f"CONNECT {name}:443 HTTP/1.1".encode()]
    assert seen.names == [certified]
    assert f"\r\nHost: {name}\r\n".encode() in seen.heads[0]


class SelfSigned:
    """A server's certificate as `openssl req -x509` makes it: that of an authority, which signed itself."""

    def configure_cert(self, context: ssl.SSLContext) -> None:
        made = trustme.CA()
        with trustme.Blob(made.private_key_pem.bytes() + made.cert_pem.bytes()).tempfile() as path:
            context.load_cert_chain(path)


async def trouble(
    monkeypatch: pytest.MonkeyPatch, certificate: trustme.LeafCert | SelfSigned, host: str = ENGINE
) -> str:
    async with engine(monkeypatch, certificate) as seen:
        with pytest.raises(HttpError) as caught:
            await post(f"https://{host}/?key=hush")
    assert seen.heads == [], "nothing is sent to a server that is not the one meant"
    assert "hush" not in str(caught.value)
    return str(caught.value)


async def test_a_certificates_fault_is_named_and_nothing_sent(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = authority.issue_cert(ENGINE, not_before=yesterday - timedelta(days=1), not_after=yesterday)
    assert "certificate expired" in await trouble(monkeypatch, expired)
    other_name = await trouble(monkeypatch, authority.issue_cert("other.example.org"))
    assert f'not valid for name "{ENGINE}"; certificate is only valid for DnsName("other.example.org")' in other_name
    look_alike = await trouble(monkeypatch, authority.issue_cert("fass.example"), "faß.example")
    assert "certificate not valid for name" in look_alike
    unknown = "no connection: invalid peer certificate: UnknownIssuer: "
    unknown += "no certificate authority that is trusted here signed it"
    assert await trouble(monkeypatch, trustme.CA().issue_cert(ENGINE)) == unknown
    assert "it is self-signed as an authority" in await trouble(monkeypatch, SelfSigned())
    (tmp_path / "empty.pem").touch()
    # Another authority is trusted by the system's folder, in which files are named by a hash.
    (folder := tmp_path / "authorities").mkdir()
    trustme.CA().cert_pem.write_to_path(str(folder / "0badcafe.0"))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    missing = f"{unknown} (SSL_CERT_FILE names no file of certificates)"
    assert len(missing) <= 300, "what the database keeps"
    for bundle in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        assert await trouble(monkeypatch, authority.issue_cert(ENGINE)) == missing
    # On a system that has no other certificates the client cannot even be built.
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    without = await trouble(monkeypatch, authority.issue_cert(ENGINE))
    assert without.endswith(
        "No CA certificates were loaded from the system (SSL_CERT_FILE names no file of certificates)"
    )
    # As on a system that has a folder of certificates and no file, and on one that has neither.
    monkeypatch.delenv("SSL_CERT_DIR")
    monkeypatch.delenv("SSL_CERT_FILE")
    for capath, said in ((str(tmp_path), unknown), (None, missing)):
        paths = SimpleNamespace(cafile=None, capath=capath)
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda paths=paths: paths)
        assert await trouble(monkeypatch, trustme.CA().issue_cert(ENGINE)) == said


@pytest.mark.parametrize("only", [{"version": ssl.TLSVersion.TLSv1_3}, {"protocol": "h2"}], ids=["TLS 1.3", "HTTP/2"])
async def test_an_engine_of_one_version_alone_is_served(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, only: dict[str, Any]
) -> None:
    async with engine(monkeypatch, authority.issue_cert(ENGINE), **only):
        assert (await post()).content == b"ok"


async def test_trouble_with_the_data_apis_certificate_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def failure() -> str:
        database = Database(connect(f"https://{ENGINE}", "sb_secret_key", connections=1), retry_seconds=0)
        with pytest.raises(DatabaseUnavailableError) as caught:
            await database.call("scheduler_claim")
        return str(caught.value)

    async with engine(monkeypatch, trustme.CA().issue_cert(ENGINE)):
        assert "UnknownIssuer: no certificate authority that is trusted here signed it" in await failure()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
        assert "No CA certificates were loaded from the system" in await failure()
