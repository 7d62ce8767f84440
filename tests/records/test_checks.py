"""What is checked of one record: real defects, and more than forty further kinds of damage."""

import errno
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_core.manifest import REASONS, Reason
from ecg_core.records.checks import examine
from ecg_core.records.raw import find_records
from tests.records import examples
from tests.records.examples import GEORGIA, LEADS, PTBXL, params, signal, sums_of, write_record

BAD_INPUTS = Path(__file__).parents[1] / "fixtures/bad-inputs/bad-inputs.tar.xz"
TRAINING = "challenge-2021/1.0.3/training"
VALUES = signal(5)
HEADER, NO_SIGNAL, TRUNCATED, CHECKSUM, LEADS_, NAN, ZERO, GAIN, CODES, RATE, SHORT, _ = REASONS


def _examine(raw, name, **changes):
    files = [f for f in find_records(sums_of(raw), params().datasets) if f.record_id == name]
    return examine(raw, params(**changes), files[0])


def _reasons(examined):
    return [finding.reason for finding in examined.findings]


@pytest.fixture(scope="module")
def bad_inputs(tmp_path_factory):
    """The defective files, each in the folder of its source."""
    place = {
        "A": f"{TRAINING}/cpsc_2018/g1",
        "E": GEORGIA,
        "H": f"{TRAINING}/ptb-xl/g1",
        "I": f"{TRAINING}/st_petersburg_incart/g1",
        "J": f"{TRAINING}/ningbo/g1",
        "l": PTBXL,
        "9": PTBXL,
    }
    raw = tmp_path_factory.mktemp("raw")
    with tarfile.open(BAD_INPUTS) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name.endswith((".hea", ".mat", ".dat")):
                target = raw / place[name[0]] / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())
    return raw


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("9190_all_data_is_zero", [ZERO, GAIN, RATE, SHORT]),
        ("A0001", [CODES]),
        ("E00001", [GAIN]),
        ("E00015", [GAIN]),
        ("E07509", []),
        ("E07510", []),
        ("HR00599", [GAIN]),
        ("I0001", [NO_SIGNAL, GAIN, RATE]),
        ("JS11438", []),
        ("JS20004", []),
        ("lfs_pointer_00001_hr", [HEADER, TRUNCATED]),
    ],
)
def test_a_real_defect_is_refused_for_its_reasons(bad_inputs, name, reasons):
    assert sorted(_reasons(_examine(bad_inputs, name)), key=REASONS.index) == reasons


def test_flat_leads_are_kept_and_named(bad_inputs):
    assert _examine(bad_inputs, "JS11438").flat_leads == LEADS[6:]
    assert _examine(bad_inputs, "JS20004").flat_leads == ("V2", "V4", "V6")


def test_one_signal_under_two_names_has_one_sha256(bad_inputs):
    sums = {_examine(bad_inputs, name).sha256 for name in ("E07509", "E07510")}
    assert len(sums) == 1


def _edit(stem, old, new, count=-1):
    path = stem.with_suffix(".hea")
    text = path.read_bytes()
    assert old in text
    path.write_bytes(text.replace(old, new, count))


def _swap_two_values(stem):
    path = stem.with_suffix(".mat")
    content = bytearray(path.read_bytes())
    content[24:26], content[26:28] = content[26:28], content[24:26]
    path.write_bytes(content)


def _flip(stem, position):
    path = stem.with_suffix(".mat")
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def _rewrite(stem, values, **changes):
    write_record(stem.parent, ".", stem.name, values, **changes)


def _with_values(change):
    values = VALUES.copy()
    change(values)
    return values


def _set_nan(values):
    values[3, 100] = -32768


def _set_zero(values):
    values[:] = 0


def _set_constant(values):
    values[:] = np.arange(12)[:, None]


def _cut(stem, size):
    with stem.with_suffix(".mat").open("r+b") as file:
        file.truncate(size)


def _replace_signal(stem, content):
    stem.with_suffix(".mat").write_bytes(content)


def _loop(stem):
    stem.with_suffix(".mat").unlink()
    stem.with_suffix(".mat").symlink_to(stem.name + ".mat")


