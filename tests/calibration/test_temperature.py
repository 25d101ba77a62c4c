import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax

from skinclip.calibration import temperature as calibration
from skinclip.calibration.temperature import Calibration, fit_calibration


def drawn(n: int, temperature: float, bias: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature + bias)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, len(bias)))
    p = Calibration(temperature, tuple(bias)).apply(logits)
    return logits, (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


def test_apply_equals_hand_computed():
    p = Calibration(2.0, (0.0, np.log(3.0))).apply(np.array([[2.0, 2.0], [np.log(9.0) * 2, 0.0]]))
    assert p == pytest.approx(np.array([[0.25, 0.75], [0.75, 0.25]]))


def test_recovers_the_temperature_and_bias_labels_were_drawn_with():
    bias = np.array([1.0, -0.5, -0.5])
    fitted = fit_calibration(*drawn(20_000, 2.0, bias), log_prior_shift=bias)
    assert fitted.temperature == pytest.approx(2.0, rel=0.05)
    assert np.array(fitted.bias) == pytest.approx(bias, abs=0.1)


def test_a_class_without_labels_keeps_the_known_shift_of_prior():
    logits, labels = drawn(200, 1.0, np.zeros(3))
    keep = labels != 2
    fitted = fit_calibration(logits[keep], labels[keep], np.array([0.0, 0.0, -3.0]))
    assert fitted.bias[2] - fitted.bias[0] < -2.5


def test_unlabelled_rows_are_left_out():
    logits, labels = drawn(100, 1.0, np.zeros(3))
    with_gaps = fit_calibration(np.vstack([logits, np.full((5, 3), np.nan)]), np.append(labels, [-1] * 5), np.zeros(3))
    assert with_gaps == fit_calibration(logits, labels, np.zeros(3))


def test_the_objective_has_its_own_gradient_and_no_worse_value_than_raw_softmax():
    logits, labels = drawn(50, 2.0, np.array([0.5, 0.0, -0.5]))
    rng = np.random.default_rng(3)
    args = (logits, labels, np.array([0.3, 0.0, 0.1]), rng.random(50), rng.normal(size=(50, 3)))
    x = np.array([0.2, 0.1, -0.3, 0.4])
    gap = check_grad(lambda v: calibration._objective(v, *args)[0], lambda v: calibration._objective(v, *args)[1], x)
    assert gap < 1e-5
    raw = -np.mean(log_softmax(logits, axis=1)[np.arange(50), labels])
    p = fit_calibration(logits, labels, np.zeros(3)).apply(logits)
    assert -np.mean(np.log(p[np.arange(50), labels])) <= raw


def test_sources_of_several_prevalences_share_one_temperature_and_bias():
    bias, shares = np.array([0.5, 0.0, -0.5]), np.log(np.array([[0.8, 0.15, 0.05], [0.1, 0.2, 0.7]]))
    rng = np.random.default_rng(0)
    logits, offsets = rng.normal(0, 3, (20_000, 3)), np.repeat(shares, [18_000, 2_000], axis=0)
    p = Calibration(2.0, (0.0, 0.0, 0.0)).apply(logits + 2.0 * (bias + offsets))
    labels = (p.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    weights = np.repeat([1 / 1.8, 5.0], [18_000, 2_000])
    fitted = fit_calibration(logits, labels, bias, weights, offsets)
    assert fitted.temperature == pytest.approx(2.0, rel=0.05)
    assert np.array(fitted.bias) == pytest.approx(bias, abs=0.15)


@pytest.mark.parametrize(
    ("logits", "labels", "shift", "words"),
    [
        (np.zeros((2, 3)), [-1, -1], np.zeros(3), "no row has a label"),
        (np.zeros((2, 3)), [0], np.zeros(3), "one label a row"),
        (np.full((1, 3), np.inf), [0], np.zeros(3), "not finite"),
        (np.zeros((1, 3)), [0], np.zeros(2), "one number per diagnosis"),
    ],
)
def test_says_why_it_cannot_fit(logits, labels, shift, words):
    with pytest.raises(ValueError, match=words):
        fit_calibration(logits, np.array(labels), shift)
