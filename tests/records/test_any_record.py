"""Records as the wfdb package writes them, in ways that the pipeline's own reader refuses."""

from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecg_core.leads import LEADS
from ecg_core.manifest import Reason, RefusedRecord
from ecg_core.records.any_record import read_any, require_leads, segments_of


def waves(names: list[str], fs: float, seconds: float) -> np.ndarray:
    """A slow wave in every lead, of another height in each; millivolt, (sample, lead)."""
    time = np.arange(round(seconds * fs)) / fs
    heights = [1 + LEADS.index(name) / 10 if name in LEADS else 1.0 for name in names]
    return np.sin(2 * np.pi * time)[:, None] * np.array(heights)


def write(
    folder: Path,
    names: list[str],
    fs: float = 500,
    seconds: float = 10.0,
    fmt: str = "16",
    unit: str = "mV",
    signal: np.ndarray | None = None,
) -> Path:
    signal = waves(names, fs, seconds) if signal is None else signal
    wfdb.wrsamp(
        "rec",
        fs=fs,
        units=[unit] * len(names),
        sig_name=names,
        p_signal=signal,
        fmt=[fmt] * len(names),
        write_dir=str(folder),
    )
    return folder / "rec"


def reason(path: Path) -> Reason:
    with pytest.raises(RefusedRecord) as refusal:
        segments_of(read_any(path), 500, 5.0, "polyphase")
    return refusal.value.findings[0].reason


@pytest.mark.parametrize("fmt", ["16", "212", "24", "32", "80"])
def test_formats_give_the_same_millivolt(tmp_path: Path, fmt: str) -> None:
    names = list(LEADS)
    record = read_any(write(tmp_path, names, fmt=fmt))
    assert record.leads == tuple(range(12))
    rough = 0.02 if fmt == "80" else 0.002
    assert np.abs(record.signal_mv - waves(names, 500, 10.0).T).max() < rough


def test_another_order_of_leads_and_other_letters_become_the_standard(tmp_path: Path) -> None:
    names = list(LEADS[::-1])
    record = read_any(
        write(tmp_path, [name.upper() for name in names], signal=waves(names, 500, 10))
    )
    assert np.abs(record.signal_mv - waves(list(LEADS), 500, 10.0).T).max() < 0.001


def test_fewer_leads_leave_zeros_and_other_signals_are_not_used(tmp_path: Path) -> None:
    record = read_any(write(tmp_path, ["V2", "resp", "I"]))
    assert record.leads == (0, 7)
    missing = [lead for lead in range(12) if lead not in record.leads]
    assert not record.signal_mv[missing].any()
    assert np.abs(record.signal_mv[7] - waves(["V2"], 500, 10.0)[:, 0]).max() < 0.001


@pytest.mark.parametrize(("unit", "scale"), [("uV", 1e3), ("V", 1e-3)])
def test_other_units_become_millivolt(tmp_path: Path, unit: str, scale: float) -> None:
    signal = waves(["I", "II"], 500, 10.0)
    record = read_any(write(tmp_path, ["I", "II"], unit=unit, signal=signal * scale))
    assert np.abs(record.signal_mv[:2] - signal.T).max() < 0.001


def test_a_baseline_is_subtracted(tmp_path: Path) -> None:
    signal = waves(["I"], 500, 10.0)
    record = read_any(write(tmp_path, ["I"], signal=signal + 4.0))
    assert np.abs(record.signal_mv[0] - signal[:, 0] - 4.0).max() < 0.001


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_a_record_may_be_named_with_its_suffix(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, ["I"])
    assert read_any(path.with_name(path.name + suffix)).name == "rec"


@pytest.mark.parametrize("method", ["polyphase", "linear"])
def test_another_rate_becomes_the_models(tmp_path: Path, method: str) -> None:
    record = read_any(write(tmp_path, ["I"], fs=250, seconds=10.0))
    segments = segments_of(record, 500, 5.0, method)
    assert segments.shape == (2, 12, 2500)
    expected = waves(["I"], 500, 5.0)[:, 0]
    assert np.abs(segments[1, 0, 50:-50] - expected[50:-50]).max() < 0.03


def test_a_longer_record_gives_whole_segments_one_after_another(tmp_path: Path) -> None:
    record = read_any(write(tmp_path, ["I"], seconds=17.0))
    segments = segments_of(record, 500, 5.0, "polyphase")
    assert len(segments) == 3
    assert np.array_equal(segments[2, 0], record.signal_mv[0, 5000:7500])


def test_what_cannot_be_answered_is_refused_with_its_reason(tmp_path: Path) -> None:
    assert reason(tmp_path / "nothing") is Reason.HEADER
    assert reason(write(tmp_path, ["I"], seconds=4.9)) is Reason.SHORT
    assert reason(write(tmp_path, ["resp", "pleth"])) is Reason.LEADS
    assert reason(write(tmp_path, ["I", "i"])) is Reason.LEADS
    assert reason(write(tmp_path, ["I"], unit="mmHg")) is Reason.GAIN
    assert reason(write(tmp_path, ["V1"], signal=waves(["V1"], 500, 10.0) / 10)) is Reason.GAIN
    assert reason(write(tmp_path, ["I"], signal=waves(["I"], 500, 10.0) * 20)) is Reason.GAIN
    assert reason(write(tmp_path, ["I"], signal=np.full((5000, 1), 0.5))) is Reason.ZERO
    gap = waves(["I"], 500, 10.0)
    gap[7] = np.nan
    assert reason(write(tmp_path, ["I"], signal=gap)) is Reason.NAN
    path = write(tmp_path, ["I"])
    path.with_suffix(".dat").unlink()
    assert reason(path) is Reason.NO_SIGNAL


@pytest.mark.parametrize(
    "text", ["", "version https://git-lfs", "rec 1 500", "rec x 500 9\nrec.dat 212 1/mV", "rec/3 1"]
)
def test_a_header_that_is_none_is_refused_and_nothing_else_is_raised(
    tmp_path: Path, text: str
) -> None:
    write(tmp_path, ["I"])
    (tmp_path / "rec.hea").write_text(text)
    assert reason(tmp_path / "rec") is Reason.HEADER


def test_a_record_without_any_lead_of_the_model_is_refused(tmp_path: Path) -> None:
    record = read_any(write(tmp_path, ["V1"]))
    assert require_leads(record, (6, 7)) is record
    with pytest.raises(RefusedRecord, match="I II, V1"):
        require_leads(record, (0, 1))
