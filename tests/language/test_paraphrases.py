"""Made-up descriptions: about the right diagnosis, different every time, the same for the same seed."""

from __future__ import annotations

import random

import pytest

from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE, DIAGNOSIS_CODES
from skinclip.language import paraphrases
from skinclip.language.paraphrases import VOCABULARY, describe, write_description


def test_every_diagnosis_has_a_vocabulary() -> None:
    assert tuple(VOCABULARY) == DIAGNOSIS_CODES
    for vocabulary in VOCABULARY.values():
        assert len(set(vocabulary.names)) == len(vocabulary.names) >= 5
        assert len(set(vocabulary.signs)) == len(vocabulary.signs) >= 8
        assert len(vocabulary.nouns) >= 4


def test_no_name_is_said_of_two_diagnoses() -> None:
    named = [(name, code) for code, v in VOCABULARY.items() for name in v.names]
    assert len({name for name, _ in named}) == len(named)


@pytest.mark.parametrize("code", DIAGNOSIS_CODES)
def test_texts_are_many_seeded_and_speak_of_their_diagnosis(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paraphrases, "WORD_DROPOUT", 0.0)
    texts = [write_description(code, random.Random(i)) for i in range(200)]
    assert texts == [write_description(code, random.Random(i)) for i in range(200)]
    assert len(set(texts)) > 150
    v = VOCABULARY[code]
    assert all(any(part in text for part in (*v.names, *v.signs, *v.nouns)) for text in texts)
    assert not any("{" in text for text in texts)


def test_words_are_left_out_but_never_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paraphrases, "WORD_DROPOUT", 1.0)
    assert write_description("mel", random.Random(0))
    monkeypatch.setattr(paraphrases, "WORD_DROPOUT", 0.5)
    halved = [len(write_description("mel", random.Random(i)).split()) for i in range(300)]
    monkeypatch.setattr(paraphrases, "WORD_DROPOUT", 0.0)
    whole = [len(write_description("mel", random.Random(i)).split()) for i in range(300)]
    assert 0.4 < sum(halved) / sum(whole) < 0.6


def test_a_fixed_description_comes_first() -> None:
    texts = describe("df", 3, random.Random(0))
    assert len(texts) == 3 and texts[0] in DIAGNOSIS_BY_CODE["df"].descriptions
