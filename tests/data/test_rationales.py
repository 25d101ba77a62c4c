"""Rationale texts: what they must cite, may name and must not assert."""

from __future__ import annotations

import random
import re

import pytest

from skinclip.clinical import DIAGNOSIS_BY_CODE, STATE_BY_KEY
from skinclip.data import rationales
from skinclip.data.rationales import (
    FORBIDDEN_OUTSIDE,
    check_rationale,
    random_example,
    read_rationale,
    tidy,
    vocabulary,
    write_rationale,
)

FINDINGS = ("pigment_network:atypical", "dots_and_globules:irregular", "colour:uniform")


def examples(n: int, seed: int = 0):
    rng = random.Random(seed)
    for _ in range(n):
        context, leading, runner_up, findings = random_example(rng)
        yield context, leading, runner_up, findings, write_rationale(leading, runner_up, findings, rng)


def test_every_finding_is_cited_once_with_its_phrase_right_after_the_reference() -> None:
    for _, _, _, findings, text in examples(600):
        for i, key in enumerate(findings):
            assert text.count(f"[r{i + 1}] {STATE_BY_KEY[key].phrase}") == 1, text
        assert text.count("[r") == len(findings)


def test_leading_diagnosis_is_named_first_and_no_third_one_is_named() -> None:
    for _, leading, runner_up, _, text in examples(600):
        read = read_rationale(text)
        assert read.leading == leading, text
        assert set(read.diagnoses) <= {leading, runner_up}
        assert runner_up is None or runner_up in read.diagnoses, text


def test_generated_texts_pass_the_checker_and_read_the_same_when_tidied() -> None:
    for _, _, _, findings, text in examples(600):
        assert check_rationale(text, findings) == []
        assert check_rationale(tidy(text), findings) == []
        assert read_rationale(tidy(text)) == read_rationale(text)
        assert text == " ".join(text.split()) == text.lower()


def test_texts_have_two_to_four_sentences_and_bounded_length() -> None:
    texts = [text for *_, text in examples(600)]
    assert {text.count(" .") for text in texts} <= {2, 3, 4}
    lengths = sorted(len(text.split()) for text in texts)
    assert lengths[0] >= 20 and lengths[len(lengths) // 2] <= 60 and lengths[-1] <= 95


def test_wording_varies_within_a_small_vocabulary() -> None:
    texts = {write_rationale("mel", "nv", FINDINGS, random.Random(seed)) for seed in range(1000)}
    assert len(texts) > 950
    assert len(vocabulary()) < 450
    used = {word for *_, text in examples(600) for word in text.split()}
    assert used <= set(vocabulary())


def test_each_slot_has_at_least_ten_wordings() -> None:
    sentences = [slot for slot in rationales._SLOTS if any("{" in t or " is " in t for t in slot)]
    assert len(sentences) >= 14
    assert all(len(set(slot)) >= 10 for slot in sentences)


def test_templates_hold_no_word_that_needs_a_reference() -> None:
    outside = {word for slot in rationales._SLOTS for text in slot for word in text.split()}
    assert not outside & FORBIDDEN_OUTSIDE
    assert {"blue-whitish veil", "veil", "globules", "network", "streaks", "colour"} <= FORBIDDEN_OUTSIDE
    assert not FORBIDDEN_OUTSIDE & {"and", "vascular", "melanoma", "carcinoma", "lesion"}


@pytest.mark.parametrize("seed", range(30))
def test_findings_are_named_for_what_they_say(seed: int) -> None:
    supports = write_rationale("mel", "nv", ("streaks:irregular",), random.Random(seed))
    assert "melanocytic nevus" not in supports.split("[r1]")[0]
    # regular streaks support a nevus and not melanoma: the clause that cites them names the nevus
    rival = write_rationale("mel", "nv", ("streaks:regular",), random.Random(seed))
    clause = next(part for part in re.split(r"[.;]", rival) if "[r1]" in part)
    assert "melanocytic nevus" in clause and "melanoma" not in clause
    # ... and oppose benign keratosis, where no runner-up claims them
    against = write_rationale("bkl", "mel", ("streaks:regular",), random.Random(seed))
    clause = next(part for part in re.split(r"[.;]", against) if "[r1]" in part)
    assert "benign keratosis" in clause and "melanoma" not in clause
    # a veil neither supports nor opposes these two
    neutral = write_rationale("df", "vasc", ("blue_whitish_veil:present",), random.Random(seed))
    clause = next(part for part in re.split(r"[.;]", neutral) if "[r1]" in part)
    assert not {"argue", "against", "rather", "less", "supported"} & set(clause.split())


@pytest.mark.parametrize("seed", range(10))
def test_without_findings_the_text_says_that_none_was_seen(seed: int) -> None:
    text = write_rationale("df", None, (), random.Random(seed))
    assert "[r" not in text and read_rationale(text).diagnoses == ("df",)
    assert re.search(r"\b(none|no|not|nothing|empty)\b", text)


def test_same_seed_same_text() -> None:
    assert write_rationale("mel", "nv", FINDINGS, random.Random(3)) == write_rationale(
        "mel", "nv", FINDINGS, random.Random(3)
    )


def test_unknown_words_and_double_criteria_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ValueError, match="not in the clinical vocabulary: scc"):
        write_rationale("scc", None, (), rng)
    with pytest.raises(ValueError, match="not in the clinical vocabulary: streaks:absent"):
        write_rationale("mel", None, ("streaks:absent",), rng)
    with pytest.raises(ValueError, match="two findings of one criterion"):
        write_rationale("mel", None, ("streaks:regular", "streaks:irregular"), rng)
    with pytest.raises(ValueError, match="runner-up is the leading"):
        write_rationale("mel", "mel", (), rng)


