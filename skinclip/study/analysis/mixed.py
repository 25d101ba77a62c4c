"""A linear mixed model for ratings: fixed effects, crossed random effects of readers and cases, REML.

    y = X b + Z_1 u_1 + ... + Z_k u_k + e,    u_i ~ N(0, s_i I),  e ~ N(0, s I)

Where answers come in pairs that share an effect (one reader's two answers to one case, in two sessions), that effect is
integrated out: R = I + r sum of 1_c 1_c' over the pairs c has the inverse I - sum of r / (1 + m_c r) 1_c 1_c', so that
cross-products under R are those of the answers less a weighted sum over pairs, and thousands of pairs cost nothing.

Every Z is a grouping (which reader, which case, which reader under which aid, ...), so everything that depends on the
answers' number is summed into cross-products once; each step of the fit then costs one Cholesky factor of the size of
the groups' number. The likelihood is profiled over s and maximised over the variance ratios s_i / s >= 0 with its exact
gradient. 40 readers x 100 cases with reader, case, reader x arm and case x arm effects take about a second.

Inference on a contrast follows Satterthwaite (1946) as in Fai and Cornelius (1996) and Kuznetsova et al. (2017). The
variances' own covariance is the inverse of the expected information (Searle, Casella and McCulloch 1992, chapter 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg, optimize, sparse, stats
from threadpoolctl import threadpool_limits

from skinclip.study.errors import NotEstimable

RESIDUAL = "residual"
_START, _LARGEST = 0.2, 1e4  # variance ratios: where the search begins, and its bound
_STEP = 1e-4  # relative, of a slope by differences


def attempt(question: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The answer to a question, or `{"not_estimable": reason}`."""
    try:
        return question(*arguments)
    except NotEstimable as reason:
        return {"not_estimable": str(reason)}


def described(row: Mapping[str, Any]) -> dict[str, Any]:
    """A result without its p: a figure that the plan does not test."""
    return {key: value for key, value in row.items() if key != "p"}


@dataclass(frozen=True)
class Estimate:
    """A contrast of fixed effects with its t interval; `degrees` of freedom are Satterthwaite's."""

    value: float
    error: float
    degrees: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class MixedFit:
    """A fitted model.

    Attributes:
        effects: fixed effects by column of X.
        covariance: [p, p] of the fixed effects.
        variances: variance component by name, that of pairs before `residual`, which is last.
        variances_covariance: [k + 1, k + 1] of those but the pairs', asymptotic.
        slopes: [k + 1, p, p] derivative of `covariance` with respect to each variance.
        log_likelihood: restricted, with its constant, as statsmodels and lme4 state it.
        n: answers.
    """

    effects: pd.Series
    covariance: np.ndarray
    variances: dict[str, float]
    variances_covariance: np.ndarray
    slopes: np.ndarray
    log_likelihood: float
    n: int

    def contrast(self, weights: Mapping[str, float], alpha: float = 0.05) -> Estimate:
        """The weighted sum of fixed effects with its 1 - alpha interval and two-sided p against 0.

        Raises:
            NotEstimable: A weight names an effect that the model does not have.
        """
        unknown = [name for name in weights if name not in self.effects.index]
        if unknown:
            raise NotEstimable(f"no answers for {', '.join(unknown)}")
        c = np.array([weights.get(name, 0.0) for name in self.effects.index])
        variance = float(c @ self.covariance @ c)
        value, error = float(c @ self.effects.to_numpy()), float(np.sqrt(max(variance, 0.0)))
        if error == 0.0:
            raise NotEstimable("no variation between answers")
        degrees = self._degrees(c, variance)
        reach = float(stats.t.ppf(1 - alpha / 2, degrees)) * error
        p = float(2 * stats.t.sf(abs(value) / error, degrees))
        return Estimate(value, error, degrees, value - reach, value + reach, p)

    def _degrees(self, c: np.ndarray, variance: float) -> float:
        """Satterthwaite's degrees of freedom of c'b, at least 1.

        A variance estimated as 0 keeps its place: in small studies it often is not 0, and leaving it out would count
        answers as if they came from as many readers.
        """
        gradient = np.einsum("i,kij,j->k", c, self.slopes, c)
        spread = float(gradient @ self.variances_covariance @ gradient)
        most = float(self.n - len(c))
        return float(np.clip(2 * variance**2 / spread, 1.0, most)) if spread > 0 else most


