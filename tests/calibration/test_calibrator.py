from dataclasses import replace

import numpy as np
import pytest

from skinclip.calibration.calibrator import MALIGNANT, Calibrator, StyleSample
from skinclip.calibration.criteria import CriteriaCalibration
from skinclip.calibration.outputs import DERMOSCOPY, PAIR, LabelledOutputs
from skinclip.calibration.selective import leading_confidence
from skinclip.core.known import FIRST_DIAGNOSES
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.hub.layout import CALIBRATION_ARRAYS

C = len(DIAGNOSIS_CODES)
PRIOR = np.array([0.03, 0.05, 0.10, 0.01, 0.10, 0.62, 0.02, 0.04, 0.03])


def fitted(photos: LabelledOutputs, style: np.ndarray) -> Calibrator:
    samples = {DERMOSCOPY: StyleSample(style[:300], style[300:])}
    return Calibrator.fit(photos, samples, PRIOR, np.log(PRIOR) - np.log(np.full(C, 1 / C)))


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(C, 600, p=PRIOR)
    logits = rng.normal(0, 1, (600, C)) + 2.5 * np.eye(C)[labels]
    return {"logits": logits, "labels": labels, "style": rng.normal(0, 0.3, (600, C))}


@pytest.fixture(scope="module")
def trust(data) -> Calibrator:
    return fitted(LabelledOutputs.of_diagnoses(data["logits"][:300], data["labels"][:300]), data["style"])


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
    assert sum(a.nbytes for a in trust.to_arrays().values()) < 25_000


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
    logits, labels = np.vstack([data["logits"][:n], np.zeros((3, C))]), np.append(data["labels"][:n], [-1] * 3)
    more = fitted(LabelledOutputs.of_diagnoses(logits, labels), data["style"])
    ours, theirs = trust.to_arrays(), more.to_arrays()
    assert all((ours[k] == theirs[k]).all() for k in ours if not k.startswith("photos."))


def test_a_prior_of_zero_is_an_error(data):
    with pytest.raises(ValueError, match="shares above 0"):
        photos = LabelledOutputs.of_diagnoses(data["logits"], data["labels"])
        Calibrator.fit(photos, {DERMOSCOPY: StyleSample(data["style"], data["style"])}, np.zeros(C), np.zeros(C))


# ---- several sources and kinds ----


