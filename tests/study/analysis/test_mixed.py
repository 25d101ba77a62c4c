import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from skinclip.study.analysis import mixed


def ratings(readers: int, cases: int, arms: int = 4, seed: int = 0, **sd: float):
    """A Latin-square study: y, cell means of arms, and the four groupings."""
    spread = {"reader": 0.6, "case": 0.5, "reader_arm": 0.4, "case_arm": 0.4, "residual": 1.0} | sd
    rng = np.random.default_rng(seed)
    r, c = np.repeat(np.arange(readers), cases), np.tile(np.arange(cases), readers)
    a = (r + c) % arms
    y = 4.0 + 0.2 * a + rng.normal(0, spread["residual"], len(r))
    y += rng.normal(0, spread["reader"], readers)[r] + rng.normal(0, spread["case"], cases)[c]
    y += rng.normal(0, spread["reader_arm"], (readers, arms))[r, a]
    y += rng.normal(0, spread["case_arm"], (cases, arms))[c, a]
    x = pd.DataFrame({f"arm {k}": (a == k).astype(float) for k in range(arms)})
    return y, x, {"reader": r, "case": c, "reader_arm": r * arms + a, "case_arm": c * arms + a}


@pytest.mark.filterwarnings("ignore")
def test_equals_statsmodels_on_crossed_effects():
    y, x, groups = ratings(6, 12, seed=3, reader_arm=0.8, case_arm=0.8)
    ours = mixed.fit(y, x, groups)
    frame = pd.DataFrame({"y": y, "arm": x.to_numpy().argmax(axis=1), "one": 1, **groups})
    parts = {name: f"0 + C({name})" for name in groups}
    theirs = sm.MixedLM.from_formula("y ~ 0 + C(arm)", groups="one", vc_formula=parts, data=frame).fit(reml=True)
    assert ours.log_likelihood == pytest.approx(theirs.llf, abs=1e-3)
    assert ours.log_likelihood > theirs.llf - 1e-6  # ours may end a little nearer to the maximum
    assert ours.effects.to_numpy() == pytest.approx(theirs.fe_params.to_numpy(), abs=1e-3)
    assert np.sqrt(np.diag(ours.covariance)) == pytest.approx(theirs.bse_fe.to_numpy(), rel=1e-2)
    assert ours.variances["residual"] == pytest.approx(theirs.scale, rel=1e-2)
    assert [ours.variances[name] for name in sorted(groups)] == pytest.approx(list(theirs.vcomp), rel=3e-2, abs=5e-3)


def test_equals_lme4_and_lmertest():
    """lme4 1.1-31, lmerTest 3.1-3, on these ratings: variance components, log-likelihood, contrast and its df.

    lmerTest takes the observed information, we the expected one, so degrees of freedom differ a little.
    """
    y, x, groups = old_ratings()
    ours = mixed.fit(y, x, groups)
    lme4 = {"reader": 1.38327, "case": 0.34286, "reader_arm": 0.32664, "case_arm": 0.27115, "residual": 1.09325}
    assert ours.variances == pytest.approx(lme4, rel=1e-3)
    assert ours.log_likelihood == pytest.approx(-225.0647, abs=1e-3)
    found = ours.contrast({"arm 3": 1, "arm 1": -1})
    assert (found.value, found.error) == pytest.approx((-0.3964808, 0.4288156), rel=1e-4)
    assert found.degrees == pytest.approx(21.17664, rel=0.03)
    assert found.p == pytest.approx(0.3655933, abs=2e-3)


def old_ratings():
    """The ratings that were given to lme4, drawn in the order they were drawn then."""
    rng = np.random.default_rng(3)
    r, c = np.repeat(np.arange(8), 16), np.tile(np.arange(16), 8)
    a = (r + c) % 4
    y = 4.3 + np.array([0, 0.2, 0.3, 0.6])[a] + rng.normal(0, 0.6, 8)[r] + rng.normal(0, 0.5, 16)[c]
    y = y + rng.normal(0, 0.6, (8, 4))[r, a] + rng.normal(0, 0.6, (16, 4))[c, a] + rng.normal(0, 1, 128)
    x = pd.DataFrame({f"arm {k}": (a == k) * 1.0 for k in range(4)})
    return y, x, {"reader": r, "case": c, "reader_arm": r * 4 + a, "case_arm": c * 4 + a}