@threadpool_limits.wrap(limits=1, user_api="blas")  # the factors are small: more threads only wait for each other
def fit(
    y: np.ndarray,
    x: pd.DataFrame,
    groups: Mapping[str, Sequence[object] | np.ndarray | pd.Series],
    pairs: tuple[str, np.ndarray] | None = None,
) -> MixedFit:
    """Fits the model by restricted maximum likelihood.

    Args:
        y: [n] answers, finite.
        x: [n, p] fixed effects, of full rank.
        groups: name of a random effect -> [n] the group of each answer. An effect with one group, or with as many as
            there are answers, cannot be separated from the mean or the residual and is left out.
        pairs: (name, [n] groups) of one more random effect with many small groups. Its variance is estimated with the
            others; degrees of freedom take it as known.

    Raises:
        NotEstimable: Too few answers, all answers equal, effects that cannot be separated, or no random effect left.
    """
    y = np.asarray(y, dtype=np.float64)
    design = x.to_numpy(dtype=np.float64)
    _check(y, design)
    levels = {name: np.unique(np.asarray(of, dtype=str), return_inverse=True)[1] for name, of in groups.items()}
    kept = {name: level for name, level in levels.items() if 1 < level.max() + 1 < len(y)}
    if not kept:
        raise NotEstimable("one reader or one case only: differences between them cannot be estimated")
    problem = _Restricted(y, design, list(kept.values()), None if pairs is None else pairs[1])
    free = len(kept) + (pairs is not None)
    optimum = optimize.minimize(
        problem.deviance if pairs is None else problem.deviance_with_pairs,
        np.full(free, _START),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, _LARGEST)] * free,
        options={"ftol": 1e-10, "gtol": 1e-4, "maxiter": 200},
    )
    if pairs is None:
        return problem.result(optimum.x, list(kept), list(x.columns))
    problem.share(float(optimum.x[-1]))
    found = problem.result(optimum.x[:-1], list(kept), list(x.columns))
    *named, last = found.variances.items()
    shared = (pairs[0], float(optimum.x[-1]) * found.variances[RESIDUAL])
    log_likelihood = found.log_likelihood - 0.5 * problem.log_shared
    return replace(found, variances=dict([*named, shared, last]), log_likelihood=log_likelihood)


def _check(y: np.ndarray, design: np.ndarray) -> None:
    n, p = design.shape
    if n <= p + 1:
        raise NotEstimable(f"too few answers ({n})")
    if np.ptp(y) == 0:
        raise NotEstimable("all answers are equal")
    if np.linalg.matrix_rank(design) < p:
        raise NotEstimable("the effects cannot be separated by the answers given")
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    if float(residual @ residual) < 1e-12 * float(y @ y):
        raise NotEstimable("all answers with the same aid are equal")


