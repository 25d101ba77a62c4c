import json
from pathlib import Path

import numpy as np
import pytest

from skinclip.calibration.prevalence import GENERAL_PRACTICE, HAM10000, NAMED, observed, prevalence_of
from skinclip.core.strict_yaml import ConfigError
from skinclip.core.vocabulary import DIAGNOSIS_CODES, MALIGNANT_CODES


def test_named_ones_cover_every_diagnosis_and_say_their_source():
    assert set(NAMED) == {"ham10000", "milk10k", "general-practice"}
    for one in NAMED.values():
        assert set(one.shares) == set(DIAGNOSIS_CODES) and one.source
        assert one.vector().sum() == pytest.approx(1) and (one.vector() > 0).all()
    assert prevalence_of("ham10000") is HAM10000 and prevalence_of(HAM10000) is HAM10000


def test_general_practice_is_what_the_source_counts():
    shares = GENERAL_PRACTICE.shares
    assert sum(shares.values()) == 592 + 561 + 5211
    assert shares["mel"] == 172 and shares["bcc"] + shares["scc"] == 415 and shares["nv"] == 2571
    malignant = sum(shares[c] for c in MALIGNANT_CODES) / sum(shares.values())
    assert 0.15 < malignant < 0.17  # actinic keratoses among them


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_own_numbers_are_read_from_a_file(tmp_path, suffix):
    path = tmp_path / f"ours.{suffix}"
    content = {"name": "our clinic", "source": "2025", "shares": {"mel": 120, "nv": 880}}
    path.write_text(json.dumps(content))
    one = prevalence_of(path)
    assert one.name == "our clinic" and one.vector()[DIAGNOSIS_CODES.index("mel")] == pytest.approx(0.12)
    assert prevalence_of(str(path)) == one
    path.write_text(json.dumps({"shares": {"nv": 1}}))
    assert prevalence_of(path).name == "ours"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shares: {mel: -1, nv: 2}", "shares.mel: .*greater than or equal to 0"),
        ("shares: {mel: 0, nv: 0}", "no diagnosis has a share above 0"),
        ("shares: {melanoma: 1}", "'melanoma' is no diagnosis; there are akiec"),
        ("shares: {}", "shares: .*at least 1"),
        ("shares: {mel: .inf}", "shares.mel"),
        ("shares: {mel: many}", "shares.mel"),
        ("name: x", "shares: Field required"),
        ("shares: {mel: 1}\nshare: 2", "share: Extra inputs"),
        ("shares: {mel: 1, mel: 2}", "line 1.*given twice"),
        ("[1, 2]", "is not a prevalence"),
        ("", "is not a prevalence"),
    ],
)
def test_a_file_that_is_none_says_why(tmp_path, text, words):
    path = tmp_path / "ours.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        prevalence_of(path)
    assert "ours.yaml" in str(error.value)


def test_what_is_neither_a_name_nor_a_file_lists_the_names():
    with pytest.raises(ConfigError, match="ham10000, milk10k, general-practice"):
        prevalence_of("hospital")
    with pytest.raises(ConfigError, match="neither a prevalence"):
        prevalence_of(Path("/nowhere/x.yaml"))


def test_observed_counts_labels_and_leaves_nothing_out():
    labels = np.array([0] * 30 + [5] * 70 + [-1] * 9)
    shares = observed("here", labels).vector()
    assert shares[5] / shares[0] == pytest.approx(70 / 30) and (shares > 0).all()
    assert shares[1] / shares[:].sum() == pytest.approx(1 / (100 + len(DIAGNOSIS_CODES) - 2), rel=1e-6)
