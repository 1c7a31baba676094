from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fanfold.gateway.settings import GatewaySettings
from fanfold.gateway.tls import Certificates
from fanfold.kit.settings import SettingsError
from tests.unit.gateway.conftest import Wire

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Rig


def issue(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed pair, written over the one before."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for path, data in (
        (folder / "tls.crt", certificate.public_bytes(serialization.Encoding.PEM)),
        (folder / "tls.key", pem),
    ):
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(path)
    return folder / "tls.crt", folder / "tls.key"


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


async def connect(rig: Rig, context: ssl.SSLContext, name: str) -> Wire:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.server.port, ssl=context, server_hostname=name)
    return Wire(reader, writer)


async def test_requests_and_uploads_cross_tls_and_services_are_told(rig: Rig, tmp_path: Path) -> None:
    pair = issue(tmp_path, "old.example")
    await rig.start(tls=Certificates(*pair).context)
    wire = await connect(rig, trusting(pair[0]), "old.example")
    wire.send(rig.request(b"POST /v1/images", body=b"x" * 1_000_000))
    assert (await wire.answer()).status == 200
    (received,) = rig.service.received
    assert (len(received.body), received.one("x-forwarded-proto")) == (1_000_000, "https")
    wire.writer.close()


async def test_a_new_certificate_counts_for_new_connections_and_drops_none(rig: Rig, tmp_path: Path) -> None:
    pair = issue(tmp_path, "old.example")
    certificates = Certificates(*pair)
    await rig.start(tls=certificates.context)
    before = await connect(rig, trusting(pair[0]), "old.example")
    assert not certificates.reload()
    issue(tmp_path, "new.example")
    assert certificates.reload()
    after = await connect(rig, trusting(pair[0]), "new.example")
    for wire in (before, after):
        wire.send(rig.request())
        assert (await wire.answer()).status == 200
        wire.writer.close()


@pytest.mark.parametrize("damage", ["no certificate", "another key", "gone"])
async def test_a_broken_pair_leaves_the_old_one_in_use(rig: Rig, tmp_path: Path, damage: str) -> None:
    pair = issue(tmp_path, "old.example")
    trusted = trusting(pair[0])
    certificates = Certificates(*pair)
    await rig.start(tls=certificates.context)
    if damage == "no certificate":
        pair[0].write_text("nonsense")
    elif damage == "another key":
        other = tmp_path / "other"
        other.mkdir()
        issue(other, "other.example")[1].replace(pair[1])
    else:
        pair[1].unlink()
    assert not certificates.reload()
    wire = await connect(rig, trusted, "old.example")
    wire.send(rig.request())
    assert (await wire.answer()).status == 200
    wire.writer.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize(("version", "taken"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)])
async def test_tls_below_1_2_is_refused(rig: Rig, tmp_path: Path, version: ssl.TLSVersion, taken: bool) -> None:
    pair = issue(tmp_path, "old.example")
    await rig.start(tls=Certificates(*pair).context)
    old = trusting(pair[0])
    old.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client itself would refuse to try
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, version
    if taken:
        (await connect(rig, old, "old.example")).writer.close()
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(rig, old, "old.example")


async def test_plain_http_on_the_tls_port_is_no_request(rig: Rig, tmp_path: Path) -> None:
    await rig.start(tls=Certificates(*issue(tmp_path, "old.example")).context)
    wire = await rig.send(rig.request())
    with suppress(ConnectionError):
        assert b"HTTP" not in await wire.reader.read()
    assert rig.service.received == []


def test_a_pair_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FANFOLD_TLS_CERTIFICATE"):
        Certificates(tmp_path / "none.crt", tmp_path / "none.key")
    with pytest.raises(ValueError, match="come together"):
        GatewaySettings(snapshot_source="file:/x", tls_key=tmp_path / "tls.key")
