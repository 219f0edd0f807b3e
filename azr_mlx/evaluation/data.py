"""The rows of a benchmark: found on this machine, or one line that says what is missing and how to get it."""

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
from azr_mlx.evaluation.benchmark import Benchmark

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
                return _checked(benchmark, _apps_folder(given), str(given))
            raise UsageError(f"{given} is a folder; --data names a .jsonl, .jsonl.gz or .json file")
        if not given.is_file():
            raise UsageError(f"there is no file {given}")
        return _checked(benchmark, read_data_file(given), str(given))
    local = _local(benchmark)
    if local is not None:
        return _checked(benchmark, read_data_file(local), str(local))
    if benchmark.source.hub:
        rows, origin = _hub(benchmark)
        return _checked(benchmark, rows, origin)
    raise DataMissing(_missing(benchmark))


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


def _checked(benchmark: Benchmark, rows: Sequence[BenchmarkRow], origin: str) -> Rows:
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
        for folder in _cache_folders():
            if (folder / source.cache).is_file():
                return folder / source.cache
    return None


def _cache_folders() -> list[Path]:
    folders = [Path(os.environ["XDG_CACHE_HOME"])] if os.environ.get("XDG_CACHE_HOME") else []
    return [*folders, Path.home() / ".cache", Path.home() / "Library/Caches"]


def _hub(benchmark: Benchmark) -> tuple[list[BenchmarkRow], str]:
    """Rows from the Hugging Face cache, or from the hub when they are few enough to be fetched without asking."""
    source = benchmark.source
    small = source.megabytes <= _FETCHED_UNASKED and _hub_answers()
    if source.hub_file:
        from huggingface_hub import hf_hub_download

        for cached in (True, False):
            if not (cached or small):
                break
            try:
                found = hf_hub_download(
                    source.hub, source.hub_file, repo_type="dataset", local_files_only=cached, etag_timeout=10
                )
            except Exception:  # whatever keeps us from the hub, the line below says what to do
                continue
            return read_data_file(Path(found)), f"{source.hub}/{source.hub_file}"
        raise DataMissing(_missing(benchmark))
    try:
        import datasets
        from datasets.utils import logging as chatter

        chatter.disable_progress_bar()
        if not small:
            datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True
        rows: list[BenchmarkRow] = []
        for split in source.hub_splits:
            rows += list(datasets.load_dataset(source.hub, source.hub_config or None, split=split))
    except Exception:
        raise DataMissing(_missing(benchmark)) from None
    order = sorted(rows, key=lambda row: row["task_id"]) if all("task_id" in row for row in rows) else rows
    return order, f"{source.hub} {source.hub_config}".strip()


def _hub_answers() -> bool:
    """Whether it is worth asking the hub: its own client tries for half a minute before it gives up."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # only the proxy can tell
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).netloc.partition(":")[0]
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        return False
    return True


def _missing(benchmark: Benchmark) -> str:
    source = benchmark.source
    what = f"{benchmark.title} ({benchmark.about}; {source.licence}; {source.url}) is not on this machine"
    if source.command:
        size = f" ({source.megabytes:g} MB)" if source.megabytes > 20 else ""
        how = f"{what}: get it{size} with `{source.command}`"
        if source.command.startswith("curl"):
            return f"{how}, then add `--data {source.command.rpartition('/')[2]}`"
        return f"{how}, then give the same command again"
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
