from dataclasses import replace

import numpy as np
import pytest

from skinclip.calibration import Calibrator
from skinclip.calibration.calibrator import MALIGNANT
from skinclip.core.known import FIRST_DIAGNOSES
from skinclip.core.vocabulary import DIAGNOSIS_CODES

C = len(DIAGNOSIS_CODES)
PRIOR = np.array([0.03, 0.05, 0.10, 0.01, 0.10, 0.62, 0.02, 0.04, 0.03])


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
    malignant = [DIAGNOSIS_CODES.index(c) for c in ("akiec", "bcc", "mel", "scc")]
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


# ---- what a model does not know --------------------------------------------------------------------------------------

FIRST = [DIAGNOSIS_CODES.index(code) for code in FIRST_DIAGNOSES]


@pytest.fixture(scope="module")
def seven(data) -> Calibrator:
    """Fitted for a model of the first seven diagnoses; its photos are labelled with all."""
    logits = data["logits"][:300].copy()
    logits[:, [c for c in range(C) if c not in FIRST]] = -np.inf
    prior, shift = PRIOR, np.log(PRIOR) - np.log(np.full(C, 1 / C))
    style = data["style"]
    return Calibrator.fit(logits, data["labels"][:300], style[:300], style[300:], prior, shift)


def test_a_diagnosis_that_is_not_known_is_never_said(data, seven):
    out = seven.apply(data["logits"], data["style"])  # whatever its logit says
    assert (out.probabilities[:, 7:] == 0).all() and (out.balanced[:, 7:] == 0).all()
    assert out.probabilities.sum(axis=1) == pytest.approx(np.ones(600))
    assert not {code for codes in out.sets for code in codes} & {"scc", "other"}
    assert (np.sort(out.ranking[:, :7]) == FIRST).all()


def test_it_stays_out_of_every_set_even_where_another_is_in_all_of_them(data, seven):
    """A quantile of 1 lets a diagnosis in at the probability 0, and with it all that is as probable."""
    logits = np.full((1, C), -1e6)
    logits[0, 0] = 1e6
    wide = replace(seven, conformal=replace(seven.conformal, quantiles=(*[1.0] * 7, -1.0, -1.0)))
    assert wide.apply(logits, data["style"][:1]).sets == [FIRST_DIAGNOSES]


def test_arrays_of_a_checkpoint_made_before_answer_as_they_did(data, seven):
    """The bare formulas, on the seven columns alone, give what the padded arrays give."""
    arrays = seven.to_arrays()
    before = {k: v[FIRST] if len(v) == C and not k.startswith("shift") else v for k, v in arrays.items()}
    assert len(before["calibration.bias"]) == len(before["natural_prior"]) == len(before["conformal.quantiles"]) == 7
    again = Calibrator.from_arrays(before, FIRST_DIAGNOSES)
    out = again.apply(data["logits"], data["style"])
    z = data["logits"][:, FIRST] / before["calibration.temperature"][0] + before["calibration.bias"]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert out.probabilities[:, FIRST] == pytest.approx(p, abs=1e-12)
    balanced = p / before["natural_prior"]
    assert out.balanced[:, FIRST] == pytest.approx(balanced / balanced.sum(axis=1, keepdims=True), abs=1e-12)
    assert out.malignancy == pytest.approx(p[:, MALIGNANT[FIRST]].sum(axis=1), abs=1e-12)
    whole = seven.apply(data["logits"], data["style"])
    assert whole.sets == out.sets and (whole.probabilities == out.probabilities).all()
    assert Calibrator.from_arrays(arrays, FIRST_DIAGNOSES).to_arrays().keys() == arrays.keys()


def test_arrays_of_another_length_are_refused_by_name(seven):
    arrays = seven.to_arrays() | {"calibration.bias": np.zeros(6)}
    with pytest.raises(ValueError, match=r"calibration.bias holds 6 numbers, expected 7, .*one checkpoint"):
        Calibrator.from_arrays(arrays, FIRST_DIAGNOSES)


def test_one_quantile_for_all_stays_one_for_all_that_is_known(seven):
    arrays = seven.to_arrays() | {"conformal.quantiles": np.array([0.8])}
    assert Calibrator.from_arrays(arrays, FIRST_DIAGNOSES).conformal.quantiles == (*[0.8] * 7, -1.0, -1.0)
    assert Calibrator.from_arrays(arrays).conformal.quantiles == (0.8,)


def test_a_diagnosis_that_may_be_either_has_no_part_in_the_referral_threshold(data):
    """The figures stored with the threshold are those of the photos whose malignancy is known."""
    other, mel = DIAGNOSIS_CODES.index("other"), DIAGNOSIS_CODES.index("mel")
    shift = np.zeros(C)
    labels, logits = data["labels"][:300].copy(), data["logits"][:300].copy()
    labels[:30] = other
    apart = logits.copy()
    apart[:30, mel] += 9
    fitted = [
        Calibrator.fit(x, labels, data["style"][:300], data["style"][300:], PRIOR, shift) for x in (logits, apart)
    ]
    sure = labels != other
    for trust, x in zip(fitted, (logits, apart), strict=True):
        malignancy = trust.apply(x, data["style"][:300]).malignancy
        refer, truth = trust.referral.refer(malignancy)[sure], MALIGNANT[labels[sure]]
        assert trust.referral.sensitivity == pytest.approx(refer[truth].mean())
        assert trust.referral.specificity == pytest.approx((~refer[~truth]).mean())
