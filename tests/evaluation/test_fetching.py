"""`azr data`: from a local cache of the hub, from a server on this machine, and with no network at all."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from click.testing import CliRunner, Result

from azr_mlx import evaluation, paths
from azr_mlx.cli import azr
from azr_mlx.evaluation import DataMissing, fetching
from azr_mlx.evaluation.data import at_hand
from tests.evaluation.conftest import EVALPLUS, MBPP, write_bench


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with empty caches, and a hub that does not answer."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which a server on this machine has it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def call(*words: str) -> Result:
    return CliRunner().invoke(azr, list(words))


def cached(home: Path, repository: str) -> Path:
    """The folder of a data set's only snapshot in the hub's cache."""
    place = home / "hub" / f"datasets--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("abc")
    (place / "snapshots/abc").mkdir(parents=True)
    return place / "snapshots/abc"


def test_the_list_names_every_benchmark_without_a_network(home: Path) -> None:
    said = call("data")
    assert said.exit_code == 0, said.output
    for name in evaluation.benchmark_names():
        assert name in said.output
    assert "1,290 MB" in said.output


def test_without_a_network_one_command_for_a_machine_that_has_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = call("data", "mbpp")
    assert said.exit_code == 1
    assert said.output.count("\n") == 1
    for part in ("azr: MBPP cannot be fetched (the hub does not answer", "`curl -LO https://", "`--data mbpp.jsonl`"):
        assert part in said.output
    assert "`azr data mbpp` gets it" in call("eval", "--bench", "mbpp").output


def test_rows_of_a_cached_data_set_are_found(home: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    benchmark = evaluation.load_benchmark("mbpp")
    folder = cached(home, benchmark.source.hub) / "full"
    folder.mkdir()
    for split in benchmark.source.hub_splits:
        row = {**MBPP[0], "task_id": len(split)}
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / f"{split}-00000-of-00001.parquet")
    found = at_hand(benchmark)
    assert found is not None
    assert [row["task_id"] for row in found.rows] == [4, 5, 6, 10]
    assert found.rows[0]["test_list"] == MBPP[0]["test_list"]
    (folder / "test-00000-of-00001.parquet").unlink()
    assert at_hand(benchmark) is None, "a data set without one of its splits is none"


def test_a_cached_file_is_found(home: Path) -> None:
    benchmark = evaluation.load_benchmark("cruxeval-o")
    rows = [{"id": "sample_0", "code": "def f(a):\n    return a", "input": "1", "output": "1"}]
    (cached(home, benchmark.source.hub) / benchmark.source.hub_file).write_text(json.dumps(rows))
    found = at_hand(benchmark)
    assert found is not None
    assert found.notes[0].startswith("1 rows instead of 800")


def test_a_file_is_fetched_verified_and_found_by_the_next_command(
    home: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    text = "".join(json.dumps(row) + "\n" for row in EVALPLUS)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    source = {"url": "nowhere", "licence": "MIT", "cache": "own/rows.jsonl", "download": f"{address}/rows.jsonl.gz"}
    write_bench(home, "evalplus", content=evaluation.fingerprint(EVALPLUS), source=source)
    monkeypatch.setattr(paths, "benchmarks", lambda: home)
    said = call("data", "evalplus")
    assert said.exit_code == 0, said.output
    assert "Evalplus: fetched, 2 problems" in said.output
    assert "(verified)" in said.output
    assert (home / "own/rows.jsonl").read_text() == text
    assert evaluation.find_rows(evaluation.load_benchmark("evalplus")).notes == ()
    (folder / "rows.jsonl.gz").unlink()
    assert "Evalplus: is here, 2 problems" in call("data", "evalplus").output, "nothing is fetched twice"


def test_other_rows_than_the_benchmarks_are_refused_and_not_kept(home: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "rows.jsonl").write_text(json.dumps(EVALPLUS[0]) + "\n")
    source = {"url": "nowhere", "licence": "MIT", "cache": "own/rows.jsonl", "download": f"{address}/rows.jsonl"}
    path = write_bench(home, "evalplus", content="f" * 64, source=source)
    said = call("data", str(path))
    assert said.exit_code == 1
    assert "have the hash" in said.output
    assert "not ffffffffffff" in said.output
    assert list((home / "own").iterdir()) == []


def test_a_file_that_is_gone_is_one_line(home: Path, served: tuple[Path, str]) -> None:
    source = {"url": "nowhere", "licence": "MIT", "cache": "own/rows.jsonl", "download": f"{served[1]}/gone.jsonl"}
    with pytest.raises(DataMissing, match=r"cannot be fetched .*404"):
        fetching.fetch(evaluation.load_benchmark(str(write_bench(home, "evalplus", source=source))))
