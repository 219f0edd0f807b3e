"""Calls between coordinator and workers: gRPC with mutual TLS, plain bytes, a deadline on every call.

Only workers call: they need no open port. A worker believes the certificate of the coordinator's role alone, and the
coordinator that of the workers' role, so that a worker's file lets nobody pose as a coordinator. Whoever has no
certificate of the cluster does not get beyond the TLS handshake.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

# Before gRPC is imported: its handlers of fork stop the threads of a process that starts another one, and hang on
# macOS (grpc issue 37259). Nothing here forks: programs are judged by processes that were started before.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from azr_mlx.cluster.certificates import COORDINATOR, WORKER, Credentials, missing_extra
from azr_mlx.errors import AzrError

try:
    import grpc
except ImportError:
    raise missing_extra() from None

SERVICE = "azr.Cluster"
LARGEST_MESSAGE = 1 << 30  # bytes: the gradient of the largest adapter we know of is half of it
MOST_CALLS = 256  # at a time; each worker has up to three under way
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.keepalive_time_ms", 10_000),  # a cable that was pulled is noticed while nobody calls
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.so_reuseport", 0),  # a port that another run listens on is taken
]

Handler = Callable[[bytes], bytes]


class Unreachable(Exception):
    """The other side did not answer before the deadline, or there is no connection."""


class NotAdmitted(AzrError):
    """The other side does not belong to the cluster of this certificate, or will not have us."""


class Server:
    """Answers calls at one address. Use it as a context; `port` is the one it listens on."""

    def __init__(self, host: str, port: int, identity: Credentials, handlers: Mapping[str, Handler]) -> None:
        def answer(handler: Handler) -> Callable[[bytes, grpc.ServicerContext], bytes]:
            def call(message: bytes, context: grpc.ServicerContext) -> bytes:
                if context.auth_context().get("x509_common_name") != [WORKER.encode()]:
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, "the certificate is not a worker's")
                try:
                    return handler(message)
                except ValueError as error:  # whoever calls is told what is wrong with the message, and nothing else
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:300])
                    raise

            return call

        methods = {name: grpc.unary_unary_rpc_method_handler(answer(handler)) for name, handler in handlers.items()}
        self._server = grpc.server(
            ThreadPoolExecutor(MOST_CALLS, "cluster"), options=_OPTIONS, maximum_concurrent_rpcs=MOST_CALLS
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        credentials = grpc.ssl_server_credentials(
            [(identity.key, identity.certificate)], root_certificates=identity.authority, require_client_auth=True
        )
        try:
            self.port = self._server.add_secure_port(f"{host}:{port}", credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise AzrError(
                f"cannot listen on {host}:{port}: the port is taken, or the address is not one of this machine's"
            )

    def __enter__(self) -> Server:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=1.0).wait(5.0)


class Connection:
    """A worker's connection to its coordinator; it comes back by itself after it was lost."""

    def __init__(self, host: str, port: int, identity: Credentials) -> None:
        credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
        options = [*_OPTIONS, ("grpc.ssl_target_name_override", COORDINATOR)]
        self._channel = grpc.secure_channel(f"{host}:{port}", credentials, options=options)

    def call(self, method: str, message: bytes, seconds: float) -> bytes:
        """The answer to a call. Raises Unreachable after `seconds`, and NotAdmitted or ValueError when refused."""
        try:
            answer: bytes = self._channel.unary_unary(f"/{SERVICE}/{method}")(message, timeout=seconds)
        except grpc.RpcError as error:
            code, words = error.code(), str(error.details())
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                raise ValueError(words) from None
            if code is grpc.StatusCode.PERMISSION_DENIED:
                raise NotAdmitted(f"the coordinator refuses: {words}") from None
            if re.search(r"certificate|handshake|SSL|TSI|Hostname Verification", words):
                raise NotAdmitted(
                    "no connection by TLS: the other side has the certificate of another cluster, or none (copy "
                    "worker.pem of azr cluster init again)"
                ) from None
            raise Unreachable(words) from None
        return answer

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
