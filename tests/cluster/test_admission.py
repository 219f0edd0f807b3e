"""Who gets in: certificates by role, and nothing for anybody else."""

from __future__ import annotations

import pickle
import socket
import ssl
import stat
from pathlib import Path

import pytest

from azr_mlx.cluster import certificates, messages
from azr_mlx.cluster.certificates import Credentials
from azr_mlx.cluster.sharing import address_of
from azr_mlx.cluster.transport import Connection, NotAdmitted, Server, Unreachable
from azr_mlx.errors import AzrError, UsageError

WAIT = 10.0  # seconds; a refusal is quick


@pytest.fixture(scope="module")
def other_cluster() -> tuple[Credentials, Credentials]:
    return certificates.create()


@pytest.fixture
def called(files):
    """A server that notes what it is asked, and its port."""
    seen: list[bytes] = []

    def answer(message: bytes) -> bytes:
        seen.append(message)
        return b"secret"

    with Server("127.0.0.1", 0, certificates.load(files[0]), {"Ask": answer}) as server:
        yield server.port, seen


def ask(port: int, identity: Credentials) -> bytes:
    with Connection("127.0.0.1", port, identity) as connection:
        return connection.call("Ask", b"hello", WAIT)


def test_a_worker_of_the_cluster_is_answered(called, files) -> None:
    assert ask(called[0], certificates.load(files[1])) == b"secret"
    assert called[1] == [b"hello"]


def test_a_certificate_of_another_cluster_is_not(called, other_cluster, files) -> None:
    with pytest.raises((NotAdmitted, Unreachable)):
        ask(called[0], other_cluster[1])
    mine = certificates.load(files[1])
    with pytest.raises((NotAdmitted, Unreachable)):  # believes the coordinator, but shows what others have signed
        ask(called[0], Credentials(other_cluster[1].key, other_cluster[1].certificate, mine.authority))
    assert called[1] == []


def test_a_peer_without_a_certificate_learns_nothing(called) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    received = b""
    with socket.create_connection(("127.0.0.1", called[0]), timeout=WAIT) as plain:
        try:
            with context.wrap_socket(plain) as secured:
                secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                received = secured.recv(100)
        except (ssl.SSLError, ConnectionError):
            pass
    assert received == b""
    with socket.create_connection(("127.0.0.1", called[0]), timeout=WAIT) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.settimeout(WAIT)
        try:
            received = plain.recv(100)
        except ConnectionError:
            received = b""
    assert b"secret" not in received
    assert called[1] == []


def test_a_workers_certificate_does_not_make_a_coordinator(files) -> None:
    thief = certificates.load(files[1])
    server = Server("127.0.0.1", 0, thief, {"Ask": lambda message: b"do this"})
    with server, pytest.raises((NotAdmitted, Unreachable)):
        ask(server.port, thief)


def test_a_coordinators_certificate_does_not_make_a_worker(called, files) -> None:
    with pytest.raises((NotAdmitted, Unreachable)):
        ask(called[0], certificates.load(files[0]))
    assert called[1] == []


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_from_a_holder_of_the_certificate_is_never_loaded(cluster, tmp_path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    header = b'{"values":{},"arrays":[["a","O",[1]]]}'
    with Connection("127.0.0.1", cluster.server.port, certificates.load(cluster.files[1])) as connection:
        for method in ("Hello", "Join", "Next", "Weights", "Done", "Beat", "Leave"):
            for message in (trap, len(header).to_bytes(4, "little") + header + trap, messages.pack({}) + trap):
                with pytest.raises(ValueError):
                    connection.call(method, message, WAIT)
    assert not (tmp_path / "sprung").exists()


def test_a_call_has_a_deadline(files) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        connection = Connection("127.0.0.1", silent.getsockname()[1], certificates.load(files[1]))
        with connection, pytest.raises(Unreachable):
            connection.call("Ask", b"", 0.5)


def test_a_port_that_is_taken_is_one_line(called, files) -> None:
    with pytest.raises(AzrError, match="the port is taken"):
        Server("127.0.0.1", called[0], certificates.load(files[0]), {})


def test_the_files_belong_to_their_owner_and_are_never_replaced_by_accident(files, tmp_path) -> None:
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    mine, theirs = (certificates.load(path) for path in files)
    assert mine.fingerprint == theirs.fingerprint
    assert mine.key != theirs.key
    certificates.write(tmp_path)
    before = (tmp_path / certificates.WORKER_FILE).read_bytes()
    with pytest.raises(UsageError, match="--replace"):
        certificates.write(tmp_path)
    certificates.write(tmp_path, replace=True)
    assert (tmp_path / certificates.WORKER_FILE).read_bytes() != before


@pytest.mark.parametrize(
    "text", ["mini:8786", "tcp://mini:8786", "tls://mini", "tls://:1", "tls://a:70000", "tls://u@a:1"]
)
def test_an_address_is_a_host_and_a_port(text) -> None:
    with pytest.raises(UsageError, match="tls://host:port"):
        address_of(text)


def test_addresses_of_both_kinds_are_read() -> None:
    assert address_of("tls://mini.local:8786") == ("mini.local", 8786)
    assert address_of("tls://[fe80::1]:0") == ("[fe80::1]", 0)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path, content) -> None:
    path = tmp_path / "worker.pem"
    with pytest.raises(UsageError, match="azr cluster init"):
        certificates.load(path)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="azr cluster init"):
        certificates.load(path)
