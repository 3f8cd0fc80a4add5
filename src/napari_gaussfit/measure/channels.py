"""How channels that share their Gaussians go together: ratios, Pearson, Manders, with errors.

Voxels of two channels are alike already where both are blurred alike; the amplitudes of one set of
Gaussians are not. E. M. M. Manders and co-authors, J. Microsc. 169 (1993) 375.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.measurement import SHAPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]

__all__ = ["ChannelPair", "Estimate", "amplitude_ratios", "compare_channels", "pairs_table"]

DRAWS = 400
"""Of Gaussians, each as often as chance has it (Poisson, mean 1): the bootstrap's."""

AT_ONCE = 2_000_000
"""Numbers of times that are drawn at once, about."""

PRESENT = 3.0
"""Error bars from which a Gaussian's amplitude in a channel is there."""

SHARE, BRIGHT = 0.05, 0.99
"""Of the amplitude that this part of the Gaussians stays below, from which one is there in a
channel that was not measured."""


class Estimate(NamedTuple):
    """A number and its standard error.

    Parameters
    ----------
    value : float
        The number; NaN where there is none.
    error : float
        Its standard error; NaN where that is not known.
    """

    value: float
    error: float


@dataclass(frozen=True, eq=False)
class ChannelPair:
    """How two channels go together over K Gaussians.

    Parameters
    ----------
    first, second : int
        Which channels, counted from 0 in the order of the fields.
    ratio : Estimate
        Integrated intensity of all Gaussians in the second over that in the first.
    pearson : Estimate
        Correlation of the amplitudes; where error bars are known, without what these do to it.
    manders_1, manders_2 : Estimate
        Of the first channel's integrated intensity, the part in Gaussians that the second channel
        has too; and the other way round.
    ratios, ratio_errors : ndarray, shape [K]
        Of each Gaussian, the second's amplitude over the first's, and its error by propagation;
        NaN where that is not known.
    present : str
        From when on a Gaussian is in a channel, in words.
    """

    first: int
    second: int
    ratio: Estimate
    pearson: Estimate
    manders_1: Estimate
    manders_2: Estimate
    ratios: Floats
    ratio_errors: Floats
    present: str


def compare_channels(
    channels: Sequence[Gaussians], measurement: Measurement | None = None, *, seed: int = 0
) -> tuple[ChannelPair, ...]:
    """Compare every two channels that share their Gaussians.

    Parameters
    ----------
    channels : sequence of Gaussians
        Two or more, with equal means and covariances.
    measurement : Measurement, optional
        Of these Gaussians, by which it is known how well amplitudes are.
    seed : int, default 0
        Of the bootstrap over Gaussians, from which the errors of sums and correlations are.

    Returns
    -------
    tuple of ChannelPair
        In the order (0, 1), (0, 2), .., (1, 2), ..

    Raises
    ------
    SettingsError
        If there are fewer than two channels, or they do not have as many Gaussians.

    Examples
    --------
    >>> from napari_gaussfit.measure.channels import compare_channels
    >>> from napari_gaussfit.synthetic.phantoms import beads
    >>> one = beads().truth.numpy()
    >>> [pair] = compare_channels([one, one])
    >>> round(pair.ratio.value, 3), round(pair.pearson.value, 3)
    (1.0, 1.0)
    """
    if len(channels) < 2:
        raise SettingsError("one channel is compared with nothing; give two or more")
    if len({len(one) for one in channels}) > 1:
        counts = ", ".join(str(len(one)) for one in channels)
        raise SettingsError(f"channels have {counts} Gaussians; give those of one fit")
    amplitudes = np.stack([one.amplitudes for one in channels]).astype(np.float64)
    volumes = np.exp(channels[0].log_widths.sum(1)).astype(np.float64)
    errors = _errors(measurement, *amplitudes.shape)
    least, words = _least(amplitudes, errors)
    rows = []
    for i, j in itertools.combinations(range(len(channels)), 2):
        both = amplitudes[[i, j]]
        own = errors[:, [i, j]][:, :, [i, j]]
        found = _bootstrapped(both, volumes, both > least[[i, j]], own, seed)
        rows.append(ChannelPair(i, j, *found, *_ratios(both, own), words))
    return tuple(rows)


def amplitude_ratios(
    channels: Sequence[Gaussians], measurement: Measurement | None = None
) -> list[tuple[Floats, Floats]]:
    """Return each channel's amplitudes over those of the first, and their errors.

    Parameters
    ----------
    channels : sequence of Gaussians
        With equal means and covariances.
    measurement : Measurement, optional
        Of these Gaussians, by which it is known how well amplitudes are.

    Returns
    -------
    list of (ndarray, ndarray), shape [K]
        From the second channel on; errors are NaN where they are not known.
    """
    amplitudes = np.stack([one.amplitudes for one in channels]).astype(np.float64)
    errors = _errors(measurement, *amplitudes.shape)
    return [
        _ratios(amplitudes[[0, n]], errors[:, [0, n]][:, :, [0, n]])
        for n in range(1, len(amplitudes))
    ]


