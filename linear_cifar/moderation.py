r"""Variance between seeds, moderated by a trend over the configurations of a sweep.

From three seeds, a pair's variance between seeds has two degrees of freedom, which say little. The pairs of a
sweep know more together. Their mean squares $s^2$ between seeds follow two other numbers of a pair:
$\mathrm{MS}_e$, as seeds that change more predictions scatter more, and the lower of its accuracies:

$$\log s^2 \approx \beta_0 + \beta_1 \log \mathrm{MS}_e + \beta_2 \, \mathrm{accuracy}$$

Around this trend $s_0^2$ the true variances are taken to scatter as $s_0^2 \, d_0 / \chi^2_{d_0}$. Then the
best estimate is $(d_0 s_0^2 + (S-1) s^2) / (d_0 + S - 1)$, with $d_0 + S - 1$ degrees of freedom (Smyth 2004,
"Linear Models and Empirical Bayes Methods for Assessing Differential Expression in Microarray Experiments";
with a trend as in Law, Chen, Shi & Smyth 2014, "voom").

The trend also estimates by how much mean squares exceed $\mathrm{MS}_e$. So only a share of $\mathrm{MS}_e$,
$(S-1) / (d_0 + S - 1)$, has the wide $t$ of few degrees of freedom. The rest has that of the examples.

- $d_0$ follows from the variance of $\log s^2$ around the trend, which is $\psi'((S-1)/2) + \psi'(d_0/2)$.
  That variance is taken half a standard error too large, because too large a d_0 makes intervals too short.
- Pairs far above the trend do not move it, and get a smaller $d_0$: in proportion to the probability of an F
  as large as $s^2 / s_0^2$, below 1 / C for C configurations (after Phipson, Lee, Majewski, Alexander & Smyth
  2016, "Robust Hyperparameter Estimation Protects against Hypervariable Genes"). If one is so far above it
  that the sweep may have outliers, chance may hide others. Then all pairs above it get a smaller one.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Fewest and most configurations that a trend is fitted to. Among more, these are taken evenly by their ranks.
MIN_CONFIGS, MAX_CONFIGS = 10, 100
# A sweep may have outliers if the lowest probability of a pair times the configurations is below this.
EVIDENT = 0.1

Pairs = Float[np.ndarray, "*pairs"]
Columns = Float[np.ndarray, "*pairs 3"]


class Trend(NamedTuple):
    """A trend of mean squares between seeds over the pairs of configurations."""

    coefficients: Float[np.ndarray, "3"]
    degrees: float  # d0: the degrees of freedom that it adds
    own: int  # S − 1
    outlying: float  # it adds fewer to a pair if chance puts one so far above it with a lower probability

    def compare(self, squares: Pairs, columns: Columns) -> tuple[Pairs, Pairs]:
        """Return s0², and with which probability chance puts pairs as far above the trend."""
        from scipy.special import fdtrc

        prior = np.exp(columns @ self.coefficients - _mean_log(self.own) + _mean_log(self.degrees))
        return prior, fdtrc(self.own, self.degrees, squares / prior)

    def moderate(self, squares: Pairs, columns: Columns) -> tuple[Pairs, Pairs]:
        """Return the moderated mean squares between seeds of pairs, and their degrees of freedom."""
        prior, tail = self.compare(squares, columns)
        added = self.degrees * np.minimum(1, tail / self.outlying)
        return (added * prior + self.own * squares) / (added + self.own), added + self.own


def fit_trend(squares: Pairs, columns: Columns, own: int, configs: int) -> Trend:
    """Fit the trend to the pairs of at least `MIN_CONFIGS` configurations; `own` is S − 1, at least 1.

    1 / (12 n) is added to the squares, and to MS_e in the columns. It is the mean square of rounding
    accuracies to multiples of 1 / n.
    """
    from scipy.special import chdtri, polygamma

    logs = clipped = np.log(squares)
    # How far above the trend chance puts one configuration: pairs beyond do not move the trend.
    far = np.log(chdtri(own, 1 / configs) / own) - _mean_log(own)
    for _ in range(5):
        coefficients = np.linalg.lstsq(columns, clipped, rcond=None)[0]
        fitted = columns @ coefficients
        clipped = np.minimum(logs, fitted + far)
    variance = np.mean((clipped - fitted) ** 2) * configs / (configs - len(coefficients))
    by_chance, fourth = polygamma(1, own / 2), polygamma(3, own / 2)
    error = np.sqrt((fourth + 2 * by_chance**2) / configs)
    # Solutions of ψ'(d0 / 2) = excess by ψ'(x) ≈ 1 / x + 1 / (2 x²), which are a little too small.
    excesses = max(variance - by_chance, 0.001) + np.array([0, error / 2])
    likely, safe = ((1 + np.sqrt(1 + 2 * excesses)) / excesses).tolist()
    trend = Trend(coefficients, likely, own, 1.0)
    evident = configs * trend.compare(squares, columns)[1].min() < EVIDENT
    return trend._replace(degrees=safe, outlying=1.0 if evident else 1 / configs)


def _mean_log(degrees: float | int) -> float:
    """Return the mean of the logarithm of χ² / degrees."""
    from scipy.special import digamma

    return float(digamma(degrees / 2) - np.log(degrees / 2))
