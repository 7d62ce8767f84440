"""Many recordings made of a few, each one another signal, and a plain server for them."""

import hashlib
import itertools
import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

TREE = "challenge-2021/1.0.3"


def make_copies(sample: Path, mirror: Path, count: int) -> None:
    """Write a mirror of copies of the sample's 500 Hz recordings of the Challenge.

    In each copy one lead is offset by a few units, its checksum rewritten; so no two are alike.
    """
    headers = sorted((sample / TREE / "training").rglob("*.hea"))
    headers = [path for path in headers if path.read_text().split()[2] == "500"]
    lines = []
    for number, header in zip(range(count), itertools.cycle(headers), strict=False):
        copy = number // len(headers)
        source, name = header.parts[-3], f"{header.stem}C{copy:04}"
        folder = f"training/{source}/g{copy // 50 + 1}"
        files = altered(header, name, lead=copy % 12, offset=1 + copy // 12)
        (mirror / TREE / folder).mkdir(parents=True, exist_ok=True)
        for suffix, content in files.items():
            (mirror / TREE / folder / f"{name}.{suffix}").write_bytes(content)
            lines.append(f"{hashlib.sha256(content).hexdigest()} {folder}/{name}.{suffix}\n")
    (mirror / TREE / "SHA256SUMS.txt").write_text("".join(sorted(lines)))


def altered(header: Path, name: str, *, lead: int, offset: int) -> dict[str, bytes]:
    """Return a record under another name, one lead offset, with the checksum that goes with it."""
    content = bytearray(header.with_suffix(".mat").read_bytes())
    samples = np.frombuffer(content, "<i2", offset=24).reshape(-1, 12)
    samples[:, lead] += np.int16(offset)
    total = int(samples[:, lead].sum(dtype=np.int64)) % 65536
    lines = header.read_text().replace(header.stem, name).splitlines()
    fields = lines[1 + lead].split()
    fields[5], fields[6] = str(samples[0, lead]), str(total - 65536 if total > 32767 else total)
    lines[1 + lead] = " ".join(fields)
    text = "\n".join(re.sub(r"\s+$", "", line) for line in lines) + "\n"
    return {"hea": text.encode(), "mat": bytes(content)}


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve(folder: str) -> None:
    """Serve a folder on loopback; print the port first."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder))
    print(server.server_port, flush=True)
    server.serve_forever()