class _Restricted:
    """The restricted likelihood of one data set as a function of the variance ratios.

    q is the number of groups of all effects together. Only cross-products are kept: `zz` is Z'Z [q, q], under R where
    `share` was given a variance ratio of the pairs.
    """

    def __init__(
        self, y: np.ndarray, x: np.ndarray, levels: Sequence[np.ndarray], pairs: np.ndarray | None = None
    ) -> None:
        self.n, self.p = x.shape
        self.sizes = [int(level.max()) + 1 for level in levels]
        starts = np.cumsum([0, *self.sizes[:-1]])
        self.blocks = [slice(start, start + size) for start, size in zip(starts, self.sizes, strict=True)]
        q = sum(self.sizes)
        columns = np.stack([level + start for level, start in zip(levels, starts, strict=True)], axis=1)  # [n, k]
        self.zz, self.zx, self.zy = np.zeros((q, q)), np.zeros((q, self.p)), np.zeros(q)
        for a in columns.T:
            np.add.at(self.zx, a, x)
            np.add.at(self.zy, a, y)
            for b in columns.T:
                np.add.at(self.zz, (a, b), 1.0)
        self.xx, self.xy, self.yy = x.T @ x, x.T @ y, float(y @ y)
        self.log_shared = 0.0  # log |R|
        self._plain = (self.zz, self.zx, self.zy, self.xx, self.xy, self.yy)
        self._sums = {} if pairs is None else _pair_sums(np.column_stack([x, y]), columns, q, pairs)

    def share(self, ratio: float) -> None:
        """Takes the cross-products under R, where pairs share an effect of this variance ratio."""
        p = self.p
        weights = {size: ratio / (1 + size * ratio) for size in self._sums}
        less_z = sum((w * self._sums[m].among_groups for m, w in weights.items()), np.zeros(()))
        less_zx = sum((w * self._sums[m].groups_by_values for m, w in weights.items()), np.zeros(()))
        less_x = sum((w * self._sums[m].among_values for m, w in weights.items()), np.zeros(()))
        zz, zx, zy, xx, xy, yy = self._plain
        self.zz, self.zx, self.zy = zz - less_z, zx - less_zx[:, :p], zy - less_zx[:, p]
        self.xx, self.xy, self.yy = xx - less_x[:p, :p], xy - less_x[:p, p], yy - float(less_x[p, p])
        self.log_shared = sum(sums.number * float(np.log1p(size * ratio)) for size, sums in self._sums.items())

    def deviance_with_pairs(self, ratios: np.ndarray) -> tuple[float, np.ndarray]:
        """As `deviance`, the last ratio being that of the pairs; its slope is taken by differences."""
        *others, shared = ratios
        step = _STEP * (1 + shared)
        ends = []
        for at in (max(shared - step, 0.0), shared + step):
            self.share(at)
            ends.append((self.deviance(np.array(others))[0] + self.log_shared, at))
        self.share(shared)
        value, gradient = self.deviance(np.array(others))
        slope = (ends[1][0] - ends[0][0]) / (ends[1][1] - ends[0][1])
        return value + self.log_shared, np.append(gradient, slope)

    def deviance(self, ratios: np.ndarray) -> tuple[float, np.ndarray]:
        """-2 x restricted log-likelihood, less its constant, and its gradient [k]."""
        parts = self._solve(ratios)
        _, log_x = np.linalg.slogdet(parts.information)
        degrees = self.n - self.p
        value = degrees * np.log(parts.scale) + parts.log_determinant + log_x
        traces = [float(parts.zpz_diagonal[block].sum()) for block in self.blocks]
        squares = [float(parts.zpy[block] @ parts.zpy[block]) for block in self.blocks]
        return float(value), np.array(traces) - np.array(squares) / parts.scale

    def _solve(self, ratios: np.ndarray) -> _Parts:
        """Everything that H = I + sum of ratio_i Z_i Z_i' decides, by the Woodbury identity."""
        root = np.sqrt(np.repeat(ratios, self.sizes))  # [q]
        scaled = root[:, None] * self.zz
        factor = linalg.cholesky(np.eye(len(root)) + scaled * root, lower=True, check_finite=False)
        right = np.column_stack([scaled, root[:, None] * self.zx, root * self.zy])
        half = linalg.solve_triangular(factor, right, lower=True, check_finite=False, overwrite_b=True)
        tz, tx, ty = half[:, : -self.p - 1], half[:, -self.p - 1 : -1], half[:, -1]
        zhx, zhy = self.zx - tz.T @ tx, self.zy - tz.T @ ty
        information = self.xx - tx.T @ tx  # X' H^-1 X
        covariance = np.linalg.inv(information)
        effects = covariance @ (self.xy - tx.T @ ty)
        scale = (self.yy - float(ty @ ty) - float(effects @ (self.xy - tx.T @ ty))) / (self.n - self.p)
        zpz_diagonal = np.diag(self.zz) - (tz**2).sum(axis=0) - ((zhx @ covariance) * zhx).sum(axis=1)
        log_determinant = 2 * float(np.log(np.diag(factor)).sum())
        floor = 1e-12 * self.yy / self.n  # an exact fit has no residual; the logarithm needs one
        return _Parts(
            effects=effects,
            covariance=covariance,
            information=information,
            scale=max(scale, floor),
            log_determinant=log_determinant,
            zhx=zhx,
            zpy=zhy - zhx @ effects,
            zpz_diagonal=zpz_diagonal,
            tz=tz,
        )

    def result(self, ratios: np.ndarray, names: Sequence[str], columns: Sequence[str]) -> MixedFit:
        parts = self._solve(ratios)
        variances = [*(float(r) * parts.scale for r in ratios), parts.scale]
        degrees = self.n - self.p
        deviance = self.deviance(ratios)[0] + degrees * (1 + np.log(2 * np.pi))
        return MixedFit(
            effects=pd.Series(parts.effects, index=list(columns)),
            covariance=parts.covariance * parts.scale,
            variances=dict(zip([*names, RESIDUAL], variances, strict=True)),
            variances_covariance=np.linalg.pinv(self._information(parts, np.array(variances))),
            slopes=self._slopes(parts, np.array(variances)),
            log_likelihood=-0.5 * deviance,
            n=self.n,
        )

    def _information(self, parts: _Parts, variances: np.ndarray) -> np.ndarray:
        """Expected information of the variances [k + 1, k + 1]: half the trace of P V_i P V_j.

        V_i = Z_i Z_i' needs blocks of Z'PZ only; the residual's row follows from P V P = P and tr(P V) = n - p.
        """
        s, s2 = variances[:-1], variances[-1]
        k = len(s)
        zpz = (self.zz - parts.tz.T @ parts.tz - parts.zhx @ parts.covariance @ parts.zhx.T) / s2
        between = np.array([[float((zpz[a, b] ** 2).sum()) for b in self.blocks] for a in self.blocks])
        traces = np.array([float(np.trace(zpz[a, a])) for a in self.blocks])
        with_residual = (traces - between @ s) / s2
        trace_p = (self.n - self.p - traces @ s) / s2
        twice = np.zeros((k + 1, k + 1))
        twice[:k, :k] = between
        twice[:k, k] = twice[k, :k] = with_residual
        twice[k, k] = (trace_p - with_residual @ s) / s2
        return twice / 2

    def _slopes(self, parts: _Parts, variances: np.ndarray) -> np.ndarray:
        """Derivative of cov(b) = (X'V^-1X)^-1 with respect to each variance [k + 1, p, p]."""
        s, s2 = variances[:-1], variances[-1]
        carried = parts.zhx @ parts.covariance  # Z'V^-1X cov(b): the scale cancels
        slopes = [carried[block].T @ carried[block] for block in self.blocks]
        rest = parts.covariance * s2 - sum((v * slope for v, slope in zip(s, slopes, strict=True)), np.zeros(()))
        return np.stack([*slopes, rest / s2])


