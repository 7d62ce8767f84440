"""Headers of WFDB records."""

import pytest
import wfdb

from ecg_core.manifest import Reason, RefusedRecord
from ecg_core.records.header import lead_order, parse_header
from tests.records.examples import LEADS, header, signal, write_record

VALUES = signal(1)
GOOD = header("E00001", VALUES)


def test_a_header_reads_as_wfdb_reads_it(tmp_path):
    stem = write_record(tmp_path, "x", "E00001", VALUES)
    ours, theirs = parse_header(GOOD, "E00001"), wfdb.rdheader(str(stem))
    assert (ours.fs, ours.n_samples) == (theirs.fs, theirs.sig_len)
    assert [lead.name for lead in ours.leads] == theirs.sig_name
    assert [lead.gain for lead in ours.leads] == theirs.adc_gain
    assert [lead.checksum for lead in ours.leads] == theirs.checksum
    assert [lead.offset for lead in ours.leads] == theirs.byte_offset


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("E00001 12", "E00001.mat 12"),
        ("/mV", "/mv"),
        ("16+24", "16x1+24"),
        ("1000.0(0)/mV", "1000/mV"),
        ("1000.0(0)/mV", "1000"),
        ("500 5000", "500 5000 05-May-2020 14:50:55"),
        ("500 5000", "500 5000 10:20:30 05/05/2020"),
        ("500 5000", "500.0 5000"),
        ("500 5000", "500/500(0) 5000"),
        ("aVR", "AVR"),
        ("\n", "\r\n"),
        ("# Age", "# a comment\n\n# Age"),
        ("# Age", "# caf\u00c5 \u2026\n# Age"),
    ],
)
def test_a_variant_of_a_header_says_the_same(old, new):
    assert old in GOOD
    varied = parse_header(GOOD.replace(old, new).encode().decode("latin-1"), "E00001")
    plain = parse_header(GOOD, "E00001")
    assert (varied.fs, varied.n_samples, lead_order(varied.names())) == (
        500.0,
        5000,
        tuple(range(12)),
    )
    assert varied.leads[0].gain == 1000.0
    assert (varied.age, varied.sex, varied.diagnoses) == (plain.age, plain.sex, plain.diagnoses)


@pytest.mark.parametrize(
    ("line", "age"),
    [
        ("# Age: 59", 59.0),
        ("#Age: 59", 59.0),
        ("#Age:59", 59.0),
        ("# Age: 0.5", 0.5),
        ("#Age: NaN", None),
        ("# Age: Unknown", None),
        ("# Age: -3", None),
        ("# Age:", None),
        ("", None),
    ],
)
def test_an_age_that_is_no_number_is_missing(line, age):
    assert parse_header(GOOD.replace("# Age: 59", line), "E00001").age == age


@pytest.mark.parametrize(
    ("text", "sex"),
    [("Male", "male"), ("male", "male"), ("F", "female"), ("Unknown", ""), ("", "")],
)
def test_sex_is_male_female_or_missing(text, sex):
    assert parse_header(GOOD.replace("Female", text), "E00001").sex == sex


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("# Dx: 426783006,164934002", ("426783006", "164934002")),
        ("#Dx: 426783006, 164934002", ("426783006", "164934002")),
        ("#Dx:251146004,284470004,284470004", ("251146004", "284470004")),
        ("#Dx: ", ()),
        ("#Dx: Unknown", ()),
        ("", ()),
        ("# Dx: AF,RBBB", ("AF", "RBBB")),
    ],
)
def test_diagnoses_are_read_by_key_and_once_each(line, codes):
    assert parse_header(GOOD.replace("# Dx: 426783006", line), "E00001").diagnoses == codes


def test_the_order_of_comments_does_not_matter():
    comments = ["# Age: 59", "# Sex: Female", "# Dx: 426783006"]
    turned = GOOD.replace("\n".join(comments), "\n".join(reversed(comments)))
    assert turned != GOOD
    assert parse_header(turned, "E00001") == parse_header(GOOD, "E00001")


def test_leads_in_another_order_are_found_by_name():
    turned = parse_header(header("E00001", VALUES, leads=LEADS[::-1]), "E00001")
    assert lead_order(turned.names()) == tuple(range(11, -1, -1))


def test_units_other_than_millivolt_become_millivolt():
    assert parse_header(GOOD.replace("1000.0(0)/mV", "1/uV"), "E00001").leads[0].gain == 1000.0


def test_a_baseline_is_the_adc_zero_where_none_is_given():
    lead = parse_header(GOOD.replace("1000.0(0)/mV 16 0", "1000/mV 16 7"), "E00001").leads[0]
    assert lead.baseline == 7


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (GOOD, ""),
        (GOOD, "\n# Age: 3\n"),
        (GOOD, "version https://git-lfs.github.com/spec/v1\noid sha256:c0\nsize 605\n"),
        ("E00001 12 500 5000", "E00001 12 500"),
        ("E00001 12 500 5000", "E00001 12"),
        ("E00001 12 500 5000", "E00002 12 500 5000"),
        ("E00001 12 500 5000", "E00001/2 12 500 5000"),
        ("E00001 12 500 5000", "E00001 twelve 500 5000"),
        ("E00001 12 500 5000", "E00001 11 500 5000"),
        ("E00001 12 500 5000", "E00001 13 500 5000"),
        ("E00001 12 500 5000", "E00001 12 0 5000"),
        ("E00001 12 500 5000", "E00001 12 nan 5000"),
        ("E00001 12 500 5000", "E00001 12 500 0"),
        ("E00001 12 500 5000", "E00001 12 500 -5000"),
        ("E00001 12 500 5000", "E00001 12 500 99999999999999999999"),
        ("E00001.mat 16+24", "../E00001.mat 16+24"),
        ("E00001.mat 16+24", "/etc/passwd 16+24"),
        ("E00001.mat 16+24", "E00002.mat 16+24"),
        ("E00001.mat 16+24", "E00001.mat 212+24"),
        ("E00001.mat 16+24", "E00001.mat 16x4+24"),
        ("E00001.mat 16+24", "E00001.mat 16:3+24"),
        ("1000.0(0)/mV", "gain/mV"),
        ("1000.0(0)/mV", "1.0.0/mV"),
        ("1000.0(0)/mV", "nan/mV"),
        ("1000.0(0)/mV", "1e999/mV"),
        ("1000.0(0)/mV", "1000/mmHg"),
        ("I\nE00001.mat 16+24", "I\nE00001.mat 16+48"),
        ("I\nE00001.mat", "I\nE00001.dat"),
    ],
)
def test_what_is_no_header_of_the_record_is_refused(old, new):
    assert old in GOOD
    with pytest.raises(RefusedRecord) as refused:
        parse_header(GOOD.replace(old, new, 1), "E00001")
    assert [finding.reason for finding in refused.value.findings] == [Reason.HEADER]


def test_a_refusal_shows_what_was_found_in_one_short_line():
    with pytest.raises(RefusedRecord) as refused:
        parse_header("x" * 5000, "E00001")
    assert len(refused.value.findings[0].found) < 100
