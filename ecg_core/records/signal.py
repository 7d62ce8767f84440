"""A recording at the wanted sampling rate, still as int16 with a gain a lead (method.md, 4.1)."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from ecg_core.records.wfdb_io import Recording
from ecg_core.segments import samples_at

_LARGEST = 32767
_LARGEST_FACTOR = 100_000


def at_rate(recording: Recording, fs: int, method: str) -> Recording:
    """Return a recording at another fs: exactly itself where that is its own, else resampled.

    `method` is polyphase or linear. A resampled lead keeps its gain, unless its peak would not fit
    into int16 with it.
    """
    if recording.fs == fs:
        return recording
    n_samples = samples_at(recording.signal.shape[1], recording.fs, fs)
    signal = np.empty((len(recording.signal), n_samples), np.int16)
    gains = recording.gains.copy()
    for lead, samples in enumerate(recording.signal):
        if method == "linear":
            resampled = _linear(samples, n_samples)
        else:
            resampled = _polyphase(samples, n_samples, fs / recording.fs)
        shrink = min(1.0, _LARGEST / max(1.0, float(np.abs(resampled).max())))
        gains[lead] *= shrink
        signal[lead] = np.rint(resampled * shrink)
    return Recording(signal, gains, float(fs))


def _linear(samples: npt.NDArray[np.int16], n_samples: int) -> npt.NDArray[np.float64]:
    """Interpolate between samples, first on first and last on last, as the original does."""
    places = np.linspace(0, n_samples - 1, len(samples))
    return np.interp(np.arange(n_samples), places, samples)


def _polyphase(
    samples: npt.NDArray[np.int16], n_samples: int, ratio: float
) -> npt.NDArray[np.float64]:
    """Filter and resample; beyond its ends a lead goes on along the line between them."""
    factor = Fraction(ratio).limit_denominator(_LARGEST_FACTOR)
    resampled = resample_poly(
        samples.astype(np.float64), factor.numerator, factor.denominator, padtype="line"
    )
    missing = max(0, n_samples - len(resampled))
    return np.pad(resampled, (0, missing), mode="edge")[:n_samples]