def test_balanced_one_way_equals_anova():
    # 4 readers, 3 answers each: between mean square 30, within 2, so the reader variance is (30 - 2) / 3.
    means, within = np.array([1.0, 4.0, 7.0, 12.0]), np.array([-1.0, 0.0, 1.0])
    y = (means[:, None] + np.sqrt(2) * within[None, :]).ravel()
    between = 3 * means.var(ddof=1)
    readers = np.repeat(np.arange(4), 3)
    fit = mixed.fit(y, pd.DataFrame({"mean": np.ones(12)}), {"reader": readers})
    assert fit.variances["residual"] == pytest.approx(2.0, rel=1e-4)
    assert fit.variances["reader"] == pytest.approx((between - 2) / 3, rel=1e-4)
    found = fit.contrast({"mean": 1.0})
    assert found.error == pytest.approx(np.sqrt(between / 12), rel=1e-4)
    assert found.degrees == pytest.approx(3.0, rel=1e-3)  # the mean of 4 readers has 3
    assert found.low == pytest.approx(6 - stats.t.ppf(0.975, 3) * found.error, rel=1e-3)


def test_balanced_crossed_equals_anova():
    # Readers x cases, one answer each: the three mean squares give the three variances.
    rng = np.random.default_rng(1)
    r, c = 6, 9
    table = 2 * rng.normal(size=r)[:, None] + 1.5 * rng.normal(size=c)[None, :] + rng.normal(size=(r, c))
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    ms = (residual**2).sum() / ((r - 1) * (c - 1))
    groups = {"reader": np.repeat(np.arange(r), c), "case": np.tile(np.arange(c), r)}
    fit = mixed.fit(table.ravel(), pd.DataFrame({"mean": np.ones(r * c)}), groups)
    expected = {
        "reader": table.mean(axis=1).var(ddof=1) - ms / c,
        "case": table.mean(axis=0).var(ddof=1) - ms / r,
        "residual": ms,
    }
    assert fit.variances == pytest.approx(expected, rel=1e-3)


def test_a_difference_within_readers_equals_the_paired_t_test():
    # Each reader rates once under either arm: reader effects cancel.
    rng = np.random.default_rng(2)
    pairs = rng.normal(size=(12, 1)) * 2 + rng.normal(size=(12, 2)) + [0.0, 0.7]
    x = pd.DataFrame({"a": np.tile([1.0, 0.0], 12), "b": np.tile([0.0, 1.0], 12)})
    found = mixed.fit(pairs.ravel(), x, {"reader": np.repeat(np.arange(12), 2)}).contrast({"b": 1, "a": -1})
    test = stats.ttest_rel(pairs[:, 1], pairs[:, 0])
    assert found.p == pytest.approx(test.pvalue, rel=1e-3)
    assert found.degrees == pytest.approx(11.0, rel=1e-3)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()), rel=1e-3)


def test_gradient_is_that_of_the_likelihood():
    y, x, groups = ratings(6, 12, seed=5)
    levels = [np.unique(of, return_inverse=True)[1] for of in groups.values()]
    problem = mixed._Restricted(y, x.to_numpy(), levels)
    at = np.array([0.3, 0.2, 0.1, 0.05])
    _, gradient = problem.deviance(at)
    for i, step in enumerate(np.eye(4) * 1e-6):
        numeric = (problem.deviance(at + step)[0] - problem.deviance(at - step)[0]) / 2e-6
        assert gradient[i] == pytest.approx(numeric, rel=1e-4)


