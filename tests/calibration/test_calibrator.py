import numpy as np
import pytest

from skinclip.calibration import Calibrator
from skinclip.core.vocabulary import DIAGNOSIS_CODES

C = len(DIAGNOSIS_CODES)
PRIOR = np.array([0.03, 0.05, 0.11, 0.01, 0.11, 0.67, 0.02])


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(C, 600, p=PRIOR)
    logits = rng.normal(0, 1, (600, C)) + 2.5 * np.eye(C)[labels]
    return {"logits": logits, "labels": labels, "style": rng.normal(0, 0.3, (600, C))}


@pytest.fixture(scope="module")
def trust(data) -> Calibrator:
    return Calibrator.fit(
        data["logits"][:300],
        data["labels"][:300],
        data["style"][:300],
        data["style"][300:],
        PRIOR,
        np.log(PRIOR) - np.log(np.full(C, 1 / C)),
    )


def test_apply_agrees_with_itself(data, trust):
    out = trust.apply(data["logits"], data["style"])
    assert out.probabilities.sum(axis=1) == pytest.approx(np.ones(600))
    assert out.balanced.sum(axis=1) == pytest.approx(np.ones(600))
    ratio = out.balanced * np.array(trust.natural_prior) / out.probabilities
    assert ratio == pytest.approx(np.broadcast_to(ratio[:, :1], ratio.shape))
    malignant = [DIAGNOSIS_CODES.index(c) for c in ("akiec", "bcc", "mel")]
    assert out.malignancy == pytest.approx(out.probabilities[:, malignant].sum(axis=1))
    assert (out.refer == (out.malignancy >= trust.referral.threshold)).all()
    tops = [DIAGNOSIS_CODES[c] for c in out.probabilities.argmax(axis=1)]
    assert [s[0] for s in out.sets] == tops
    assert ((out.shift_score >= 0) & (out.shift_score <= 1)).all()
    assert np.mean(out.in_domain[300:]) > 0.95


def test_probabilities_are_at_natural_prevalence(data, trust):
    p = trust.apply(data["logits"][:300], data["style"][:300]).probabilities
    seen = np.bincount(data["labels"][:300], minlength=C) / 300
    assert p.mean(axis=0) == pytest.approx(seen, abs=0.02)


def test_arrays_round_trip_exactly(data, trust):
    again = Calibrator.from_arrays(trust.to_arrays())
    ours, theirs = (t.apply(data["logits"], data["style"]) for t in (trust, again))
    for name in ("probabilities", "balanced", "malignancy", "refer", "shift_score", "in_domain"):
        assert (getattr(ours, name) == getattr(theirs, name)).all()
    assert ours.sets == theirs.sets and again.referral == trust.referral and again.calibration == trust.calibration
    assert sum(a.nbytes for a in trust.to_arrays().values()) < 10_000


def test_safetensors_keeps_the_arrays(tmp_path, data, trust):
    numpy_io = pytest.importorskip("safetensors.numpy")
    numpy_io.save_file(trust.to_arrays(), tmp_path / "trust.safetensors")
    again = Calibrator.from_arrays(numpy_io.load_file(tmp_path / "trust.safetensors"))
    ours, theirs = (t.apply(data["logits"], data["style"]) for t in (trust, again))
    assert (ours.probabilities == theirs.probabilities).all() and (ours.shift_score == theirs.shift_score).all()


def test_missing_and_unknown_arrays_are_named(trust):
    arrays = trust.to_arrays()
    arrays["extra"] = arrays.pop("natural_prior")
    with pytest.raises(ValueError, match=r"missing \['natural_prior'\], unknown \['extra'\]"):
        Calibrator.from_arrays(arrays)


def test_a_photo_gets_the_same_answer_alone_and_in_a_batch(data, trust):
    batch = trust.apply(data["logits"], data["style"])
    alone = trust.apply(data["logits"][7:8], data["style"][7:8])
    assert alone.probabilities[0] == pytest.approx(batch.probabilities[7], abs=1e-15)
    assert alone.sets[0] == batch.sets[7] and alone.shift_score[0] == batch.shift_score[7]


def test_unlabelled_rows_are_left_out(data, trust):
    n = 300
    more = Calibrator.fit(
        np.vstack([data["logits"][:n], np.zeros((3, C))]),
        np.append(data["labels"][:n], [-1] * 3),
        data["style"][:n],
        data["style"][n:],
        PRIOR,
        np.log(PRIOR) - np.log(np.full(C, 1 / C)),
    )
    ours, theirs = trust.to_arrays(), more.to_arrays()
    assert all((ours[k] == theirs[k]).all() for k in ours)


def test_a_prior_of_zero_is_an_error(data):
    with pytest.raises(ValueError, match="shares above 0"):
        Calibrator.fit(
            data["logits"],
            data["labels"],
            data["style"],
            data["style"],
            np.zeros(C),
            np.zeros(C),
        )
