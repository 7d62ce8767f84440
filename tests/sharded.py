"""Cut a store in one file into shards by hand, as its format is written down in segments.py."""

import hashlib
import json
from pathlib import Path


def cut_into_shards(folder: Path, per_shard: int, put: Path | None = None, url: str = "") -> None:
    """Replace a store's one file by shards beside it, or in another folder that the URL names."""
    meta = json.loads((folder / "store.json").read_text())
    content = (folder / "signals.i16").read_bytes()
    size = 12 * meta["samples"] * 2
    shards = []
    for start in range(0, len(content), per_shard * size):
        part = content[start : start + per_shard * size]
        name = f"part-{len(shards)}.i16"
        (put or folder).mkdir(parents=True, exist_ok=True)
        ((put or folder) / name).write_bytes(part)
        sha256 = hashlib.sha256(part).hexdigest()
        shards.append(
            {"name": name, "segments": len(part) // size, "size": len(part), "sha256": sha256}
        )
    if put is not None:
        meta["url"] = url or f"file://{put}"
    (folder / "store.json").write_text(json.dumps({**meta, "shards": shards}))
    (folder / "signals.i16").unlink()
