"""A recording at the wanted sampling rate, still as int16 with a gain a lead (method.md, 4.1)."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from ecg_core.records.wfdb_io import Recording
from ecg_core.segments import samples_at

_LARGEST = 32767
_LARGEST_FACTOR = 1000


def at_rate(recording: Recording, fs: int, method: str) -> Recording:
    """Return a recording at another fs: exactly itself where that is its own, else resampled.

    A resampled lead keeps its gain, unless its peak would not fit into int16 with it.
    """
    if recording.fs == fs:
        return recording
    n_samples = samples_at(recording.signal.shape[1], recording.fs, fs)
    signal = recording.signal.astype(np.float64)
    if method == "linear":
        resampled = _linear(signal, n_samples)
    else:
        ratio = Fraction(fs / recording.fs).limit_denominator(_LARGEST_FACTOR)
        resampled = resample_poly(
            signal, ratio.numerator, ratio.denominator, axis=1, padtype="line"
        )[:, :n_samples]
    peaks = np.abs(resampled).max(axis=1)
    shrink = np.minimum(1.0, _LARGEST / np.maximum(peaks, 1.0))
    gains = (recording.gains * shrink).astype(np.float32)
    digital = np.rint(resampled * shrink[:, None]).astype(np.int16)
    return Recording(digital, gains, float(fs))


def _linear(signal: npt.NDArray[np.float64], n_samples: int) -> npt.NDArray[np.float64]:
    """Interpolate between samples, first on first and last on last, as the original does."""
    places = np.linspace(0, n_samples - 1, signal.shape[1])
    return np.stack([np.interp(np.arange(n_samples), places, lead) for lead in signal])