def _fifo(stem):
    stem.with_suffix(".mat").unlink()
    os.mkfifo(stem.with_suffix(".mat"))


DAMAGE = {
    "empty header": (lambda s: s.with_suffix(".hea").write_bytes(b""), [HEADER]),
    "no header": (lambda s: s.with_suffix(".hea").unlink(), [HEADER]),
    "header of zeros": (lambda s: s.with_suffix(".hea").write_bytes(bytes(700)), [HEADER]),
    "header is a page": (lambda s: s.with_suffix(".hea").write_text("<html>503"), [HEADER]),
    "header is the signal": (
        lambda s: s.with_suffix(".hea").write_bytes(s.with_suffix(".mat").read_bytes()),
        [HEADER],
    ),
    "header without end": (lambda s: _edit(s, b"V3\n", b"V3"), [HEADER]),
    "header cut in a lead": (
        lambda s: os.truncate(s.with_suffix(".hea"), 200),
        [HEADER],
    ),
    "header of another record": (lambda s: _edit(s, b"E1", b"E2"), [HEADER]),
    "header twice": (lambda s: _edit(s, b"# Age", b"E1 12 500 5000\n# Age"), [HEADER]),
    "UTF-16 header": (
        lambda s: s.with_suffix(".hea").write_text(examples.header("E1", VALUES), "utf-16"),
        [HEADER],
    ),
    "byte order mark": (lambda s: _edit(s, b"E1 12", b"\xef\xbb\xbfE1 12"), [HEADER]),
    "header of a gigabyte": (lambda s: os.truncate(s.with_suffix(".hea"), 10**9), [HEADER]),
    "path out of the folder": (lambda s: _edit(s, b"E1.mat", b"../../E1.mat"), [HEADER]),
    "other format": (lambda s: _edit(s, b"16+24", b"212+24"), [HEADER]),
    "other rate in the header": (lambda s: _edit(s, b"12 500", b"12 250"), [RATE]),
    "absurd rate": (lambda s: _edit(s, b"12 500", b"12 1"), [HEADER]),
    "fewer samples in the header": (lambda s: _edit(s, b" 5000", b" 4999"), [TRUNCATED]),
    "far fewer samples in the header": (lambda s: _edit(s, b" 5000", b" 50"), [TRUNCATED, SHORT]),
    "more samples in the header": (lambda s: _edit(s, b" 5000", b" 50000"), [TRUNCATED]),
    "offset of 0": (lambda s: _edit(s, b"16+24", b"16"), [TRUNCATED]),
    "offset of 22": (lambda s: _edit(s, b"16+24", b"16+22"), [TRUNCATED]),
    "two leads of one name": (lambda s: _edit(s, b" V2\n", b" V1\n"), [LEADS_]),
    "a lead of unknown name": (lambda s: _edit(s, b" V2\n", b" V7\n"), [LEADS_]),
    "a lead without a name": (lambda s: _edit(s, b" V2\n", b"\n"), [LEADS_]),
    "eight leads": (lambda s: _rewrite(s, VALUES[:8]), [LEADS_]),
    "a wrong gain": (lambda s: _edit(s, b"1000.0(0)/mV", b"4880/mV"), [GAIN]),
    "one wrong gain": (lambda s: _edit(s, b"1000.0(0)/mV", b"200/mV", 1), [GAIN]),
    "a gain of 0": (lambda s: _edit(s, b"1000.0(0)/mV", b"0/mV"), [GAIN]),
    "a negative gain": (lambda s: _edit(s, b"1000.0(0)/mV", b"-1000/mV"), [GAIN]),
    "a gain per volt": (lambda s: _edit(s, b"1000.0(0)/mV", b"1000/V"), [GAIN]),
    "a gain that is no number": (lambda s: _edit(s, b"1000.0(0)/mV", b"nan/mV"), [HEADER]),
    "a baseline": (lambda s: _edit(s, b"1000.0(0)/mV", b"1000(512)/mV"), [GAIN]),
    "an ADC zero": (lambda s: _edit(s, b"1000.0(0)/mV 16 0", b"1000/mV 16 512"), [GAIN]),
    "diagnoses as text": (lambda s: _edit(s, b"426783006", b"AF,I-AVB"), [CODES]),
    "one diagnosis as text": (lambda s: _edit(s, b"426783006", b"426783006,AF"), [CODES]),
    "a diagnosis too short": (lambda s: _edit(s, b"426783006", b"59"), [CODES]),
    "a negative diagnosis": (lambda s: _edit(s, b"426783006", b"-426783006"), [CODES]),
    "no signal": (lambda s: s.with_suffix(".mat").unlink(), [NO_SIGNAL]),
    "a broken link": (_loop, [NO_SIGNAL]),
    "a pipe": (_fifo, [NO_SIGNAL]),
    "empty signal": (lambda s: _cut(s, 0), [TRUNCATED]),
    "signal cut in its header": (lambda s: _cut(s, 10), [TRUNCATED]),
    "signal cut in the middle": (lambda s: _cut(s, 60_001), [TRUNCATED]),
    "last sample missing": (lambda s: _cut(s, 120_022), [TRUNCATED]),
    "signal padded": (lambda s: _cut(s, 120_025), [TRUNCATED]),
    "signal is a page": (lambda s: _replace_signal(s, b"<html>" * 20_004), [TRUNCATED]),
    "signal is a pointer": (
        lambda s: _replace_signal(s, b"version https://git-lfs.github.com/spec/v1\n"),
        [TRUNCATED],
    ),
    "pointers both": (
        lambda s: [
            s.with_suffix(x).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
            for x in (".hea", ".mat")
        ],
        [HEADER, TRUNCATED],
    ),
    "both missing but listed": (
        lambda s: [s.with_suffix(x).unlink() for x in (".hea", ".mat")],
        [HEADER, NO_SIGNAL],
    ),
    "big-endian signal": (
        lambda s: _replace_signal(s, examples.mat(VALUES.byteswap())),
        [CHECKSUM, NAN],
    ),
    "matrix transposed": (
        lambda s: _replace_signal(s, examples.mat(VALUES.reshape(5000, 12).T)),
        [CHECKSUM],
    ),
    "signal of another record": (lambda s: _replace_signal(s, examples.mat(signal(6))), [CHECKSUM]),
    "one bit": (lambda s: _flip(s, 24 + 77), [CHECKSUM]),
    "one bit of a high byte": (lambda s: _flip(s, 25), [CHECKSUM]),
    "one bit of the matrix's type": (lambda s: _flip(s, 1), [TRUNCATED]),
    "two values exchanged": (_swap_two_values, [CHECKSUM]),
    "a wrong checksum": (lambda s: _edit(s, b" 0 V6", b"1 0 V6"), [CHECKSUM]),
    "NaN": (lambda s: _rewrite(s, _with_values(_set_nan)), [NAN]),
    "all zero": (lambda s: _rewrite(s, _with_values(_set_zero)), [ZERO]),
    "all constant": (lambda s: _rewrite(s, _with_values(_set_constant)), [ZERO]),
    "short": (lambda s: _rewrite(s, VALUES[:, :2499]), [SHORT]),
    "one sample": (lambda s: _rewrite(s, VALUES[:, :1]), [ZERO, SHORT]),
    "everything at once": (
        lambda s: _rewrite(
            s,
            np.zeros((12, 100), np.int16),
            gain="200/mV",
            fs=257,
            dx="AF",
            leads=("X",) * 12,
        ),
        [LEADS_, ZERO, GAIN, CODES, RATE, SHORT],
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_for_every_reason_it_gives(tmp_path, kind):
    damage, reasons = DAMAGE[kind]
    stem = write_record(tmp_path, GEORGIA, "E1", VALUES)
    files = find_records(sums_of(tmp_path), params().datasets)[0]
    damage(stem)
    examined = examine(tmp_path, params(), files)
    assert sorted(_reasons(examined), key=REASONS.index) == reasons


def test_there_are_more_than_forty_kinds_of_damage():
    assert len(DAMAGE) > 40


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    position=st.integers(0, 700),
    byte=st.integers(0, 255),
    how=st.sampled_from(["replace", "insert", "delete"]),
)
def test_no_changed_byte_of_a_header_changes_a_kept_signal(tmp_path_factory, position, byte, how):
    raw = tmp_path_factory.mktemp("raw")
    stem = write_record(raw, GEORGIA, "E1", VALUES)
    files = find_records(sums_of(raw), params().datasets)[0]
    good = examine(raw, params(), files)
    content = bytearray(stem.with_suffix(".hea").read_bytes())
    place = position % len(content)
    content[place : place + (how != "insert")] = b"" if how == "delete" else bytes([byte])
    stem.with_suffix(".hea").write_bytes(content)
    examined = examine(raw, params(), files)
    if not examined.findings:
        assert examined.sha256 == good.sha256
        assert {(lead.gain, lead.baseline) for lead in examined.header.leads} == {(1000.0, 0)}
        assert (examined.header.fs, examined.header.n_samples) == (500.0, 5000)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    start=st.integers(0, 120_023),
    change=st.binary(min_size=1, max_size=1),
    how=st.sampled_from(["xor", "insert", "cut"]),
)
def test_no_changed_byte_of_a_signal_slips_through(tmp_path_factory, start, change, how):
    raw = tmp_path_factory.mktemp("raw")
    stem = write_record(raw, GEORGIA, "E1", VALUES)
    files = find_records(sums_of(raw), params().datasets)[0]
    content = bytearray(stem.with_suffix(".mat").read_bytes())
    if how == "xor":
        content[start] ^= change[0] or 1
    elif how == "insert":
        content[start:start] = change
    else:
        del content[start:]
    stem.with_suffix(".mat").write_bytes(content)
    assert _reasons(examine(raw, params(), files))


