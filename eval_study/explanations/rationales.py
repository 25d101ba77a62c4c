"""Agreement of generated texts with their findings. Generated rationales of HAM10000's validation photos.

agreement     the first diagnosis that a text names is the leading one
sound         nothing is said that the findings do not support (`data.rationales.check_rationale`)
recovered     macro AUROC of a separate text classifier that reads the leading diagnosis from the text without any
              diagnosis name, beside the same from a template of the same findings; cross-validated by lesion
diversity     distinct texts once names, references and findings are masked; distinct pairs of words of all pairs
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench
from eval_study.explanations.maps import chosen
from skinclip.core.assessment import Assessment
from skinclip.core.formatting import number, with_interval
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_CODES, STATE_BY_KEY
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.imaging.photo import load_photo
from skinclip.language.rationale_check import check_rationale, read_rationale
from skinclip.reporting.document import Section

NAME = "rationales"
DATA, SPLIT, N = "ham10000", "valid", 300
FOLDS = 5


def _any_of(phrases: list[str]) -> str:
    return "(?:" + "|".join(re.escape(p) for p in sorted(phrases, key=len, reverse=True)) + ")"


_NAMES = re.compile(_any_of([d.name for d in DIAGNOSES]), re.IGNORECASE)
_FINDINGS = re.compile(r"\[r\d+\]\s*" + _any_of([s.phrase for s in STATE_BY_KEY.values()]), re.IGNORECASE)


def without_names(text: str) -> str:
    """The text with every name of a diagnosis taken out."""
    return _NAMES.sub("…", text)


def masked(text: str) -> str:
    """The text's own words: names, references and findings masked."""
    return _FINDINGS.sub("#", without_names(text)).lower()


def template(assessment: Assessment) -> str:
    """The findings as a list, in no words of their own."""
    return ". ".join(STATE_BY_KEY[f.key].phrase for f in assessment.findings)


def recovered(texts: list[str], labels: np.ndarray, groups: list[str]) -> np.ndarray:
    """[n, C] out-of-fold probabilities of a bag-of-words classifier; classes it never saw have none."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[\w-]+"),
        LogisticRegression(C=10.0, max_iter=2000, class_weight="balanced"),
    )
    folds = GroupKFold(n_splits=min(FOLDS, len(set(groups))))
    p = np.zeros((len(texts), len(DIAGNOSIS_CODES)))
    known = np.unique(labels)
    p[:, known] = cross_val_predict(model, texts, labels, groups=groups, cv=folds, method="predict_proba")
    return p


def run(bench: Bench) -> dict[str, Any]:
    """Figures of the rationales of N validation photos."""
    cases = chosen(bench.cases(DATA, SPLIT), N, bench.seed)
    assessed = [
        bench.assessor.assess(load_photo(c.image), c.context) for c in tqdm(cases, desc="rationales", mininterval=10)
    ]
    kept = [(c, a) for c, a in zip(cases, assessed, strict=True) if a.rationale]
    return {
        "meta": bench.meta(data=DATA, split=SPLIT, thresholds=bench.thresholds),
        "n": len(cases),
        "abstained": len(cases) - len(kept),
        **truth_of([a for _, a in kept], [cluster(c) for c, _ in kept], bench),
    }


def _variety(texts: list[str]) -> dict[str, float]:
    """Shares of distinct texts and of distinct pairs of words among the texts' own words."""
    own = [masked(t) for t in texts]
    pairs = [pair for t in own for pair in zip(t.split(), t.split()[1:], strict=False)]
    return {"distinct_texts": len(set(own)) / len(own), "distinct_pairs": len(set(pairs)) / max(1, len(pairs))}


def truth_of(assessed: list[Assessment], groups: list[str], bench: Bench) -> dict[str, Any]:
    """The measures of Assessments that have a rationale."""
    texts = [a.rationale for a in assessed]
    leading = np.array([DIAGNOSIS_CODES.index(a.diagnosis[0].code) for a in assessed])
    agrees = np.array([read_rationale(a.rationale).leading == a.diagnosis[0].code for a in assessed], float)
    keys = [[f.key for f in a.findings] for a in assessed]
    named = [[d.code for d in a.diagnosis[:2]] for a in assessed]
    sound = np.array([not check_rationale(*row) for row in zip(texts, keys, named, strict=True)], float)
    p_text = recovered([without_names(t) for t in texts], leading, groups)
    p_template = recovered([template(a) for a in assessed], leading, groups)
    resamples = metrics.GroupBootstrap(groups, bench.n_boot, bench.seed)
    text, plain = metrics.auroc_macro(p_text, leading), metrics.auroc_macro(p_template, leading)
    return {
        "agreement": resamples.interval(metrics.mean(agrees)),
        "sound": resamples.interval(metrics.mean(sound)),
        "recovered_from_text": resamples.interval(text),
        "recovered_from_template": resamples.interval(plain),
        "text_less_template": resamples.interval(metrics.difference(text, plain)),
        **_variety(texts),
        "words": float(np.mean([len(t.split()) for t in texts])),
        "findings": float(np.mean([len(a.findings) for a in assessed])),
    }


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    rows = [
        ["names the leading diagnosis first", with_interval(result["agreement"])],
        ["says nothing that its findings do not support", with_interval(result["sound"])],
        ["diagnosis recovered from the text, macro AUROC", with_interval(result["recovered_from_text"])],
        ["diagnosis recovered from a template", with_interval(result["recovered_from_template"])],
        ["difference", with_interval(result["text_less_template"], sign=True)],
        ["distinct texts, share of texts", number(result["distinct_texts"])],
        ["distinct pairs of words, share of pairs", number(result["distinct_pairs"])],
        ["words per text", number(result["words"], 1)],
        ["findings per text", number(result["findings"], 1)],
    ]
    return Section.of(
        "Rationales",
        [
            f"HAM10000 {result['meta']['split']}, n = {result['n']}, {result['abstained']} without a rationale. In "
            "`mini` the first two hold by construction: it decodes among sentences that are true to the findings.",
            table(["figure", "value"], rows),
        ],
    )
