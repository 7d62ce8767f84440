"""Downloads: verified, resumed, from a mirror that fails in every way it can."""

import io
import os
import random
import signal as signals
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from ecg_core import remote
from ecg_core.records import download as module
from ecg_core.records import mirror as mirrors
from ecg_core.records.download import BadMirror, download
from ecg_core.records.raw import BadRawFiles
from ecg_core.remote import NotThere, Unreachable
from tests.records.examples import (
    GEORGIA,
    PTBXL,
    params,
    signal,
    sums_of,
    write_listings,
    write_ptbxl_table,
    write_record,
)
from tests.records.faulty_server import faulty_mirror

LISTING = "challenge-2021/1.0.3/SHA256SUMS.txt"


@pytest.fixture(autouse=True)
def _no_archive(monkeypatch):
    monkeypatch.delenv("ECG_DATA", raising=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A mirror of two trees with twelve records, two files each, and a table."""
    folder = tmp_path_factory.mktemp("mirror")
    for seed in range(10):
        write_record(folder, GEORGIA, f"E{seed}", signal(seed, 500))
    for seed in range(2):
        write_record(folder, PTBXL, f"0000{seed}_hr", signal(20 + seed, 500), "dat")
    write_ptbxl_table(folder, [(1, 5, 3)])
    write_listings(folder)
    return folder


def _same_files(raw, archive):
    assert sums_of(raw) == sums_of(archive)


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_mirror_is_brought_whole_and_verified(tmp_path, archive, scheme):
    with faulty_mirror(archive) as server:
        url = server.url if scheme == "http" else f"file://{archive}"
        sums = download(tmp_path, params(mirror=url))
    _same_files(tmp_path, archive)
    assert sums == sums_of(archive)


def test_a_bucket_is_read_without_credentials(tmp_path, archive, monkeypatch):
    with faulty_mirror(archive) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        download(tmp_path, params(mirror="s3://bucket"))
    _same_files(tmp_path, archive)


def test_what_is_there_is_verified_and_not_fetched(tmp_path, archive):
    with faulty_mirror(archive) as server:
        download(tmp_path, params(mirror=server.url))
        first = len(server.log)
        download(tmp_path, params(mirror=server.url))
    assert {name for name, _ in server.log[first:]} == {
        LISTING,
        "ptb-xl/1.0.3/SHA256SUMS.txt",
    }


def test_a_file_that_was_damaged_here_is_fetched_again(tmp_path, archive):
    download(tmp_path, params(mirror=f"file://{archive}"))
    (tmp_path / GEORGIA / "E3.mat").write_bytes(b"damaged")
    (tmp_path / GEORGIA / "E4.hea").unlink()
    download(tmp_path, params(mirror=f"file://{archive}"))
    _same_files(tmp_path, archive)


@pytest.mark.parametrize("fault", ["503", "cut", "drop", "wrong"])
def test_a_fault_of_the_moment_is_overcome(tmp_path, archive, fault):
    with faulty_mirror(archive) as server:
        server.fault = lambda path, before: fault if before == 0 and "SUMS" not in path else ""
        download(tmp_path, params(mirror=server.url))
    _same_files(tmp_path, archive)
    assert max(Counter(server.served()).values()) == 1


def test_faults_at_random_are_overcome_and_nothing_verified_is_fetched_twice(tmp_path, archive):
    chance = random.Random(3)

    def fault(path, before):
        if "SUMS" in path:
            return chance.choice(["", "503", "cut", "drop"]) if before < 3 else ""
        kinds = ["", "", "503", "cut", "drop"] + ["wrong"] * (before == 0)
        return chance.choice(kinds) if before < 4 else ""

    with faulty_mirror(archive) as server:
        server.fault = fault
        download(tmp_path, params(mirror=server.url, retries=6))
    _same_files(tmp_path, archive)
    assert max(Counter(server.served()).values()) == 1
    assert len(server.log) > len(server.served())


def test_a_file_that_never_matches_is_fetched_twice_and_named_and_the_rest_is_kept(
    tmp_path, archive
):
    bad = f"{GEORGIA}/E3.mat"
    with faulty_mirror(archive) as server:
        server.fault = lambda path, before: "wrong" if path == bad else ""
        with pytest.raises(BadMirror, match=r"E3\.mat: expected SHA-256 .* found .* twice"):
            download(tmp_path, params(mirror=server.url))
        assert server.asked(bad) == 2
    assert set(sums_of(archive)) - set(sums_of(tmp_path)) == {bad}


def test_a_file_that_is_not_on_the_mirror_is_asked_for_once_and_named(tmp_path, archive):
    gone = f"{GEORGIA}/E3.mat"
    with faulty_mirror(archive) as server:
        server.fault = lambda path, before: "404" if path == gone else ""
        with pytest.raises(BadMirror, match=r"E3\.mat: expected a file"):
            download(tmp_path, params(mirror=server.url))
        assert server.asked(gone) == 1


def test_a_mirror_that_stays_down_is_named_after_all_retries(tmp_path, archive):
    with faulty_mirror(archive) as server:
        server.fault = lambda path, before: "503" if path.endswith("E3.mat") else ""
        with pytest.raises(Unreachable, match=r"E3\.mat.*503.*3 times"):
            download(tmp_path, params(mirror=server.url, retries=2))
        assert server.asked(f"{GEORGIA}/E3.mat") == 3


def test_a_mirror_without_listing_says_how_to_use_an_archive_of_ones_own(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotThere, match=r"SHA256SUMS.txt[\s\S]*ECG_DATA"):
        download(tmp_path / "raw", params(mirror=f"file://{tmp_path}/empty"))


def test_pauses_between_retries_grow(tmp_path, archive, monkeypatch):
    pauses = []
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    with faulty_mirror(archive) as server:
        server.fault = lambda path, before: "503"
        with pytest.raises(Unreachable):
            download(tmp_path, params(mirror=server.url, retries=4, backoff=0.5))
    assert pauses == [0.5, 1.0, 2.0, 4.0]


_PROGRAM = """
import sys
from pathlib import Path
from ecg_core.records.download import download
from tests.records.examples import params
download(Path(sys.argv[2]), params(mirror=sys.argv[1], connections=2))
"""


def test_a_killed_download_goes_on_without_fetching_a_verified_file_again(tmp_path, archive):
    chance = random.Random(5)
    project = Path(__file__).parents[2]
    expected = sums_of(archive)
    verified: set[str] = set()
    with faulty_mirror(archive) as server:
        for _ in range(2):
            stop_at, before = chance.randint(3, 12), len(server.log)
            command = [sys.executable, "-c", _PROGRAM, server.url, str(tmp_path)]
            process = subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL)

            def fault(path, _, stop_at=stop_at, before=before, process=process):
                if len(server.log) - before >= stop_at:
                    os.kill(process.pid, signals.SIGKILL)
                return ""

            server.fault = fault
            assert process.wait() == -signals.SIGKILL
            asked = {name for name, _ in server.log[before:] if "SUMS" not in name}
            assert not asked & verified
            found = sums_of(tmp_path)
            verified = {name for name, sha in found.items() if expected.get(name) == sha}
        server.fault = lambda path, before: ""
        before = len(server.log)
        download(tmp_path, params(mirror=server.url))
        asked = {name for name, _ in server.log[before:] if "SUMS" not in name}
        assert not asked & verified
    found = {name: sha for name, sha in sums_of(tmp_path).items() if not name.endswith(".tmp")}
    assert found == expected


def test_a_listing_with_a_path_out_of_the_folder_fetches_nothing(tmp_path, archive):
    copy = tmp_path / "mirror" / LISTING
    copy.parent.mkdir(parents=True)
    copy.write_text(f"{'a' * 64} ../../../../evil\n")
    with pytest.raises(BadRawFiles, match="inside"):
        download(
            tmp_path / "raw",
            params(mirror=f"file://{tmp_path}/mirror", datasets=("challenge-2021/1.0.3",)),
        )
    assert not (tmp_path / "raw").exists()


def test_too_little_space_is_said_before_anything_is_fetched(tmp_path, archive, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with faulty_mirror(archive) as server:
        with pytest.raises(BadRawFiles, match=r"expected about 0\.\d+ GB of free space"):
            download(tmp_path, params(mirror=server.url))
        assert all("SUMS" in name for name, _ in server.log)


def test_segments_that_go_elsewhere_need_no_space_beside_the_files(tmp_path, archive, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = sum(path.stat().st_size for path in archive.rglob("*") if path.is_file())
    usage = type("Usage", (), {"free": size})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    given = {"mirror": f"file://{archive}", "segments_url": "s3://bucket/ecg"}
    with pytest.raises(BadRawFiles, match="as much again for its segments"):
        download(tmp_path / "raw", params(mirror=given["mirror"]))
    assert len(download(tmp_path / "raw", params(**given))) > 1


def test_an_archive_in_place_is_its_own_mirror(archive, monkeypatch):
    monkeypatch.setenv("ECG_DATA", str(archive))
    before = sums_of(archive)
    assert download(archive, params(mirror=f"file://{archive}")) == before
    assert sums_of(archive) == before


def test_a_source_inside_a_tree_is_brought_alone(tmp_path, archive):
    write = params(mirror=f"file://{archive}", datasets=("ptb-xl/1.0.3/records500",))
    assert not [name for name in download(tmp_path, write) if "georgia" in name]


def _tar(path, members):
    with tarfile.open(path, "w:xz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _embed(archive, tmp_path, monkeypatch, extra=None):
    members = {
        f"./{path.relative_to(archive)}": path.read_bytes()
        for path in sorted(archive.rglob("*"))
        if path.is_file()
    }
    _tar(tmp_path / "sample.tar.xz", {**members, **(extra or {})})
    monkeypatch.setattr(mirrors, "SAMPLE", tmp_path / "sample.tar.xz")


def test_the_embedded_sample_is_unpacked_and_verified(tmp_path, archive, monkeypatch):
    _embed(archive, tmp_path, monkeypatch)
    download(tmp_path / "raw", params())
    _same_files(tmp_path / "raw", archive)


@pytest.mark.parametrize("extra", [{"../evil": b"x"}, {"/etc/evil": b"x"}, {"a/link": None}])
def test_a_sample_that_would_leave_its_folder_is_refused(tmp_path, archive, monkeypatch, extra):
    _embed(archive, tmp_path, monkeypatch, extra)
    with pytest.raises(BadRawFiles, match=r"inside|plain files"):
        download(tmp_path / "raw", params())
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", None])
def test_a_sample_that_is_damaged_is_refused(tmp_path, archive, monkeypatch, content):
    _embed(archive, tmp_path, monkeypatch)
    whole = (tmp_path / "sample.tar.xz").read_bytes()
    (tmp_path / "sample.tar.xz").write_bytes(
        whole[: len(whole) // 2] if content is None else content
    )
    with pytest.raises(BadRawFiles, match=r"sample\.tar\.xz: expected"):
        download(tmp_path / "raw", params())


def test_the_sample_never_overwrites_an_archive_of_ones_own(tmp_path, archive, monkeypatch):
    _embed(archive, tmp_path, monkeypatch)
    own = tmp_path / "own"
    table = own / "ptb-xl/1.0.3/ptbxl_database.csv"
    table.parent.mkdir(parents=True)
    table.write_text("the whole table")
    monkeypatch.setenv("ECG_DATA", str(own))
    with pytest.raises(BadRawFiles, match="ECG_DATA holds an archive of its own"):
        download(own, params())
    assert table.read_text() == "the whole table"


def test_another_listing_in_an_archive_of_ones_own_is_not_replaced(tmp_path, archive, monkeypatch):
    own = tmp_path / LISTING
    own.parent.mkdir(parents=True)
    own.write_text("another listing")
    monkeypatch.setenv("ECG_DATA", str(tmp_path))
    with pytest.raises(BadRawFiles, match="expected the SHA256SUMS"):
        download(tmp_path, params(mirror=f"file://{archive}"))
    assert own.read_text() == "another listing"
