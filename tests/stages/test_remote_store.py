"""Training from a store in shards behind a URL is training from the store in one file."""

from pathlib import Path

import pytest

from small_project import copy_project, make_project, run_stage
from tests.sharded import cut_into_shards

STAGES = {"pretrain": "models/pretrained", "finetune": "models/finetuned"}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project trained from one file."""
    changes: dict[str, object] = {"optimization.max_epoch": 2, "finetune.max_epoch": 1}
    folder = make_project(tmp_path_factory.mktemp("local") / "project", changes)
    for stage in STAGES:
        done = run_stage(folder, stage)
        assert done.returncode == 0, done.stderr
    return folder


def test_models_and_histories_are_the_same_bytes(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_project(local, tmp_path / "project")
    cut_into_shards(folder / "data/segments", 7, tmp_path / "away")
    # room for two of six shards: they leave and come back within an epoch
    monkeypatch.setenv("ECG_CACHE_GB", str(2 * 7 * 60_000 / 1e9))
    for stage, models in STAGES.items():
        done = run_stage(folder, stage)
        assert done.returncode == 0, done.stderr
        assert files(folder / models) == files(local / models)
        assert files(folder / "reports" / stage) == files(local / "reports" / stage)
    cached = list((folder / ".state/segments-cache").glob("*.i16"))
    assert 0 < len(cached) <= 2


def test_a_shard_that_is_gone_stops_the_stage_with_its_url(local: Path, tmp_path: Path) -> None:
    folder = copy_project(local, tmp_path / "project")
    cut_into_shards(folder / "data/segments", 7, tmp_path / "away")
    (tmp_path / "away/part-1.i16").unlink()
    done = run_stage(folder, "pretrain")
    assert done.returncode == 1
    assert f"error: file://{tmp_path}/away/part-1.i16: expected a file, found" in done.stderr
