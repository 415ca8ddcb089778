"""Films signed with C2PA manifests, by certificates that are made here."""

from __future__ import annotations

import datetime
from functools import cache
from pathlib import Path

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CREATED = {
    "label": "c2pa.actions",
    "data": {
        "actions": [
            {
                "action": "c2pa.created",
                "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
            }
        ]
    },
}
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
          "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def training(label: str = "cawg.training-mining", **uses: str) -> dict:
    """A training-and-mining assertion: use by entry."""
    prefix = label.partition(".")[0]
    return {"label": label, "data": {"entries": {f"{prefix}.{name}": {"use": use} for name, use in uses.items()}}}


def sign(film: Path, signed: Path, *assertions: dict, mime: str = "video/mp4", remote: str | None = None) -> Path:
    """Writes a film again with a manifest inside, or with a reference to one at a URL."""
    builder = c2pa.Builder({"claim_generator_info": [{"name": "tests"}], "assertions": [CREATED, *assertions]})
    if remote is not None:
        builder.set_no_embed()
        builder.set_remote_url(remote)
    chain, key = _certificates()
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, key, None))
    with film.open("rb") as source, signed.open("w+b") as target:
        builder.sign(signer, mime, source, target)
    return signed


@cache
def _certificates() -> tuple[bytes, bytes]:
    """(certificate of a signer and of the authority that signed it, key of the signer), PEM."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("tests root", root_key, "tests root", root_key, "key_cert_sign", "crl_sign")
    leaf = _certificate("tests signer", key, "tests root", root_key, "digital_signature")
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf.public_bytes(pem) + root.public_bytes(pem), private


def _certificate(subject, key, issuer, issuer_key, *usages) -> x509.Certificate:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    authority = subject == issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject)).issuer_name(_name(issuer)).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + 30 * day)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{name: name in usages for name in USAGES}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )  # fmt: skip
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    names = ((NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, "Tests of clipmill"))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in names])