def pairs_table(pairs: Sequence[ChannelPair], names: Sequence[int]) -> pd.DataFrame:
    """Return a row for every two channels.

    Parameters
    ----------
    pairs : sequence of ChannelPair
        What is known of each pair of channels of one fit.
    names : sequence of int
        Of the channels, as the stack's file numbers them.

    Returns
    -------
    DataFrame
        channel_1, channel_2, gaussians, ratio, sd_ratio, pearson, sd_pearson, manders_1,
        sd_manders_1, manders_2, sd_manders_2.
    """
    import pandas as pd

    rows = []
    for pair in pairs:
        row = {"channel_1": names[pair.first], "channel_2": names[pair.second]}
        row["gaussians"] = len(pair.ratios)
        for name in ("ratio", "pearson", "manders_1", "manders_2"):
            value, error = getattr(pair, name)
            row |= {name: value, f"sd_{name}": error}
        rows.append(row)
    return pd.DataFrame(rows)


def _errors(measurement: Measurement | None, channels: int, count: int) -> Floats:
    """Return the covariances [K, C, C] of amplitudes, NaN where they are not known."""
    if measurement is None:
        return np.full((count, channels, channels), np.nan)
    own = slice(SHAPE, SHAPE + channels)
    return np.asarray(measurement.covariances[:, own, own], np.float64)


def _least(amplitudes: Floats, errors: Floats) -> tuple[Floats, str]:
    """Return the amplitudes [C, K] from which a Gaussian is in a channel, and that in words."""
    usual = SHARE * np.quantile(amplitudes, BRIGHT, axis=1, keepdims=True)
    least = np.broadcast_to(usual, amplitudes.shape)
    words = f"{SHARE:g} of the channel's bright Gaussians"
    deviations = np.sqrt(np.diagonal(errors, axis1=1, axis2=2)).T
    known = np.isfinite(deviations)
    if not known.any():
        return least, words
    rest = "" if known.all() else f"; where it was not measured, {words}"
    return np.where(known, PRESENT * deviations, least), f"{PRESENT:g} error bars{rest}"


def _bootstrapped(
    both: Floats, volumes: Floats, present: NDArray[np.bool_], errors: Floats, seed: int
) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    """Return ratio, Pearson and both of Manders, each with the spread of what is drawn."""
    a, b = both
    light = both * volumes
    noise = np.where(np.isfinite(errors), errors, 0.0)
    columns = np.stack(
        [
            np.ones_like(a), a, b, a * a, b * b, a * b,
            noise[:, 0, 0], noise[:, 1, 1], noise[:, 0, 1],
            light[0], light[1], light[0] * present[1], light[1] * present[0],
        ],
        axis=1,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    step = max(1, AT_ONCE // max(1, len(a)))
    draws = [
        _numbers(rng.poisson(1.0, (min(step, DRAWS - first), len(a))) @ columns)
        for first in range(0, DRAWS, step)
    ]
    values = _numbers(columns.sum(0, keepdims=True))[:, 0]
    spread = np.concatenate(draws, axis=1)
    with np.errstate(invalid="ignore"):
        found = [np.isfinite(one) for one in spread]
    deviations = [
        float(np.std(one[good], ddof=1)) if good.sum() > 1 else np.nan
        for one, good in zip(spread, found, strict=True)
    ]
    ratio, pearson, first, second = map(Estimate, values.tolist(), deviations)
    return ratio, pearson, first, second


def _numbers(sums: Floats) -> Floats:
    """Return ratio, Pearson, M1 and M2 [4, D] of sums [D, 13]."""
    n, a, b, aa, bb, ab, va, vb, vab, light_a, light_b, both_a, both_b = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = ab / n - a * b / n**2 - vab / n
        variances = (aa / n - (a / n) ** 2 - va / n, bb / n - (b / n) ** 2 - vb / n)
        pearson = covariance / np.sqrt(variances[0] * variances[1])
        manders = (both_a / light_a, both_b / light_b)
        return np.stack([light_b / light_a, np.clip(pearson, -1.0, 1.0), *manders])


def _ratios(both: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Return the ratio [K] of each Gaussian, and its error."""
    a, b = both
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = b / a
        variances = errors[:, 1, 1] - 2 * ratios * errors[:, 0, 1] + ratios**2 * errors[:, 0, 0]
        return ratios, np.sqrt(variances) / np.abs(a)
