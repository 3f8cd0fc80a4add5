"""What a step of a fit computes: losses of voxels or pixels, and Adam in a Gaussian's own frame.

Scalar code that CPU loops and CUDA kernels share.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from napari_gaussfit._kernels.shared.gaussian import ONE, TWO, ZERO, Array, F

FIRST_DECAY, SECOND_DECAY = F(0.9), F(0.99)
# A gradient far below float32's resolution of the loss is no direction.
SMALLEST_ROOT = F(1e-15)
LONGEST_LOG_STEP = F(0.25)
# Of a Gaussian of one channel: log a, nu (3), M (6). Further channels' log a come behind them.
COORDINATES = 10


Arrays = tuple[Array, Array, Array]


def adam_update(
    k: int, leaves: Arrays, slopes: Arrays, moments: Arrays, rates: Array, g: Array
) -> None:
    """Take Gaussian k's step in place; see `reference.adam_step`, whose twin this is.

    leaves, slopes : means [K, 3], Cholesky parameters [K, 6] and amplitudes [K], and derivatives
        of the loss by them.
    moments : running means of derivatives and of their squares [K, 9 + C], and steps taken [K].
    g : [COORDINATES], working memory.
    """
    means, cholesky, amplitudes = leaves
    d_means, d_cholesky, d_amplitudes = slopes
    first, second, age = moments
    l00, l11, l22 = (
        F(math.exp(cholesky[k, 0])),
        F(math.exp(cholesky[k, 2])),
        F(math.exp(cholesky[k, 5])),
    )
    l10, l20, l21 = cholesky[k, 1], cholesky[k, 3], cholesky[k, 4]
    # Derivatives by log a, by nu = L^-1 dmu, and by the triangle of M = L^-1 dL.
    g[0] = amplitudes[k] * d_amplitudes[k]
    g[1] = l00 * d_means[k, 0] + l10 * d_means[k, 1] + l20 * d_means[k, 2]
    g[2] = l11 * d_means[k, 1] + l21 * d_means[k, 2]
    g[3] = l22 * d_means[k, 2]
    c10, c20, c21 = d_cholesky[k, 1], d_cholesky[k, 3], d_cholesky[k, 4]
    c11, c22 = d_cholesky[k, 2] / l11, d_cholesky[k, 5] / l22
    g[4] = d_cholesky[k, 0] + l10 * c10 + l20 * c20
    g[5] = l11 * c10 + l21 * c20
    g[6] = l11 * c11 + l21 * c21
    g[7] = l22 * c20
    g[8] = l22 * c21
    g[9] = l22 * c22
    age[k] += ONE
    scale1 = ONE / (ONE - FIRST_DECAY ** age[k])
    scale2 = ONE / (ONE - SECOND_DECAY ** age[k])
    for n in range(COORDINATES):
        first[k, n] += (ONE - FIRST_DECAY) * (g[n] - first[k, n])
        second[k, n] += (ONE - SECOND_DECAY) * (g[n] * g[n] - second[k, n])
        root = math.sqrt(second[k, n] * scale2) + SMALLEST_ROOT
        step = -rates[n] * first[k, n] * scale1 / root
        g[n] = min(max(step, -LONGEST_LOG_STEP), LONGEST_LOG_STEP)
    amplitudes[k] *= F(math.exp(g[0]))
    means[k, 0] += l00 * g[1]
    means[k, 1] += l10 * g[1] + l11 * g[2]
    means[k, 2] += l20 * g[1] + l21 * g[2] + l22 * g[3]
    # L <- L (exp of M's diagonal, with M's triangle below it).
    e0, e1 = F(math.exp(g[4])), F(math.exp(g[6]))
    cholesky[k, 0] += g[4]
    cholesky[k, 1] = l10 * e0 + l11 * g[5]
    cholesky[k, 2] += g[6]
    cholesky[k, 3] = l20 * e0 + l21 * g[5] + l22 * g[7]
    cholesky[k, 4] = l21 * e1 + l22 * g[8]
    cholesky[k, 5] += g[9]


def adam_brighten(
    k: int, n: int, amplitudes: Array, slopes: Array, moments: Arrays, rates: Array
) -> None:
    """Take coordinate n's step, a further channel's log a of Gaussian k, in place.

    After `adam_update`, which counts the step. amplitudes, slopes : [K], of the channel.
    """
    first, second, age = moments
    g = amplitudes[k] * slopes[k]
    first[k, n] += (ONE - FIRST_DECAY) * (g - first[k, n])
    second[k, n] += (ONE - SECOND_DECAY) * (g * g - second[k, n])
    scale1 = ONE / (ONE - FIRST_DECAY ** age[k])
    scale2 = ONE / (ONE - SECOND_DECAY ** age[k])
    root = math.sqrt(second[k, n] * scale2) + SMALLEST_ROOT
    step = -rates[n] * first[k, n] * scale1 / root
    amplitudes[k] *= F(math.exp(min(max(step, -LONGEST_LOG_STEP), LONGEST_LOG_STEP)))


Number = TypeVar("Number", float, F)


def loss_of(rate: F, known: F, zero: F, darkest: F) -> tuple[F, F, F]:
    """Return a loss, its derivative by the rate, and how much the residual is to be trusted.

    With p = rate + zero and t = known + zero: (p - t)^2, 2 (p - t), 1 of the squared error; of the
    Poisson deviance 2 (t log(t / p) - (t - p)), 2 (1 - t / p), 1 / p.

    zero : distance of intensity 0 below the lowest voxel.
    darkest : smallest Poisson rate; 0 stands for the squared error.
    """
    if darkest == ZERO:
        excess = rate - known
        return excess * excess, TWO * excess, ONE
    p, t = max(rate + zero, darkest), known + zero
    least = ZERO
    if t != ZERO:
        least = t * F(math.log(max(t, darkest)))
    return TWO * half_deviance(t, p, F(math.log(p)), least), TWO * (ONE - t / p), ONE / p


def half_deviance(known: Any, rate: Any, log_rate: Any, least: Any) -> Any:
    """Return t log(t / p) - (t - p), half of the Poisson deviance, of numbers or of tensors.

    known, rate : t and p. least : t log t, 0 where t is.
    """
    return least - known * log_rate - (known - rate)


def cutoff_of(error: Number, per_error: Number, least: Number, largest: Number) -> Number:
    """Return the contribution below which Gaussians are left out, by the field's own error.

    error : root of the mean squared residual. per_error : the cutoff in parts of it.
    """
    return min(max(per_error * error, least), largest)
