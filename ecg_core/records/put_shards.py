"""Finish the shards of a store: describe each by its checksum and, with a URL, put it there."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import fsspec

from ecg_core.outputs import write_text
from ecg_core.refusal import Refusal
from ecg_core.remote import NotThere, tried
from ecg_core.shards import RETRY_PAUSES, Shard


def shard_rows(n_segments: int, per_shard: int) -> list[range]:
    """Return which of a store's segments each shard holds."""
    starts = range(0, n_segments, per_shard)
    return [range(start, min(start + per_shard, n_segments)) for start in starts]


def finish_shard(path: Path, segments: int, url: str | None, note: Path) -> None:
    """Note a written shard as done; with a URL, put it there and delete it here first."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    shard = Shard(path.name, segments, path.stat().st_size, sha256)
    if url is not None:
        # the name belongs to the content: no other store overwrites it
        shard = shard._replace(name=f"{path.stem}-{sha256[:16]}{path.suffix}")
        _put(path, shard, url)
        path.unlink()
    write_text(note, json.dumps(shard._asdict()))


def finished_shards(notes: Sequence[Path]) -> list[Shard]:
    """Return the shards that are noted as done."""
    return [Shard(**json.loads(note.read_text())) for note in notes]


def _put(path: Path, shard: Shard, url: str) -> None:
    """Put a shard behind the URL, unless one of its name and size is there."""
    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise Refusal(f"params.yaml: data.segments_url: expected a URL, found: {error}") from error
    target = f"{root.rstrip('/')}/{shard.name}"

    def size() -> int | None:
        system.invalidate_cache()
        return int(system.info(target)["size"]) if system.exists(target) else None

    def put() -> None:
        if size() != shard.size:
            system.makedirs(root, exist_ok=True)
            system.put_file(str(path), target)

    try:
        tried(put, f"{url}/{shard.name}", RETRY_PAUSES)
        found = tried(size, f"{url}/{shard.name}", RETRY_PAUSES)
    except (NotThere, NotImplementedError) as error:
        raise Refusal(
            f"params.yaml: data.segments_url: {url}: expected a place that can be written to, "
            f"found: {error}"
        ) from error
    if found != shard.size:
        raise Refusal(f"{url}/{shard.name}: expected {shard.size} bytes, found {found}")