def outputs_of(n: int, kind: str, source: str, prior: np.ndarray, seed: int, noise: float = 1.0) -> LabelledOutputs:
    """Photos whose logits are log-likelihoods but for a factor: calibrated at any prevalence by one temperature."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(C, n, p=prior / prior.sum())
    logits = noise * (2.0 * np.eye(C)[labels] + rng.normal(0, 1, (n, C))) * 2.0
    one = LabelledOutputs.of_diagnoses(logits, labels)
    style = rng.normal(0, 0.3, (n, 5)) + (3.0 if kind == "clinical" else 0.0)
    return replace(one, sources=np.full(n, source), kinds=np.full(n, kind), style=style)


FLAT = np.full(C, 1 / C)


KINDS = ("dermoscopy", "clinical")


def fitted_to_several(seed: int) -> Calibrator:
    photos = LabelledOutputs.joined(
        [
            outputs_of(900, "dermoscopy", "home", PRIOR, 3 * seed),
            outputs_of(300, "dermoscopy", "away", FLAT, 3 * seed + 1),
            outputs_of(300, "clinical", "away", FLAT, 3 * seed + 2, noise=3.0),
        ]
    )
    styles = {k: StyleSample(photos.style[photos.kinds == k], photos.style[photos.kinds == k]) for k in KINDS}
    return Calibrator.fit(photos, styles, PRIOR, np.log(PRIOR), {"home": PRIOR, "away": FLAT})


@pytest.fixture(scope="module")
def several() -> Calibrator:
    return fitted_to_several(0)


def test_each_kind_has_a_calibration_of_its_own(several):
    derm, close = several.by_kind["dermoscopy"], several.by_kind["clinical"]
    assert close.calibration.temperature == pytest.approx(3 * derm.calibration.temperature, rel=0.25)
    assert several.first is derm and several.of("clinical") is close and several.of("neither") is derm
    style = np.vstack([np.zeros((2, 5)), np.full((2, 5), 3.0)])
    assert several.kinds_of(style) == ("dermoscopy", "dermoscopy", "clinical", "clinical")
    between, far = np.full((1, 5), 1.5), np.full((1, 5), -9.0)
    assert several.kinds_of(np.vstack([between, far])) == ("neither", "neither")
    none = several.apply(np.zeros((1, C)), far)
    assert none.kinds == none.photo_kinds == ("neither",) and not none.in_domain[0]
    assert several.apply(np.zeros((1, C)), far, ["clinical"]).photo_kinds == ("clinical",)  # what a person says holds
    logits = outputs_of(4, "clinical", "away", FLAT, 9).logits
    told = several.apply(logits, style, ["clinical", None, "clinical", "neither"])
    assert told.kinds == ("clinical", "dermoscopy", "clinical", "clinical")
    assert told.probabilities[0] == pytest.approx(close.calibration.apply(logits[:1])[0])
    assert told.probabilities[1] == pytest.approx(derm.calibration.apply(logits[1:2])[0])


def test_two_photos_seen_together_are_calibrated_apart_and_never_recognised_by_style():
    single, both = outputs_of(400, "dermoscopy", "home", PRIOR, 0), outputs_of(400, PAIR, "home", PRIOR, 1, noise=0.5)
    photos = LabelledOutputs.joined([single, both])
    sample = StyleSample(photos.style, photos.style)
    fitted_to = Calibrator.fit(photos, {"dermoscopy": sample, PAIR: sample}, PRIOR, np.log(PRIOR))
    assert fitted_to.kinds_of(both.style) == ("dermoscopy",) * 400
    told = fitted_to.apply(both.logits, both.style, [PAIR] * 400)
    assert set(told.kinds) == {PAIR} and set(told.photo_kinds) == {"dermoscopy"}
    assert fitted_to.of(PAIR).calibration.temperature < 0.7 * fitted_to.first.calibration.temperature
    again = Calibrator.from_arrays(fitted_to.to_arrays())
    assert (again.apply(both.logits, both.style, [PAIR] * 400).probabilities == told.probabilities).all()
    assert (
        again.photos is not None
        and (again.photos.kinds == photos.kinds).all()
        and set(again.photos.sources) == {"home"}
    )


def test_sources_of_other_prevalence_do_not_bend_the_probabilities(several):
    photos = outputs_of(6_000, "dermoscopy", "home", PRIOR, 7)
    p = several.apply(photos.logits, photos.style, photos.kinds).probabilities
    assert p.mean(axis=0) == pytest.approx(np.bincount(photos.labels, minlength=C) / 6_000, abs=0.04)


@pytest.fixture(scope="module")
def drawn_again() -> list[Calibrator]:
    return [fitted_to_several(seed) for seed in range(100, 120)]


@pytest.mark.parametrize("shares", [FLAT, PRIOR, PRIOR[::-1].copy()])
@pytest.mark.parametrize("kind", KINDS)
def test_another_prevalence_keeps_coverage_and_sensitivity(drawn_again, shares, kind):
    """On average over calibration sets: of each diagnosis, so in any mix, and of the malignant ones."""
    photos = outputs_of(6_000, kind, "away", shares, 11, noise=3.0 if kind == "clinical" else 1.0)
    held, referred, error = [], [], []
    for calibrator in drawn_again:
        out = calibrator.at(shares, "there").apply(photos.logits, photos.style, photos.kinds)
        held.append([DIAGNOSIS_CODES[n] in codes for n, codes in zip(photos.labels, out.sets, strict=True)])
        referred.append(out.refer[photos.malignant == 1].mean())
        error.append(out.probabilities.mean(axis=0) - np.bincount(photos.labels, minlength=C) / len(photos))
    covered = np.mean(held, axis=0)
    assert covered.mean() >= 0.895
    by_class = [covered[photos.labels == c].mean() for c in range(C) if (photos.labels == c).sum() >= 250]
    assert min(by_class) >= 0.88
    assert np.mean(referred) >= 0.90  # promised for the mix of malignant diagnoses in the calibration sources
    assert np.abs(np.mean(error, axis=0)).max() < 0.02


def test_the_prevalence_it_has_changes_nothing(several):
    same = several.at(np.asarray(several.natural_prior), "same")
    for kind in KINDS:
        assert same.by_kind[kind].conformal.quantiles == pytest.approx(several.by_kind[kind].conformal.quantiles)
        assert same.by_kind[kind].referral.threshold == pytest.approx(several.by_kind[kind].referral.threshold)
    back = several.at(FLAT, "flat").at(np.asarray(several.natural_prior), "back")
    photos = outputs_of(50, "dermoscopy", "home", PRIOR, 3)
    ours, theirs = (c.apply(photos.logits, photos.style) for c in (several, back))
    assert ours.probabilities == pytest.approx(theirs.probabilities) and ours.balanced == pytest.approx(theirs.balanced)
    assert (ours.refer == theirs.refer).all() and ours.sets == theirs.sets


def test_a_share_of_nothing_rules_nothing_out(several):
    shares = np.where(np.arange(C) == 3, 0.0, FLAT)
    assert 0 < several.at(shares, "none of it").natural_prior[3] < 2e-4


@pytest.mark.parametrize("shares", [np.ones(C - 1), -np.ones(C), np.full(C, np.nan), np.zeros(C)])
def test_a_prevalence_that_is_none_is_an_error(several, shares):
    with pytest.raises(ValueError, match="share"):
        several.at(shares, "x")


def test_arrays_of_several_kinds_round_trip(several):
    measured = {k: replace(part, ita_range=(-10.0, 60.0)) for k, part in several.by_kind.items()}
    full = replace(several, by_kind=measured, prevalence="ours", criteria=CriteriaCalibration.identity())
    some = replace(full.criteria, slope=full.criteria.slope * 1.5)
    full = replace(full, criteria=some)
    again = Calibrator.from_arrays(full.to_arrays())
    assert again.prevalence == "ours" and list(again.by_kind) == list(KINDS)
    assert again.of("clinical").ita_range == (-10.0, 60.0)
    assert (again.criteria.slope == 1.5).all()
    photos = outputs_of(60, "clinical", "away", FLAT, 5)
    for shares in (None, FLAT):
        ours, theirs = (c if shares is None else c.at(shares, "flat") for c in (full, again))
        a, b = (c.apply(photos.logits, photos.style) for c in (ours, theirs))
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-12) and a.sets == b.sets and a.kinds == b.kinds
    assert again.by_kind["clinical"].referral == full.by_kind["clinical"].referral
    stored, twice = full.to_arrays(), again.to_arrays()
    assert stored.keys() == twice.keys() and all(np.array_equal(stored[name], twice[name]) for name in stored)


def test_arrays_of_an_older_checkpoint_still_open(trust, data):
    old = {name: array for name, array in trust.to_arrays().items() if name in CALIBRATION_ARRAYS}
    again = Calibrator.from_arrays(old)
    ours, theirs = (t.apply(data["logits"], data["style"]) for t in (trust, again))
    assert (ours.probabilities == theirs.probabilities).all() and ours.sets == theirs.sets
    assert again.criteria.is_identity and again.photos is None and again.first.ita_range is None
    assert theirs.confident.all() and again.referral.by_group == ()
    with pytest.raises(ValueError, match="keeps no calibration photos"):
        again.at(FLAT, "flat")


def test_abstention_reads_the_balanced_probability_of_what_leads(several):
    photos = outputs_of(200, "clinical", "away", FLAT, 6)
    strict = {k: replace(part, min_confidence=0.6 if k == "clinical" else 0.0) for k, part in several.by_kind.items()}
    out = replace(several, by_kind=strict).apply(photos.logits, photos.style, photos.kinds)
    assert (out.confident == (leading_confidence(out.probabilities, out.balanced) >= 0.6)).all()
    assert 0 < out.confident.mean() < 1


def test_close_ups_that_are_answered_are_diagnosed_as_well_as_dermoscopy():
    hard = outputs_of(900, "clinical", "away", PRIOR, 5)
    logits = hard.logits * 0.35 + np.random.default_rng(0).normal(0, 1, hard.logits.shape)
    photos = LabelledOutputs.joined([outputs_of(900, "dermoscopy", "home", PRIOR, 4), replace(hard, logits=logits)])
    styles = {k: StyleSample(photos.style[photos.kinds == k], photos.style[photos.kinds == k]) for k in KINDS}
    chosen = Calibrator.fit(photos, styles, PRIOR, np.log(PRIOR))
    out = chosen.apply(photos.logits, photos.style, photos.kinds)
    right, close = out.probabilities.argmax(axis=1) == photos.labels, photos.kinds == "clinical"
    usual = right[~close].mean()
    assert out.confident[~close].all() and right[close].mean() < usual - 0.1
    assert right[close & out.confident].mean() >= usual - 1e-9 and 20 <= (close & out.confident).sum() < 900


# ---- what a model does not know --------------------------------------------------------------------------------------

FIRST = [DIAGNOSIS_CODES.index(code) for code in FIRST_DIAGNOSES]


@pytest.fixture(scope="module")
def seven(data) -> Calibrator:
    """Fitted for a model of the first seven diagnoses; its photos are labelled with all."""
    logits = data["logits"][:300].copy()
    logits[:, [c for c in range(C) if c not in FIRST]] = -np.inf
    return fitted(LabelledOutputs.of_diagnoses(logits, data["labels"][:300]), data["style"])


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
    quantiles = replace(seven.conformal, quantiles=(*[1.0] * 7, -1.0, -1.0))
    wide = replace(seven, by_kind={DERMOSCOPY: replace(seven.first, conformal=quantiles)})
    assert wide.apply(logits, data["style"][:1]).sets == [FIRST_DIAGNOSES]


def test_arrays_of_a_checkpoint_made_before_answer_as_they_did(data, seven):
    """The bare formulas, on the seven columns alone, give what the padded arrays give."""
    arrays = seven.to_arrays()
    padded = ("calibration.bias", "natural_prior", "conformal.quantiles")
    before = {k: v[FIRST] if k in padded else v for k, v in arrays.items() if k in CALIBRATION_ARRAYS}
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
    labels, logits = data["labels"][:300].copy(), data["logits"][:300].copy()
    labels[:30] = other
    apart = logits.copy()
    apart[:30, mel] += 9
    sure = labels != other
    for x in (logits, apart):
        trust = fitted(LabelledOutputs.of_diagnoses(x, labels), data["style"])
        malignancy = trust.apply(x, data["style"][:300]).malignancy
        refer, truth = trust.referral.refer(malignancy)[sure], MALIGNANT[labels[sure]]
        assert trust.referral.sensitivity == pytest.approx(refer[truth].mean())
        assert trust.referral.specificity == pytest.approx((~refer[~truth]).mean())
