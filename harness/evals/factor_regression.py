"""How much of the factors that made an image a linear map can read from its features, and how separately.

r2   R^2 of least squares fitted on train: the mean over factors, and r2/<factor> each. 1 is perfect, 0 as good as the
     split's mean, below 0 worse than it.
dci  disentanglement by Lasso: 1 if each dimension serves one factor, 0 if each serves all alike. As AdaSSL@8f7148f: one
     Lasso per factor, fitted on the evaluated split itself, features and factors z-scored; importances
     R = |coefficient| (D, F), P its rows divided by their sums, D_i = 1 - entropy(P_i + 1e-12) in base F, averaged with
     weights (row sum / total); rows of zeros do not count.
mcc  mean absolute Pearson correlation, on the split, of each factor with its dimension under the best one-to-one
     assignment; a factor that is left over counts 0.

Discrete factors are regressed on their numbers. AdaSSL reports r2 and dci of l2-normalised projector outputs
(`normalise=True` does the same to these features) and no mcc.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data import Images
from harness.errors import BadRecipe
from harness.features import Features, Table
from harness.recipe import ProtocolConfig

Array = npt.NDArray[np.float64]
UNITS = {"r2": "R2", "dci": "fraction", "mcc": "correlation"}


@dataclass(frozen=True, kw_only=True)
class Config(ProtocolConfig):
    """normalise: l2-normalise the features first. disentanglement: yield dci, slow for features many hundreds wide."""

    protocol: ClassVar[str] = "factor_regression"
    normalise: bool = False
    disentanglement: bool = True

    @property
    def id(self) -> str:
        return "factor_regression" + ("_l2" if self.normalise else "")


def check(config: Config, train: Images | Table, classes: int) -> None:
    if train.factors.shape[1] == 0:
        raise BadRecipe(f"{config.id}: the data set has no factors; drop this protocol, or use a set that has them")
    if bool((train.factors == train.factors[0]).all(0).any()):
        raise BadRecipe(f"{config.id}: a factor has one value in the whole train split; nothing can be regressed on it")


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    train, table = features.train, features.table(split)
    fit_x, x = (F.normalize(t.x, dim=1) if config.normalise else t.x for t in (train, table))
    each = r2(fit_x, train.factors, x, table.factors)
    yield "r2", float(each.mean())
    for name, value in zip(features.factor_names, each.tolist(), strict=True):
        yield f"r2/{name}", value
    if config.disentanglement and table.factors.shape[1] > 1:  # an entropy over one factor says nothing
        yield "dci", dci(lasso_importance(x, table.factors))
    yield "mcc", mcc(x, table.factors)


def r2(fit_x: Tensor, fit_y: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """R^2 (F,) on (x, y) of the least squares fitted on (fit_x, fit_y); x is (N, D), y is (N, F).

    Directions in which the features vary less than 1e-3 of their largest are left out: in raw pixels they are rounding
    error, and a plain fit would multiply it (r2 of -30 on the pixels of `factors`).
    """
    from sklearn.metrics import r2_score

    X, Y = fit_x.double(), fit_y.double()
    mean_X, mean_Y = X.mean(0), Y.mean(0)
    weights = torch.linalg.lstsq(X - mean_X, Y - mean_Y, rcond=1e-3, driver="gelsd").solution
    predicted = ((x.double() - mean_X) @ weights + mean_Y).numpy()
    return torch.as_tensor(r2_score(y.double().numpy(), predicted, multioutput="raw_values"))


def lasso_importance(x: Tensor, y: Tensor) -> Tensor:
    """|coefficients| (D, F) of one Lasso per factor on x (N, D), y (N, F), both z-scored.

    What scikit-learn's LassoCV(cv=5) estimates, on the same folds and the same 100 strengths, but solved exactly along
    the LARS path: the features of a network are so collinear that coordinate descent takes minutes, and stops
    unconverged. Of columns that are copies of each other the first one serves.
    """
    from sklearn.model_selection import KFold

    x, y = (_standardised(t) for t in (x, y))
    importance = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    kept = _without_copies(x)
    X, Y = x[:, kept].numpy(), y.numpy()
    strongest = np.abs(X.T @ Y).max(0, initial=0) / len(X)  # no coefficient is left above it
    strengths = strongest * np.geomspace(1, 1e-3, 100)[:, None]
    errors = np.zeros_like(strengths)
    if len(kept) == 0 or not strongest.all():  # a collapsed encoder
        return importance
    for rows, others in KFold(5).split(X):
        mean_X, mean_Y = X[rows].mean(0), Y[rows].mean(0)
        Z, W = X[rows] - mean_X, Y[rows] - mean_Y
        gram, products = Z.T @ Z, Z.T @ W
        for f in range(Y.shape[1]):
            coefficients = _lasso(gram, products[:, f], len(Z), strengths[:, f])
            residual = (Y[others, f] - mean_Y[f])[:, None] - (X[others] - mean_X) @ coefficients
            errors[:, f] += np.square(residual).mean(0)
    gram, products, best = X.T @ X, X.T @ Y, errors.argmin(0)
    for f in range(Y.shape[1]):
        coefficients = _lasso(gram, products[:, f], len(X), strengths[best[f], [f]])
        importance[kept, f] = torch.as_tensor(coefficients[:, 0]).abs()
    return importance


def _lasso(gram: Array, products: Array, n: int, strengths: Array) -> Array:
    """Coefficients (D, S) at S falling strengths; they are piecewise linear in the strength."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path_gram

    with warnings.catch_warnings():
        # the path ends early where the residual is rounding error: its last point then serves for what is weaker
        warnings.simplefilter("ignore", ConvergenceWarning)
        knots, _, path = lars_path_gram(
            products, gram, n_samples=n, alpha_min=strengths[-1], method="lasso", max_iter=100 * len(gram)
        )
    return np.stack([np.interp(strengths, knots[::-1], row[::-1]) for row in path])


def _without_copies(x: Tensor) -> Tensor:
    """Columns of z-scored x (N, D) that are neither constant nor, up to sign and rounding, one before them."""
    alive = x.abs().amax(0) > 0
    copies = ((x.T @ x).abs() / len(x) > 1 - 1e-7).triu(1)
    return (alive & ~copies.any(0)).nonzero()[:, 0]


def dci(importance: Tensor) -> float:
    """Disentanglement of importances (D, F), F > 1; 0 if all of them are 0."""
    rows = importance.double().sum(1)
    if rows.sum() == 0:
        return 0.0
    used = importance.double()[rows > 0] / rows[rows > 0, None] + 1e-12
    p = used / used.sum(1, keepdim=True)
    entropy = -(p * p.log()).sum(1) / math.log(p.shape[1])
    return float(((1 - entropy) * rows[rows > 0]).sum() / rows.sum())


def mcc(x: Tensor, y: Tensor) -> float:
    """Mean correlation coefficient of x (N, D) and y (N, F)."""
    from scipy.optimize import linear_sum_assignment

    x, y = (_standardised(t) for t in (x, y))
    correlation = (y.T @ x / len(x)).abs().numpy()
    rows, columns = linear_sum_assignment(correlation, maximize=True)
    return float(correlation[rows, columns].sum() / y.shape[1])


def _standardised(x: Tensor) -> Tensor:
    """Columns of mean 0 and standard deviation 1, in float64; constant columns (but for rounding) become 0."""
    x = x.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    return (x - mean) / torch.where(std > 1e-6 * (mean.abs() + std), std, torch.inf)
