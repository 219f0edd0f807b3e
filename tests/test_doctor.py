"""azr doctor: it finds what is wrong, says what to do, and its self-test notices a sampler that lies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from azr_mlx import doctor
from azr_mlx.cli import azr
from azr_mlx.doctor import FINE, NOTE, WRONG, Finding
from azr_mlx.executor import LayerReport


def test_this_machine_passes_or_is_told_why() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "azr_mlx", "doctor", "--offline"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode in (0, 1), said.stderr
    for name in ("python", "packages", "sandbox", "disk"):
        assert name in said.stdout
    assert "Traceback" not in said.stdout + said.stderr
    assert "to fix, in this order" in said.stdout or "all is well" in said.stdout


def test_the_sandbox_is_started_before_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def note(name: str) -> Any:
        def check() -> Iterator[Finding]:
            order.append(name)
            yield Finding(name, FINE, "")

        return check

    for name in ("packages", "sandbox", "disk", "mlx", "products", "self_test"):
        monkeypatch.setattr(doctor, name, note(name))
    list(doctor.examine(network=False))
    assert order.index("sandbox") < order.index("mlx") < order.index("self_test")


def test_it_says_what_programs_of_the_model_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    report = LayerReport("standard", ("capabilities", "seccomp"), {"landlock": "not there"})
    monkeypatch.setattr(doctor, "find_layers", lambda: report)
    (found,) = doctor.sandbox()
    assert found.state == NOTE
    assert "programs reach files" in found.found
    assert "landlock (not there)" in found.found
    assert "executor.level=strict" in found.todo


def test_advice_puts_what_stops_a_run_first() -> None:
    findings = [Finding("a", NOTE, "", "nice"), Finding("b", FINE, "", ""), Finding("c", WRONG, "", "must")]
    assert doctor.advice(findings) == ["c: must", "a: nice"]


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> Iterator[Finding]:
        raise ZeroDivisionError("of a kind\nthat nobody thought of")
        yield

    [found] = doctor.guarded("self-test", broken)
    assert found.state == WRONG
    assert found.found == "ZeroDivisionError: of a kind that nobody thought of"


def test_a_sampler_whose_logprobs_differ_is_wrong(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    pytest.importorskip("mlx.core")
    if not (root / doctor.EMBEDDED / "model.safetensors").is_file():
        pytest.skip("the embedded model is not here")
    policy, name = doctor._policy()
    monkeypatch.setattr(doctor, "_policy", lambda: (policy, name))
    assert [one.state for one in doctor.self_test()] == [FINE, FINE]
    honest = policy.logprobs
    monkeypatch.setattr(policy, "logprobs", lambda rollouts: [values + 0.5 for values in honest(rollouts)])
    found = {one.name: one for one in doctor.self_test()}
    assert found["sampler"].state == WRONG
    assert "recompute_old_logprobs" in found["sampler"].todo


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [("HF_HUB_OFFLINE", "1", NOTE), ("HF_ENDPOINT", "ftp://x", WRONG), ("HF_ENDPOINT", "http://127.0.0.1:9", NOTE)],
)
def test_a_hub_out_of_reach_is_explained(monkeypatch: pytest.MonkeyPatch, name: str, value: str, state: str) -> None:
    for other in ("HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "*")
    [found] = doctor.hub()
    assert found.state == state
    assert found.todo


def test_exit_code_and_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda network: iter([Finding("disk", WRONG, "full", "make room")]))
    said = CliRunner().invoke(azr, ["doctor"])
    assert said.exit_code == 1
    assert said.output.rstrip().endswith("1. disk: make room")
    monkeypatch.setattr(doctor, "examine", lambda network: iter([Finding("disk", FINE, "roomy")]))
    said = CliRunner().invoke(azr, ["doctor"])
    assert said.exit_code == 0
    assert "all is well" in said.output


def test_a_report_is_json_without_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, folders and the host are left out of what people paste into an issue."""
    monkeypatch.setattr(doctor.platform, "node", lambda: "adas-macbook.local")
    monkeypatch.setattr(doctor.Path, "home", classmethod(lambda cls: Path("/Users/ada")))
    findings = [
        Finding("disk", FINE, "82 GB free at /Users/ada/Projects/secret plan/checkpoints", ""),
        Finding("hub", NOTE, "https://huggingface.co is out of reach", "see adas-macbook of ada"),
        Finding("sandbox", WRONG, "/usr/bin/sandbox-exec is refused", "read docs/security.md"),
    ]
    record = doctor.record(findings)
    text = doctor.as_text(record)
    assert "ada" not in text
    assert "secret" not in text.replace("secret plan", "")
    assert record["fit"] is False
    assert record["findings"][2]["found"] == "/usr/bin/sandbox-exec is refused"
    assert "https://huggingface.co" in text
    assert record["advice"][0] == "sandbox: read docs/security.md"


def test_what_only_a_mac_has_is_named_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from azr_mlx.model import metal

    monkeypatch.setattr(doctor.platform, "mac_ver", lambda: ("13.6", ("", "", ""), "arm64"))
    monkeypatch.setattr(metal, "memory_pressure", lambda: metal.CRITICAL)
    monkeypatch.setenv(metal.RELAX, "0")
    found = {one.name: one for one in doctor.mac()}
    assert found["macos"].state == WRONG
    assert found["watchdog"].state == NOTE
    assert "critical" in found["pressure"].found
    assert {"sleep", "files"} <= set(found)
    assert all(one.todo for one in found.values() if one.state != FINE)
