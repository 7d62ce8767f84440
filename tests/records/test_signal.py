"""Resampling."""

import numpy as np
import pytest
from scipy.interpolate import interp1d

from ecg_core.records.signal import at_rate
from ecg_core.records.wfdb_io import Recording
from tests.records.examples import signal


def _recording(values, fs):
    return Recording(values.astype(np.int16), np.full(12, 1000, np.float32), fs)


def _tone(hertz, fs, seconds=10):
    time = np.arange(round(seconds * fs)) / fs
    return np.tile(2000 * np.sin(2 * np.pi * hertz * time), (12, 1))


def test_a_recording_at_the_target_rate_is_left_exactly_as_it_is():
    recording = _recording(signal(1), 500.0)
    assert at_rate(recording, 500, "polyphase") is recording


@pytest.mark.parametrize("fs", [100.0, 250.0, 257.0, 360.0, 1000.0])
def test_a_tone_keeps_its_frequency_and_height(fs):
    brought = at_rate(_recording(_tone(5, fs), fs), 500, "polyphase")
    expected = _tone(5, 500)
    assert brought.signal.shape == (12, 5000)
    assert brought.fs == 500.0
    middle = slice(500, 4500)
    assert np.abs(brought.signal[:, middle] - expected[:, middle]).max() < 8


def test_polyphase_removes_what_the_lower_rate_cannot_hold():
    brought = at_rate(_recording(_tone(400, 1000.0), 1000.0), 500, "polyphase")
    assert np.abs(brought.signal[:, 500:4500]).max() < 20


def test_linear_is_the_interpolation_of_the_original():
    values = signal(4, 1285)
    places = np.linspace(0, 2500 - 1, 1285)
    expected = interp1d(places, values, kind="linear")(np.arange(2500))
    brought = at_rate(_recording(values, 257.0), 500, "linear")
    assert np.abs(brought.signal - expected).max() <= 0.5


@pytest.mark.parametrize("fs", [99.5, 257.0, 333.3, 499.0, 500.5, 977.0])
def test_the_number_of_samples_is_that_of_the_method(fs):
    brought = at_rate(_recording(signal(5, 3000), fs), 500, "polyphase")
    assert brought.signal.shape[1] == int(3000 * 500 / fs)


def test_a_peak_that_would_not_fit_lowers_the_gain_and_no_value_wraps():
    values = np.zeros((12, 2000))
    values[0, ::40] = 32767
    values[0, 20::40] = -32767
    values[1] = 100
    brought = at_rate(_recording(values, 250.0), 500, "polyphase")
    assert brought.gains[0] < 1000
    assert brought.gains[1] == 1000
    assert np.abs(brought.signal[0].astype(int)).max() <= 32767


def test_a_constant_lead_stays_constant():
    brought = at_rate(_recording(np.full((12, 1000), 321), 250.0), 500, "polyphase")
    assert np.abs(brought.signal - 321).max() == 0