@dataclass(frozen=True)
class _PairSums:
    """Cross-products of sums over pairs of one size: Z' 1_c 1_c' Z and so on, added up over the `number` of pairs c."""

    number: int
    among_groups: np.ndarray  # [q, q]
    groups_by_values: np.ndarray  # [q, p + 1] with X and y
    among_values: np.ndarray  # [p + 1, p + 1]


def _pair_sums(values: np.ndarray, columns: np.ndarray, q: int, pairs: np.ndarray) -> dict[int, _PairSums]:
    """Size of a pair -> its sums. `columns` [n, k] are the places of each answer's groups among all q."""
    _, pair = np.unique(np.asarray(pairs, dtype=str), return_inverse=True)
    size = np.bincount(pair)
    n, k = columns.shape
    incidence = sparse.csr_array((np.ones(n * k), (np.repeat(np.arange(n), k), columns.ravel())), shape=(n, q))
    found = {}
    for m in np.unique(size):
        rows = np.flatnonzero(size[pair] == m)
        _, place = np.unique(pair[rows], return_inverse=True)
        summing = sparse.csr_array((np.ones(len(rows)), (place, np.arange(len(rows)))))
        groups, numbers = summing @ incidence[rows], summing @ values[rows]
        among = (groups.T @ groups).toarray()
        found[int(m)] = _PairSums(int(place.max()) + 1, among, groups.T @ numbers, numbers.T @ numbers)
    return found


@dataclass(frozen=True)
class _Parts:
    """What one evaluation of the likelihood yields; H is V / residual variance, P_H its projection."""

    effects: np.ndarray  # [p]
    covariance: np.ndarray  # [p, p] (X' H^-1 X)^-1
    information: np.ndarray  # [p, p] X' H^-1 X
    scale: float  # residual variance
    log_determinant: float  # log |H|
    zhx: np.ndarray  # [q, p] Z' H^-1 X
    zpy: np.ndarray  # [q] Z' P_H y
    zpz_diagonal: np.ndarray  # [q] of Z' P_H Z, whose blocks' traces the gradient needs; the rest costs more
    tz: np.ndarray  # [q, q] with Z' H^-1 Z = Z'Z - tz' tz
