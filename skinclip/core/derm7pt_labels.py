"""Derm7pt's own labels and the states, diagnosis groups and diagnoses of the vocabulary that they stand for.

Kawahara et al. 2019. `skinclip.core.vocabulary` offers these tables beside its own.
"""

from __future__ import annotations

# Derm7pt's fine labels -> the official grouped state. An unknown label is an error of the reader, not a guess.
DERM7PT_STATES: dict[str, dict[str, str]] = {
    "pigment_network": {"absent": "absent", "typical": "typical", "atypical": "atypical"},
    "streaks": {"absent": "absent", "regular": "regular", "irregular": "irregular"},
    "pigmentation": {
        "absent": "absent",
        "diffuse regular": "regular",
        "localized regular": "regular",
        "diffuse irregular": "irregular",
        "localized irregular": "irregular",
    },
    "regression_structures": {
        "absent": "absent",
        "blue areas": "present",
        "white areas": "present",
        "combinations": "present",
    },
    "dots_and_globules": {"absent": "absent", "regular": "regular", "irregular": "irregular"},
    "blue_whitish_veil": {"absent": "absent", "present": "present"},
    "vascular_structures": {
        "absent": "absent",
        "arborizing": "regular",
        "comma": "regular",
        "hairpin": "regular",
        "within regression": "regular",
        "wreath": "regular",
        "dotted": "irregular",
        "linear irregular": "irregular",
    },
}

# Derm7pt's five diagnosis groups (Kawahara et al. 2019).
DERM7PT_GROUPS: tuple[str, ...] = ("BCC", "NEV", "MEL", "MISC", "SK")
DERM7PT_DIAGNOSIS_GROUP: dict[str, str] = {
    "basal cell carcinoma": "BCC",
    "blue nevus": "NEV",
    "clark nevus": "NEV",
    "combined nevus": "NEV",
    "congenital nevus": "NEV",
    "dermal nevus": "NEV",
    "recurrent nevus": "NEV",
    "reed or spitz nevus": "NEV",
    "melanoma": "MEL",
    "melanoma (in situ)": "MEL",
    "melanoma (less than 0.76 mm)": "MEL",
    "melanoma (0.76 to 1.5 mm)": "MEL",
    "melanoma (more than 1.5 mm)": "MEL",
    "melanoma metastasis": "MEL",
    "dermatofibroma": "MISC",
    "lentigo": "MISC",
    "melanosis": "MISC",
    "miscellaneous": "MISC",
    "vascular lesion": "MISC",
    "seborrheic keratosis": "SK",
}
# ... and the HAM10000 class each Derm7pt diagnosis stands for. Lentigo (simplex or solar is not stated), melanosis
# and miscellaneous have none: their class is missing, not guessed.
DERM7PT_TO_CODE: dict[str, str | None] = {
    name: {"BCC": "bcc", "NEV": "nv", "MEL": "mel", "SK": "bkl"}.get(group)
    for name, group in DERM7PT_DIAGNOSIS_GROUP.items()
} | {"dermatofibroma": "df", "vascular lesion": "vasc"}