def test_checker_names_each_kind_of_problem() -> None:
    text = (
        "Melanoma is favoured by [r1] blue-whitish veil and [r4] uniform colour; [r2] Irregular dots and globules, "
        "[r2] irregular dots and globules. Irregular streaks are seen, and a vessel."
    )
    assert check_rationale(text, FINDINGS) == [
        "[r1] is followed by blue-whitish veil, not by atypical pigment network",
        "[r4] is not one of the 3 findings",
        "[r2] is cited twice",
        '"irregular streaks" is asserted without a reference',
        '"vessel" is asserted without a reference',
    ]
    assert check_rationale("melanoma , given [r1] something .", FINDINGS) == [
        "[r1] is followed by no known finding, not by atypical pigment network"
    ]


def test_reader_survives_any_text() -> None:
    assert read_rationale("").leading is None
    read = read_rationale("[r1] [r2] [rx] Vascular lesion?? [r12]")
    assert read.leading == "vasc"
    assert read.cited == (("r1", None), ("r2", None), ("r12", None))
    assert read.unreferenced == ()


def test_tidy_joins_marks_and_capitalises() -> None:
    text = "this is melanoma , given [r1] irregular streaks ; so it is . [r2] uniform colour would argue ( softly ) ."
    assert tidy(text) == (
        "This is melanoma, given [r1] irregular streaks; so it is. [r2] Uniform colour would argue (softly)."
    )


def test_random_examples_are_valid_and_varied() -> None:
    drawn = [row[:4] for row in examples(600)]
    supported = [leading in STATE_BY_KEY[key].supports for _, leading, _, found in drawn for key in found]
    assert 0.6 < sum(supported) / len(supported) < 0.9
    assert {leading for _, leading, _, _ in drawn} == set(DIAGNOSIS_BY_CODE)
    assert {len(found) for *_, found in drawn} == set(range(7))
    for context, leading, runner_up, found in drawn:
        assert leading != runner_up
        assert len({key.split(":")[0] for key in found}) == len(found)
        assert context.age is None or 0 < context.age < 120
    for field in ("age", "sex", "site"):
        missing = sum(getattr(row[0], field) is None for row in drawn)
        assert 60 < missing < 240
