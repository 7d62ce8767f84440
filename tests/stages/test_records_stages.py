"""From a mirror to the split: the four offline stages, run as `dvc repro` runs them."""

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_core.manifest import label_matrix, read_manifest
from ecg_core.params import read_yaml
from ecg_core.records.counts import TooManyRefused
from ecg_core.segments import open_segments
from ecg_core.splits import BadSplit, read_split
from stages import command, download, manifest, preprocess, split
from tests.records.examples import (
    GEORGIA,
    PTBXL,
    signal,
    write_listings,
    write_ptbxl_table,
    write_record,
)

PROJECT = Path(__file__).parents[2]
BAD_INPUTS = PROJECT / "tests/fixtures/bad-inputs/bad-inputs.tar.xz"
TRAINING = "challenge-2021/1.0.3/training"
OUTPUT_SPLIT = Path("data/split/split.csv")
STAGES = (download, manifest, preprocess, split)
OUTPUTS = (
    "data/checksums.txt",
    "data/manifest/manifest.csv",
    "data/manifest/refused.csv",
    "data/manifest/unused.csv",
    "data/segments/gains.f32",
    "data/segments/recordings.csv",
    "data/segments/signals.i16",
    "data/segments/store.json",
    "data/split/records.csv",
    "data/split/split.csv",
    "reports/manifest/metrics.json",
    "reports/split/metrics.json",
)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A mirror of 60 recordings of four sources, eight of them of four known patients."""
    folder = tmp_path_factory.mktemp("mirror")
    for seed in range(25):
        write_record(folder, f"{TRAINING}/cpsc_2018/g1", f"A{seed:04}", signal(seed, 5100))
        write_record(folder, GEORGIA, f"E{seed:05}", signal(100 + seed))
    for seed in range(8):
        write_record(folder, PTBXL, f"{seed:05}_hr", signal(200 + seed), "dat", dx="")
    write_record(folder, f"{TRAINING}/ptb-xl/g1", "HR00003", signal(203))
    write_record(folder, f"{TRAINING}/ptb/g1", "S0001", signal(300, 20_000), fs=1000)
    write_ptbxl_table(folder, [(n, n // 2, n + 1) for n in range(8)])
    write_listings(folder)
    return folder


def _settle(folder, mirror, monkeypatch, **changes):
    """Make a folder a project of its own: the project's parameters, this mirror."""
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    for name in ("ECG_DATA", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    tree = read_yaml(PROJECT / "params.yaml")
    tree["data"] |= {"mirror": f"file://{mirror}", "workers": 1}
    for key, value in changes.items():
        section, name = key.split("__")
        tree[section][name] = value
    # JSON is YAML
    Path("params.yaml").write_text(json.dumps({"data": tree["data"], "split": tree["split"]}))


def _run(*stages):
    for stage in stages:
        stage.main()


def test_the_stages_make_a_divided_data_set_out_of_a_mirror(tmp_path, mirror, monkeypatch):
    _settle(tmp_path, mirror, monkeypatch)
    _run(*STAGES)
    table, parts = read_manifest(Path("data/manifest/manifest.csv")), read_split(OUTPUT_SPLIT)
    store = open_segments(Path("data/segments"))
    assert len(table) == 25 + 25 + 1 + 7
    assert label_matrix(table)[table["source"] == "georgia"].sum(axis=1).tolist() == [1] * 25
    keys = ["source", "record_id", "segment"]
    joined = parts.merge(store.index.reset_index(), on=keys, how="left")
    assert joined["index"].notna().all()
    first = store.index.iloc[0]
    assert (first["source"], first["record_id"]) == ("cpsc_2018", "A0000")
    np.testing.assert_allclose(store.read([0])[0], signal(0, 5100)[:, :2500] / 1000, rtol=1e-6)
    refused = pd.read_csv("data/manifest/refused.csv")
    assert dict(zip(refused["record_id"], refused["reason"], strict=True)) == {
        "S0001": "other sampling rate",
        "00003_hr": "same signal already taken",
    }
    counts = json.loads(Path("reports/manifest/metrics.json").read_text())["manifest"]
    assert (counts["records"], counts["kept"], counts["refused"]) == (60, 58, 2)
    leaks = json.loads(Path("reports/split/metrics.json").read_text())["split"]["leaks"]
    assert {n for o in leaks.values() for shared in o.values() for n in shared.values()} == {0}


def test_two_clones_write_the_same_bytes_whatever_their_workers(tmp_path, mirror, monkeypatch):
    found = []
    for name, workers in (("one", 1), ("another/place", 3)):
        _settle(tmp_path / name, mirror, monkeypatch, data__workers=workers)
        _run(*STAGES)
        assert {str(p) for p in Path().rglob("*") if p.is_file() and "raw" not in str(p)} == {
            *OUTPUTS,
            "params.yaml",
        }
        found.append({path: Path(path).read_bytes() for path in OUTPUTS})
    assert found[0] == found[1]
    assert not [path for path, content in found[0].items() if str(tmp_path).encode() in content]


def test_outputs_do_not_tell_which_mirror_they_came_from(tmp_path, mirror, monkeypatch):
    _settle(tmp_path / "a", mirror, monkeypatch)
    _run(download)
    first = Path("data/checksums.txt").read_bytes()
    monkeypatch.chdir(tmp_path)
    _settle(tmp_path / "b", tmp_path / "a/data/raw", monkeypatch)
    _run(download)
    assert Path("data/checksums.txt").read_bytes() == first


def test_an_archive_of_ones_own_is_used_where_it_is(tmp_path, mirror, monkeypatch):
    _settle(tmp_path, mirror, monkeypatch)
    monkeypatch.setenv("ECG_DATA", str(mirror))
    _run(*STAGES)
    assert not Path("data/raw").exists()
    assert OUTPUT_SPLIT.is_file()


def test_real_defects_end_among_the_refusals_with_their_reasons(tmp_path, mirror, monkeypatch):
    place = {"A": "cpsc_2018", "E": "georgia", "H": "ptb-xl", "I": "st_petersburg_incart"}
    bad = tmp_path / "mirror"
    with tarfile.open(BAD_INPUTS) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name.endswith((".hea", ".mat", ".dat")):
                source = place.get(name[0], "ningbo")
                folder = PTBXL if name[0] in "l9" else f"{TRAINING}/{source}/g1"
                (bad / folder).mkdir(parents=True, exist_ok=True)
                (bad / folder / name).write_bytes(tar.extractfile(member).read())
    write_listings(bad)
    _settle(tmp_path / "project", bad, monkeypatch, data__max_refused=0.8)
    _run(download, manifest)
    refused = pd.read_csv("data/manifest/refused.csv", dtype=str, keep_default_na=False)
    assert dict(zip(refused["record_id"], refused["reasons"], strict=True)) == {
        "9190_all_data_is_zero": (
            "all-zero signal; wrong gain; other sampling rate; shorter than one segment"
        ),
        "A0001": "diagnoses not SNOMED codes",
        "E00001": "wrong gain",
        "E00015": "wrong gain",
        "E07510": "same signal already taken",
        "HR00599": "wrong gain",
        "I0001": "no signal file; wrong gain; other sampling rate",
        "lfs_pointer_00001_hr": "unreadable header; Git-LFS pointer or truncated signal",
    }
    kept = read_manifest(Path("data/manifest/manifest.csv"))
    assert kept["record_id"].tolist() == ["E07509", "JS11438", "JS20004"]
    assert kept["flat_leads"].tolist() == ["", "V1 V2 V3 V4 V5 V6", "V2 V4 V6"]


def test_too_many_refusals_stop_the_stage_and_leave_their_table(tmp_path, mirror, monkeypatch):
    _settle(tmp_path, mirror, monkeypatch, data__max_refused=0.01)
    _run(download)
    with pytest.raises(TooManyRefused, match="other sampling rate"):
        _run(manifest)
    assert Path("data/manifest/refused.csv").is_file()
    assert not Path("data/manifest/manifest.csv").exists()


def test_resampling_takes_in_what_is_at_another_rate(tmp_path, mirror, monkeypatch):
    _settle(tmp_path, mirror, monkeypatch, data__resample=True)
    _run(download, manifest, preprocess)
    index = open_segments(Path("data/segments")).index
    assert (index["source"] == "ptb").sum() == 4


def test_a_published_split_file_is_followed_and_a_leak_in_it_stops(tmp_path, mirror, monkeypatch):
    lines = ["part,source,record_id,segments"]
    lines += [f"{part},cpsc_2018,A{n:04},2" for n in range(3) for part in ("pretrain", "train")]
    lines += ["valid,cpsc_2018,A0003,2", "test,georgia,E00001,2"]
    _settle(tmp_path, mirror, monkeypatch, split__file="mine.csv")
    Path("mine.csv").write_text("\n".join(lines))
    _run(download, manifest, split)
    parts = read_split(OUTPUT_SPLIT)
    assert set(parts.loc[parts["pretrain"] == 1, "record_id"]) == {"A0000", "A0001", "A0002"}
    Path("mine.csv").write_text("\n".join([*lines, "pretrain,georgia,E00001,2"]))
    with pytest.raises(BadSplit, match="test segments share a recording with pretrain"):
        _run(split)


def test_split_by_segment_writes_its_leaks_instead_of_failing(tmp_path, mirror, monkeypatch):
    _settle(tmp_path, mirror, monkeypatch, split__unit="segment")
    _run(download, manifest, split)
    leaks = json.loads(Path("reports/split/metrics.json").read_text())["split"]["leaks"]
    assert leaks["test"]["finetune_train"]["recording"] > 0


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_every_stage_explains_itself(stage, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stage", "--help"])
    with pytest.raises(SystemExit) as ended:
        command.run_stage(stage.main, stage.__doc__)
    assert ended.value.code == 0
    assert stage.__doc__.split("\n")[0] in capsys.readouterr().out


@pytest.mark.parametrize("stage", STAGES[1:], ids=lambda stage: stage.__name__)
def test_a_stage_without_its_input_names_the_stage_to_run(stage, tmp_path, mirror, monkeypatch):
    _settle(tmp_path, mirror, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit, match=r"error: data/.*run python -m stages\.\w+"):
        command.run_stage(stage.main, stage.__doc__)
