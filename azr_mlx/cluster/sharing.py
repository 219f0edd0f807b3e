"""What the command line says of several machines, before anything of MLX or of a network is imported."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from azr_mlx import config
from azr_mlx.cluster import certificates
from azr_mlx.errors import AzrError, UsageError

# What a shared run is cut into unless its configuration says otherwise. Never by the number of machines: a run is the
# same with any number of them. 32 rows are what an Apple GPU computes at the price of fewer (model.limits.TILE_ROWS).
ITEM_ROWS, GRADIENT_ITEMS = 32, 8


def address_of(text: str) -> tuple[str, int]:
    """Host and port of "tls://host:port". Raises UsageError for anything else; a port of 0 is any free one."""
    match = re.fullmatch(r"tls://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]@]+):(\d{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"{text} is no address: write tls://host:port, such as tls://192.168.1.20:8786")
    return match[1], int(match[2])


@dataclass(frozen=True)
class Sharing:
    """How a run is shared. `address` is where workers of other machines call (None: no other machines)."""

    address: str | None = None
    certificate: Path | None = None  # of the coordinator; None is the one that azr cluster init made
    local_workers: int = 0

    def checked(self) -> Sharing:
        """The same. Raises UsageError when it cannot work, before a model is loaded."""
        if any(util.find_spec(package) is None for package in ("grpc", "cryptography")):
            raise certificates.missing_extra()
        if self.address is not None:
            address_of(self.address)
            certificates.load(self.file)
        return self

    @property
    def file(self) -> Path:
        return self.certificate or certificates.default_folder() / certificates.COORDINATOR_FILE

    def options(self) -> list[str]:
        """The same as words of the command line."""
        words = ["--workers", self.address] if self.address is not None else []
        words += ["--certificate", str(self.certificate)] if self.certificate else []
        return words + (["--local-workers", str(self.local_workers)] if self.local_workers else [])


def cut_into_items(settings: config.Config) -> config.Config:
    """The configuration with the sizes of items that a shared run needs, where it leaves them open."""
    defaults = {"sampling.item_rows": ITEM_ROWS, "optim.gradient_items": GRADIENT_ITEMS}
    given = config.flatten(settings)
    return config.with_values(settings, {key: value for key, value in defaults.items() if not given[key]})


def work_for(
    address: str,
    *,
    certificate: Path | None,
    fingerprint: str | None,
    model: str,
    name: str,
    patience: float,
    slowdown: float,
    say: Callable[[str], None],
) -> int:
    """Be a worker of the coordinator at `address` until its run is over, or until a signal; returns the exit code."""
    host, port = address_of(address)
    if util.find_spec("grpc") is None:
        raise certificates.missing_extra()
    identity = certificates.load(certificate or certificates.default_folder() / certificates.WORKER_FILE)
    if fingerprint is not None and fingerprint.lower() != identity.fingerprint:
        raise AzrError(
            f"the certificate here is of another cluster ({identity.fingerprint}): copy worker.pem of the coordinator "
            "again"
        )
    from azr_mlx.cluster.transport import Connection
    from azr_mlx.cluster.worker import Worker

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    with Connection(host, port, identity) as connection:
        worker = Worker(
            connection, address, name or socket.gethostname(), say, model=model, patience=patience, slowdown=slowdown
        )
        try:
            say(f"done: {worker.run()}")
        except KeyboardInterrupt:
            worker.leave()
            say("left; others do what was begun here")
            return 130
    return 0
