"""Signals of WFDB records."""

import numpy as np
import pytest
import scipy.io
import wfdb

from ecg_core.manifest import Reason, RefusedRecord
from ecg_core.records.wfdb_io import read_recording, signal_sha256
from tests.records.examples import LEADS, dat, mat, signal, write_record

VALUES = signal(2)


def _reason(stem):
    with pytest.raises(RefusedRecord) as refused:
        read_recording(stem)
    return refused.value.findings[0].reason


def test_a_mat_reads_as_scipy_reads_it(tmp_path):
    stem = write_record(tmp_path, "x", "E1", VALUES)
    expected = scipy.io.loadmat(stem.with_suffix(".mat"))["val"]
    np.testing.assert_array_equal(read_recording(stem).signal, expected)


def test_a_dat_reads_as_wfdb_reads_it(tmp_path):
    stem = write_record(tmp_path, "x", "00001_hr", VALUES, suffix="dat")
    record = read_recording(stem)
    expected = wfdb.rdrecord(str(stem), physical=False).d_signal.T
    np.testing.assert_array_equal(record.signal, expected)
    assert record.fs == 500.0
    np.testing.assert_array_equal(record.gains, np.full(12, 1000.0, np.float32))


def test_leads_are_put_into_the_standard_order_with_their_gains(tmp_path):
    stem = write_record(tmp_path, "x", "E1", VALUES[::-1].copy(), leads=LEADS[::-1])
    text = stem.with_suffix(".hea").read_text().replace("1000.0(0)/mV", "200(0)/mV", 1)
    stem.with_suffix(".hea").write_text(text)
    record = read_recording(stem)
    np.testing.assert_array_equal(record.signal, VALUES)
    assert record.gains.tolist() == [1000.0] * 11 + [200.0]


def test_of_more_than_twelve_leads_the_twelve_are_taken(tmp_path):
    values = signal(3, n_leads=15)
    stem = write_record(tmp_path, "x", "S1", values, leads=("vx", *LEADS, "vy", "vz"))
    np.testing.assert_array_equal(read_recording(stem).signal, values[1:13])


def test_the_sha256_of_a_signal_does_not_depend_on_its_file(tmp_path):
    as_mat = write_record(tmp_path, "x", "E1", VALUES)
    as_dat = write_record(tmp_path, "y", "E2", VALUES[::-1].copy(), "dat", leads=LEADS[::-1])
    sums = {signal_sha256(read_recording(stem).signal) for stem in (as_mat, as_dat)}
    assert len(sums) == 1
    assert sums != {signal_sha256(signal(3))}


def test_a_missing_signal_file_is_refused(tmp_path):
    stem = write_record(tmp_path, "x", "E1", VALUES)
    stem.with_suffix(".mat").unlink()
    assert _reason(stem) is Reason.NO_SIGNAL


def test_a_folder_in_place_of_a_signal_file_is_refused(tmp_path):
    stem = write_record(tmp_path, "x", "E1", VALUES)
    stem.with_suffix(".mat").unlink()
    stem.with_suffix(".mat").mkdir()
    assert _reason(stem) is Reason.NO_SIGNAL


def _other_type(values):
    content = bytearray(mat(values))
    content[0] = 40  # uint16
    return bytes(content)


def _other_name(values):
    return mat(values).replace(b"val\0", b"sig\0", 1)


def _transposed(values):
    content = mat(values)
    return content[:4] + content[8:12] + content[4:8] + content[12:]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 24,
        mat(VALUES)[:-1],
        mat(VALUES)[:-24],
        mat(VALUES)[: 60 * 1024],
        mat(VALUES) + b"\0",
        mat(VALUES[:, :-1]),
        dat(VALUES),
        _other_type(VALUES),
        _other_name(VALUES),
        _transposed(VALUES),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:07\nsize 120000\n",
        (b"version https://git-lfs.github.com/spec/v1\n").ljust(120024, b"\0"),
    ],
)
def test_a_signal_that_is_not_what_its_header_says_is_refused(tmp_path, content):
    stem = write_record(tmp_path, "x", "E1", VALUES)
    stem.with_suffix(".mat").write_bytes(content)
    assert _reason(stem) is Reason.TRUNCATED


def test_a_mat_that_scipy_wrote_in_another_format_is_refused(tmp_path):
    stem = write_record(tmp_path, "x", "E1", VALUES)
    scipy.io.savemat(stem.with_suffix(".mat"), {"val": VALUES}, format="5")
    assert _reason(stem) is Reason.TRUNCATED


def test_a_lead_that_is_missing_is_refused(tmp_path):
    stem = write_record(tmp_path, "x", "E1", VALUES, leads=("I", "I", *LEADS[2:]))
    assert _reason(stem) is Reason.LEADS
