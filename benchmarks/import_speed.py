"""How fast an import of TD-MPC2's chunks is, what it takes of memory and disk, and that a kill costs nothing.

    python benchmarks/import_speed.py                       # 8 GB of synthetic chunks; about 20 minutes, 25 GB of disk

The chunks are imported once, measured, beside the disk's own sequential write of as many bytes (1 MB at a time, with
fsync at the end), which is done before and after. Then once more, killed (SIGKILL) at ten random moments, with the same
command run again after each; the store must be the same to the byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rehearsal_chunks
from pages import DOCS, markdown, put

from datamodules import EpisodeStore
from lit_pwm.provenance import describe_machine

RESULT = Path(__file__).parent / "results" / "import_speed.json"
PAGE = DOCS / "data_speed.md"


def disk_rate(folder: Path, count: int) -> float:
    """Bytes per second of a plain sequential write."""
    block, path = os.urandom(2**20), folder / "plain"
    began = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for _ in range(count // 2**20):
            file.write(block)
        os.fsync(file.fileno())
    rate = count / (time.monotonic() - began)
    path.unlink()
    return rate


def used(folder: Path) -> int:
    """Bytes on the disk below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # renamed meanwhile
            continue
    return total


def command(chunks: Path, out: Path) -> list[str]:
    """The import."""
    return [sys.executable, "-m", "lit_pwm", "data", "import", str(chunks), "--out", str(out)]


def anonymous(pid: int) -> int:
    """Private memory of a process in kB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def watched(words: Sequence[str], folder: Path) -> dict[str, float]:
    """Seconds of a command, and the largest private memory and disk that it took."""
    peaks, ended = {"rss_anon_mb": 0.0, "disk_bytes": 0.0}, threading.Event()
    began = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def watch() -> None:
        while not ended.wait(0.2):
            peaks["rss_anon_mb"] = max(peaks["rss_anon_mb"], anonymous(process.pid) / 1000)
            peaks["disk_bytes"] = max(peaks["disk_bytes"], used(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.monotonic() - began
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(words)} has ended with code {code}.")
    return {"seconds": seconds, **peaks}


def killed_and_run_again(chunks: Path, folder: Path, seconds: float, kills: int, seed: int) -> tuple[list[float], list]:
    """Run an import, kill it after a random time, and again, and let it end after the last kill.

    Returns:
        The moments, in seconds after each start, and the digests of all stores that were made: another is begun where
        one was done before all kills.
    """
    drawn, moments, stores = random.Random(seed), [], [folder / "0.h5"]
    while len(moments) < kills:
        process = subprocess.Popen(command(chunks, stores[-1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        moment = drawn.uniform(0, 1.6 * seconds / kills)
        try:
            if process.wait(moment):
                raise SystemExit(f"An import that was run again has ended with code {process.returncode}.")
            stores.append(folder / f"{len(stores)}.h5")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            moments.append(moment)
    watched(command(chunks, stores[-1]), folder)
    return moments, [digest(store) for store in stores]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measured(folder: Path, gigabytes: float, kills: int, seed: int) -> dict[str, Any]:
    """All parts, in a folder that is empty."""
    chunks, whole, again = folder / "chunks", folder / "whole", folder / "again"
    whole.mkdir()
    again.mkdir()
    rehearsal_chunks.main(["--synthetic", str(gigabytes), "--out", str(chunks)])
    size = sum(path.stat().st_size for path in chunks.iterdir())
    before = disk_rate(folder, size)
    found = watched(command(chunks, whole / "s.h5"), whole)
    after = disk_rate(folder, size)
    store = EpisodeStore(whole / "s.h5")
    moments, digests = killed_and_run_again(chunks, again, found["seconds"], kills, seed)
    same = set(digests) == {digest(whole / "s.h5")}
    result = (whole / "s.h5").stat().st_size
    return {
        "machine": describe_machine(), "chunk_bytes": size, "store_bytes": result, "rows": store.num_rows,
        "import": found, "disk_bytes_per_second": [before, after], "kills": moments, "same_bytes": same,
    }  # fmt: skip


def table(record: dict[str, Any]) -> str:
    """What was measured."""
    found, seconds = record["import"], record["import"]["seconds"]
    disk = record["disk_bytes_per_second"]
    rows = [
        ["chunks", f"{record['chunk_bytes'] / 1e9:.1f} GB"],
        ["the store", f"{record['store_bytes'] / 1e9:.1f} GB, {record['rows']:,} rows"],
        ["import, checked and renamed", f"{seconds:,.0f} s"],
        ["rows/s", f"{record['rows'] / seconds:,.0f}"],
        ["MB/s of the store", f"{record['store_bytes'] / seconds / 1e6:,.0f}"],
        ["the disk's own sequential write, before and after", " and ".join(f"{rate / 1e6:,.0f} MB/s" for rate in disk)],
        ["peak private memory (RssAnon)", f"{found['rss_anon_mb']:,.0f} MB"],
        ["peak disk", f"{found['disk_bytes'] / record['store_bytes']:.2f} × the store"],
        ["killed, run again", f"{len(record['kills'])} times: {'the same' if record['same_bytes'] else 'OTHER'} bytes"],
    ]
    return markdown(["", "measured"], rows)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--folder", type=Path, help="where the files are written; a temporary folder if not given")
    parser.add_argument("--out", type=Path, default=RESULT, help="the record")
    parser.add_argument("--only-table", action="store_true", help="the page from the committed record")
    given = parser.parse_args(words)
    if not given.only_table:
        folder = Path(tempfile.mkdtemp(dir=given.folder))
        try:
            record = measured(folder, given.gigabytes, given.kills, given.seed)
        finally:
            shutil.rmtree(folder)
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    record = json.loads(given.out.read_text())
    print(table(record))
    if given.out == RESULT:
        put(PAGE, "import", table(record))


if __name__ == "__main__":
    main()
