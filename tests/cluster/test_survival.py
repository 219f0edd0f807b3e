"""Whatever happens to a worker, the run comes to the same result, to the bit. Real processes and signals."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time

import pytest

from azr_mlx.cluster import coordinator as coordinating
from tests.cluster.conftest import HANG, Cluster, play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def once_it_computes(cluster: Cluster, name: str, do):
    """Do something once, as soon as a worker holds an item. Returns what play calls at every row."""
    done: list[bool] = []

    def meanwhile() -> None:
        until = time.monotonic() + HANG
        while not done and not cluster.computes(name) and len(cluster.coordinator.items) > 3:
            assert time.monotonic() < until
            time.sleep(0.01)
        if not done and cluster.computes(name):
            done.append(True)
            do()

    meanwhile.done = done
    return meanwhile


def test_a_worker_that_is_killed(cluster, alone_longer) -> None:
    process = cluster.start("mini")
    cluster.wait_for("mini")
    event = once_it_computes(cluster, "mini", process.kill)
    assert play(cluster.policy, 3, event) == alone_longer
    assert event.done
    assert process.wait(HANG) == -signal.SIGKILL


def test_a_worker_that_is_stopped_and_goes_on_later(cluster, alone_longer, monkeypatch) -> None:
    monkeypatch.setattr(coordinating, "LOST_SECONDS", 3.0)
    process = cluster.start("mini")
    cluster.start("studio")
    cluster.wait_for("mini", "studio")
    event = once_it_computes(cluster, "mini", lambda: os.kill(process.pid, signal.SIGSTOP))
    assert play(cluster.policy, 3, event) == alone_longer
    assert event.done
    os.kill(process.pid, signal.SIGCONT)
    before = cluster.machine("mini")
    until = time.monotonic() + HANG
    while cluster.machine("mini") is None or cluster.machine("mini").lost:  # it has joined again by itself
        assert time.monotonic() < until, cluster.log("mini")
        time.sleep(0.05)
    assert before is not None


def test_a_worker_five_times_slower_than_the_others(cluster, alone_longer) -> None:
    cluster.start("slow", "--slowdown", "5")
    cluster.start("fast")
    cluster.wait_for("slow", "fast")
    assert play(cluster.policy, 3) == alone_longer
    assert cluster.did("fast") > 0


def test_a_worker_that_joins_in_the_middle_of_a_step(cluster, alone_longer) -> None:
    started = once_it_computes(cluster, "early", lambda: cluster.start("late"))
    cluster.start("early")
    cluster.wait_for("early")
    joined: list[bool] = []

    def meanwhile() -> None:
        started()
        if started.done and not joined:
            cluster.wait_for("late")
            joined.append(True)

    assert play(cluster.policy, 3, meanwhile) == alone_longer
    assert joined
    assert cluster.did("late") > 0


def test_a_worker_that_leaves_politely(cluster, alone_longer) -> None:
    process = cluster.start("mini")
    cluster.wait_for("mini")
    event = once_it_computes(cluster, "mini", process.terminate)
    assert play(cluster.policy, 3, event) == alone_longer
    assert event.done
    assert process.wait(HANG) == 130
    assert "worker mini has left" in cluster.said
    assert "left; others do what was begun here" in cluster.log("mini")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process can be set on Linux only")
def test_a_worker_whose_disk_becomes_full(cluster, alone_longer) -> None:
    process = cluster.start("full")
    cluster.wait_for("full")
    # From now on the first byte of any file is one too many, that of the file that it speaks to as well.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    assert play(cluster.policy, 3) == alone_longer
    assert cluster.did("full") > 0


def test_a_worker_of_another_version_is_refused_by_name(cluster, alone) -> None:
    cluster.coordinator.description["mlx"] = "0.99"
    assert cluster.start("old").wait(HANG) == 1
    words = cluster.log("old")
    assert "refuses this worker: mlx 0.99 on the coordinator" in words
    assert words.count("\n") == 1
    assert play(cluster.policy, 1) == alone
    assert any(line.startswith("refused worker old: mlx 0.99 on the coordinator") for line in cluster.said)


def test_a_worker_with_another_model_is_refused_by_name(cluster, tmp_path) -> None:
    from tests.model.conftest import build_model

    (tmp_path / "other").mkdir()
    other = build_model(tmp_path / "other", rms_norm_eps=1e-5, hidden_size=96)
    assert cluster.start("wrong", "--model", str(other)).wait(HANG) == 1
    assert "refuses this worker: model " in cluster.log("wrong")


class Cable:
    """A TCP connection in between that can be pulled: nothing is refused or closed, no byte gets through."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.whole = threading.Event()
        self.whole.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self.target))
            for source, drain in ((one, other), (other, one)):
                threading.Thread(target=self._carry, args=(source, drain), daemon=True).start()

    def _carry(self, source: socket.socket, drain: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self.whole.wait()
                drain.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, drain):
                end.close()


def test_a_network_that_is_gone_for_a_minute(cluster, alone_longer) -> None:
    cable = Cable(cluster.server.port)
    cluster.start("far", port=cable.port)
    cluster.wait_for("far")
    timer = threading.Timer(60.0, cable.whole.set)

    def pull() -> None:
        cable.whole.clear()
        timer.start()

    event = once_it_computes(cluster, "far", pull)
    assert play(cluster.policy, 3, event) == alone_longer
    assert event.done
    assert not cable.whole.is_set()  # the run did not wait for the network
    identity = cluster.machine("far").identity
    until = time.monotonic() + HANG
    while cluster.machine("far") is None or cluster.machine("far").identity == identity:
        with cluster.coordinator._changed:
            cluster.coordinator._look_for_lost()
        assert time.monotonic() < until, cluster.log("far")
        time.sleep(0.2)
    assert "waiting for tls://127.0.0.1" in cluster.log("far")
    cable.listener.close()


def test_results_that_make_no_sense_send_a_worker_away(cluster, alone_longer, monkeypatch) -> None:
    # The coordinator believes in a smaller vocabulary than the worker writes in: every row has a foreign token.
    monkeypatch.setattr(cluster.coordinator, "vocabulary", 3)
    process = cluster.start("mad")
    cluster.wait_for("mad")
    assert play(cluster.policy, 3) == alone_longer
    assert any("outside the vocabulary" in line for line in cluster.said)
    assert process.wait(HANG) == 0
    assert "results in a row could not be used" in cluster.log("mad")
