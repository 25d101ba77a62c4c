"""The product's diagnoses and criteria by the names that the GPU runs use: what they learn, in the order of weights."""

from __future__ import annotations

from skinclip.core.vocabulary import CRITERIA, DIAGNOSES, DIAGNOSIS_CODES, EVIDENCE_STATES

ALL_DIAGNOSES, CODES = DIAGNOSES, DIAGNOSIS_CODES
ALL_CRITERIA, STATES = CRITERIA, EVIDENCE_STATES
