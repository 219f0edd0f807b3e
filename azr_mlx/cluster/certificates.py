"""Who may take part in a cluster: two files, one for the coordinator and one for its workers.

`create` makes an authority, signs one certificate for each role with it, and forgets the authority's key: nobody can
be added later, and there is no key to lose. Each file holds the private key of its role, its certificate and the
authority's certificate, in PEM. A new cluster, with new files, shuts everybody out who holds the old ones.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from azr_mlx.errors import AzrError, UsageError

COORDINATOR, WORKER = "azr-coordinator", "azr-worker"  # names in the certificates: a role is not another's
COORDINATOR_FILE, WORKER_FILE = "coordinator.pem", "worker.pem"
VALID_DAYS = 3650
_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----\n.*?-----END \1-----\n", re.DOTALL)


@dataclass(frozen=True)
class Credentials:
    """What one side shows, and whom it believes. All in PEM."""

    key: bytes
    certificate: bytes
    authority: bytes

    @property
    def fingerprint(self) -> str:
        """Names the cluster: the first 128 bits of the SHA-256 of the authority's certificate, as hexadecimal."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.authority.decode())).hexdigest()[:32]


def default_folder() -> Path:
    """Where the certificates of this machine are: ~/.azr/cluster."""
    return Path.home() / ".azr" / "cluster"


def load(path: Path) -> Credentials:
    """Read a file that `create` wrote. Raises AzrError when it is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"no certificate of a cluster in {path} ({(error.strerror or str(error)).lower()}): make one with azr "
            f"cluster init on the coordinator, and copy its {WORKER_FILE} to every worker"
        ) from None
    blocks = [(kind.decode(), match.group()) for match in _BLOCK.finditer(content) for kind in [match.group(1)]]
    if [kind for kind, _ in blocks] != ["PRIVATE KEY", "CERTIFICATE", "CERTIFICATE"]:
        raise UsageError(f"{path} is no file of azr cluster init: it should hold a private key and two certificates")
    return Credentials(*(block for _, block in blocks))


def write(folder: Path, *, replace: bool = False) -> tuple[Path, Path]:
    """Make a cluster's two files in a folder, readable by their owner alone; returns their paths.

    Raises UsageError when there are some already, unless they may be replaced.
    """
    paths = folder / COORDINATOR_FILE, folder / WORKER_FILE
    present = [path for path in paths if path.exists()]
    if present and not replace:
        raise UsageError(
            f"{present[0]} is there already: use it, or make a new cluster with --replace, which shuts out all "
            "machines of the old one"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, identity in zip(paths, create(), strict=True):
            fresh = path.with_name(f".{path.name}.new")
            fresh.unlink(missing_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(identity.key + identity.certificate + identity.authority)
            fresh.replace(path)
    except OSError as error:
        raise AzrError(f"cannot write the certificates to {folder}: {(error.strerror or str(error)).lower()}") from None
    return paths


def create() -> tuple[Credentials, Credentials]:
    """A new cluster: the identities of its coordinator and of its workers. Raises UsageError without the extra."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise missing_extra() from None

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def signed(name: str, key: ec.EllipticCurvePrivateKey, usage: x509.ObjectIdentifier | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("azr-cluster"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
            .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
        )
        if usage is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        return builder.sign(authority, hashes.SHA256())

    def pem(certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.PEM)

    authority = ec.generate_private_key(ec.SECP256R1())
    root = pem(signed("azr-cluster", authority, None))

    def identity(name: str, usage: x509.ObjectIdentifier) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Credentials(secret, pem(signed(name, key, usage)), root)

    return (
        identity(COORDINATOR, ExtendedKeyUsageOID.SERVER_AUTH),
        identity(WORKER, ExtendedKeyUsageOID.CLIENT_AUTH),
    )


def missing_extra() -> UsageError:
    return UsageError('several machines need an extra of this package: pip install "azr-mlx[cluster]"')
