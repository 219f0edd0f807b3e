"""A run shared with other machines: the server that workers call, and workers on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from azr_mlx import config
from azr_mlx.cluster import certificates, transport
from azr_mlx.cluster.coordinator import Coordinator
from azr_mlx.cluster.sharing import Sharing, address_of
from azr_mlx.model.policy import Policy


@contextmanager
def share(
    policy: Policy, settings: config.Config, sharing: Sharing, say: Callable[[str], None]
) -> Iterator[Coordinator]:
    """Inside, the policy's items are computed by all machines that have joined, this one among them."""
    with ExitStack() as stack:
        coordinator = Coordinator(policy, settings, say)
        if sharing.address is not None:
            host, port = address_of(sharing.address)
            identity = certificates.load(sharing.file)
            server = stack.enter_context(transport.Server(host, port, identity, coordinator.handlers))
            say(f"on every other machine: azr worker tls://{host}:{server.port} --fingerprint {identity.fingerprint}")
        if sharing.local_workers:
            mine, theirs = certificates.create()
            server = stack.enter_context(transport.Server("127.0.0.1", 0, mine, coordinator.handlers))
            stack.enter_context(_local_workers(sharing.local_workers, server.port, theirs, settings.model.id))
        before, policy.computer = policy.computer, coordinator
        stack.callback(coordinator.close)
        try:
            yield coordinator
        finally:
            policy.computer = before


@contextmanager
def _local_workers(count: int, port: int, identity: certificates.Credentials, model: str) -> Iterator[None]:
    """Workers on this machine, with a certificate that ends with them."""
    folder = Path(tempfile.mkdtemp(prefix="azr-cluster-"))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        file = folder / certificates.WORKER_FILE
        file.touch(0o600)
        file.write_bytes(identity.key + identity.certificate + identity.authority)
        for i in range(count):
            words = [sys.executable, "-m", "azr_mlx", "worker", f"tls://127.0.0.1:{port}", "--certificate", str(file)]
            words += ["--name", f"local-{i + 1}", "--wait", "0.1"]
            log = (folder / f"local-{i + 1}.log").open("wb")
            with log:
                processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)