def test_likelihood_equals_the_direct_formula():
    y, x, groups = ratings(5, 8, seed=6)
    fit = mixed.fit(y, x, groups)
    v = fit.variances["residual"] * np.eye(len(y))
    for name, of in groups.items():
        v += fit.variances[name] * (of[:, None] == of[None, :])
    inverse, design = np.linalg.inv(v), x.to_numpy()
    information = design.T @ inverse @ design
    effects = np.linalg.solve(information, design.T @ inverse @ y)
    rest = y - design @ effects
    logs = np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1] + (len(y) - 4) * np.log(2 * np.pi)
    assert fit.log_likelihood == pytest.approx(-0.5 * (logs + rest @ inverse @ rest), rel=1e-8)
    assert fit.covariance == pytest.approx(np.linalg.inv(information), rel=1e-6)
    projection = inverse - inverse @ design @ np.linalg.inv(information) @ design.T @ inverse
    parts = [(of[:, None] == of[None, :]).astype(float) for of in groups.values()] + [np.eye(len(y))]
    expected = [[0.5 * np.trace(projection @ a @ projection @ b) for b in parts] for a in parts]
    problem = mixed._Restricted(y, design, [np.unique(of, return_inverse=True)[1] for of in groups.values()])
    variances = np.array([*fit.variances.values()])
    found = problem._information(problem._solve(variances[:-1] / variances[-1]), variances)
    assert found == pytest.approx(np.array(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda y, x, g: (np.full(len(y), 3.0), x, g), "all answers are equal"),
        (lambda y, x, g: (y[:4], x[:4], {k: v[:4] for k, v in g.items()}), "too few answers"),
        (lambda y, x, g: (y, x.assign(twice=x["arm 0"]), g), "cannot be separated"),
        (lambda y, x, g: (y, x, {"reader": np.zeros(len(y))}), "one reader or one case"),
        (lambda y, x, g: (x["arm 1"].to_numpy(), x, g), "all answers with the same aid are equal"),
    ],
)
def test_what_cannot_be_estimated_says_why(change, reason):
    with pytest.raises(mixed.NotEstimable, match=reason):
        mixed.fit(*change(*ratings(4, 8)))


def test_an_unknown_effect_is_named():
    fit = mixed.fit(*ratings(4, 8))
    with pytest.raises(mixed.NotEstimable, match="arm 9"):
        fit.contrast({"arm 9": 1.0})
    assert mixed.attempt(fit.contrast, {"arm 9": 1.0}) == {"not_estimable": "no answers for arm 9"}


def test_an_effect_for_every_answer_is_left_out():
    y, x, groups = ratings(4, 8)
    fit = mixed.fit(y, x, {**groups, "answer": np.arange(len(y))})
    assert "answer" not in fit.variances


def test_pairs_are_one_more_random_effect():
    """Integrated out, with one pair half answered, it gives what it gives as a grouping like the others."""
    (y, x, groups), (again, _, _) = ratings(6, 12, seed=7), ratings(6, 12, seed=8)
    rng = np.random.default_rng(9)
    shared = rng.normal(0, 0.9, len(y))
    pair = np.arange(len(y))
    both = np.concatenate([y + shared, again + shared])[:-1]
    arm = x.to_numpy().argmax(axis=1)
    second = (arm + 1) % 4
    of = {
        "reader": np.tile(groups["reader"], 2)[:-1],
        "case": np.tile(groups["case"], 2)[:-1],
        "reader_arm": np.concatenate([groups["reader"] * 4 + arm, groups["reader"] * 4 + second])[:-1],
    }
    design = pd.DataFrame({f"arm {k}": np.concatenate([arm == k, second == k])[:-1].astype(float) for k in range(4)})
    design["second"] = np.concatenate([np.zeros(len(y)), np.ones(len(y))])[:-1]
    pairs = np.tile(pair, 2)[:-1]
    plain = mixed.fit(both, design, {**of, "pair": pairs})
    ours = mixed.fit(both, design, of, ("pair", pairs))
    assert list(ours.variances) == ["reader", "case", "reader_arm", "pair", "residual"]
    assert ours.variances == pytest.approx(plain.variances, rel=2e-3, abs=1e-4)
    assert ours.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-5)
    assert ours.effects.to_numpy() == pytest.approx(plain.effects.to_numpy(), abs=1e-4)
    assert ours.covariance == pytest.approx(plain.covariance, rel=5e-3, abs=1e-6)
    contrast = {"arm 3": 1.0, "arm 1": -1.0}
    assert ours.contrast(contrast).degrees == pytest.approx(plain.contrast(contrast).degrees, rel=0.1)


def test_pairs_that_have_nothing_in_common_change_nothing():
    y, x, groups = ratings(6, 12, seed=3)
    alone = mixed.fit(y, x, groups)
    found = mixed.fit(y, x, groups, ("pair", np.arange(len(y)) // 2))
    assert found.log_likelihood >= alone.log_likelihood - 1e-6
    assert found.variances["pair"] >= 0