def test_a_file_that_is_listed_but_gone_is_no_crash(tmp_path):
    write_record(tmp_path, GEORGIA, "E1", VALUES)
    files = find_records(sums_of(tmp_path), params().datasets)[0]
    assert _reasons(examine(tmp_path / "elsewhere", params(), files)) == [HEADER, NO_SIGNAL]


@pytest.mark.parametrize(
    ("suffix", "reasons"), [(".hea", [HEADER]), (".mat", [NO_SIGNAL])], ids=["header", "signal"]
)
def test_a_file_that_cannot_be_read_is_no_crash(tmp_path, monkeypatch, suffix, reasons):
    write_record(tmp_path, GEORGIA, "E1", VALUES)
    files = find_records(sums_of(tmp_path), params().datasets)[0]
    opened = Path.open

    def fail(path, *arguments, **named):
        if path.suffix == suffix:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", fail)
    examined = examine(tmp_path, params(), files)
    assert _reasons(examined) == reasons
    assert "Input/output error" in examined.findings[0].found


def test_another_gain_is_right_in_the_tree_of_ptbxl(tmp_path):
    write_record(tmp_path, PTBXL, "00001_hr", VALUES, "dat", gain="200(0)/mV")
    assert _reasons(_examine(tmp_path, "00001_hr")) == []


def test_resampling_keeps_what_is_at_another_rate(tmp_path):
    write_record(tmp_path, GEORGIA, "E1", VALUES, fs=1000)
    assert _reasons(_examine(tmp_path, "E1")) == [RATE]
    assert _reasons(_examine(tmp_path, "E1", resample=True)) == []
    write_record(tmp_path, GEORGIA, "E2", VALUES[:, :4999], fs=1000)
    assert _reasons(_examine(tmp_path, "E2", resample=True)) == [SHORT]


def test_every_reason_says_what_was_expected_and_found(bad_inputs):
    for finding in _examine(bad_inputs, "I0001").findings:
        assert finding.expected
        assert finding.found
    rate = [f for f in _examine(bad_inputs, "I0001").findings if f.reason is Reason.RATE]
    assert (rate[0].expected, rate[0].found) == ("500 Hz", "257 Hz")
