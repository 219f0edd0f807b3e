"""Rows of a benchmark as they lie on this machine. What fetches them is in fetching.py."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_mlx.errors import UsageError
from azr_mlx.evaluation.benchmark import Benchmark, DataSource

BenchmarkRow = Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """Rows as they were read, where from, a hash of their content, and what is unusual about them."""

    rows: tuple[BenchmarkRow, ...]
    origin: str
    content: str
    notes: tuple[str, ...] = ()


def at_hand(benchmark: Benchmark) -> Rows | None:
    """The rows of a benchmark that are on this machine; None when they are not. Raises UsageError for a faulty file."""
    local = _local(benchmark)
    if local is not None:
        return checked(benchmark, read_data_file(local), str(local))
    source = benchmark.source
    if source.hub and source.hub_file:
        from huggingface_hub import try_to_load_from_cache

        files = [try_to_load_from_cache(source.hub, name, repo_type="dataset") for name in source.hub_file.split()]
        if all(isinstance(file, str) for file in files):
            rows = [row for file in files for row in read_data_file(Path(str(file)))]
            return checked(benchmark, rows, f"{source.hub}/{source.hub_file}")
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
    """Where tools keep what they download; this one in the first."""
    folders = [Path(os.environ["XDG_CACHE_HOME"])] if os.environ.get("XDG_CACHE_HOME") else []
    return [*folders, Path.home() / ".cache", Path.home() / "Library/Caches"]


def apps_folder(folder: Path) -> list[BenchmarkRow]:
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
