"""TLS contexts that read the system's authorities for their first connection still refuse everybody else."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from shutil import which

import pytest

from fleet.http_client import late_authorities

CERTIFICATE = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2"


@pytest.mark.skipif(which("openssl") is None, reason="openssl makes the certificate")
async def test_a_server_is_known_by_authorities_that_are_read_when_it_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = [*CERTIFICATE.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    subprocess.run(["openssl", *words, "-out", str(certificate)], check=True, capture_output=True)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=own)
    port = server.sockets[0].getsockname()[1]
    before = ssl.SSLContext.set_default_verify_paths
    with late_authorities():
        knowing, other = ssl.create_default_context(), ssl.create_default_context()
    assert ssl.SSLContext.set_default_verify_paths is before
    async with server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=other, server_hostname="localhost")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert knowing.get_ca_certs() == []
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=knowing, server_hostname="localhost")
        writer.close()
        assert len(knowing.get_ca_certs()) == 1
