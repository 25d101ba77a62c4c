"""Diagnoses and criteria of the GPU-trained tower beside the seven diagnoses and criteria of HAM10000 and Derm7pt."""

from __future__ import annotations

from skinclip.core.vocabulary import CRITERIA, DIAGNOSES, Criterion, Diagnosis, State

SCC = Diagnosis(
    "scc",
    "squamous cell carcinoma",
    True,
    (
        "invasive squamous cell carcinoma or keratoacanthoma, a keratotic nodule",
        "a dermoscopy photo of squamous cell carcinoma with white circles, keratin and looped vessels",
        "a fast growing crateriform tumour with a central keratin plug, keratoacanthoma",
    ),
)
OTHER = Diagnosis(
    "other",
    "none of these",
    False,
    (
        "another skin lesion: inflammation, infection, scar or a rare tumour",
        "a dermoscopy photo of none of the common tumours",
        "an inflammatory or benign lesion of another kind",
    ),
)
ALL_DIAGNOSES = (*DIAGNOSES, SCC, OTHER)
CODES = tuple(d.code for d in ALL_DIAGNOSES)
NEGATIVE_NETWORK = Criterion(
    "negative_network",
    "negative network",
    (
        State(
            "negative_network",
            "present",
            "negative network",
            ("a negative network, pale serpiginous lines around darker round islands",),
            ("mel",),
            ("bcc",),
        ),
    ),
)
MILIA_LIKE_CYSTS = Criterion(
    "milia_like_cysts",
    "milia-like cysts",
    (
        State(
            "milia_like_cysts",
            "present",
            "milia-like cysts",
            ("milia-like cysts, small round bright white or yellowish dots",),
            ("bkl",),
            ("mel",),
        ),
    ),
)
ALL_CRITERIA = (*CRITERIA, NEGATIVE_NETWORK, MILIA_LIKE_CYSTS)
STATES = tuple(s for c in ALL_CRITERIA for s in c.states)

NAMES = {
    "scc": (
        *("squamous cell carcinoma", "an invasive squamous cell carcinoma", "scc", "keratoacanthoma"),
        *("a keratoacanthoma", "well differentiated squamous cell carcinoma", "cutaneous squamous cell cancer"),
        *("spinalioma", "epidermoid carcinoma", "a squamous cell cancer of the skin"),
    ),
    "other": (
        *("another diagnosis", "none of the listed tumours", "an inflammatory lesion", "a scar", "an infection"),
        *("a viral wart", "eczema", "psoriasis", "a cyst", "lichen planus", "an adnexal tumour", "a rare tumour"),
        *("sebaceous hyperplasia", "a neurofibroma", "folliculitis", "an unusual benign lesion"),
    ),
}
SIGNS = {
    "scc": (
        *("a central keratin mass", "white circles", "white structureless areas", "blood spots", "ulceration"),
        *("looped vessels", "hairpin vessels", "serpentine vessels", "a crateriform centre", "thick scale and crust"),
        *("a white halo around vessels", "an indurated base", "a keratin horn", "a red raised rim", "bleeding"),
    ),
    "other": (
        *("uniform redness", "dotted vessels spread evenly", "yellowish structures", "a central pore", "fine scale"),
        *("a scar-like surface", "crown vessels around yellow lobules", "papillomatous surface", "black dots of blood"),
        *("no specific pattern", "crusts after scratching", "white lines crossing", "a skin-coloured dome"),
    ),
}
NOUNS = {
    "scc": (
        *("a keratotic nodule", "a rapidly growing nodule", "a crusted ulcerated tumour", "a hyperkeratotic plaque"),
        *("a firm red nodule with a plug", "an invasive keratinocyte tumour"),
    ),
    "other": (
        *("an inflamed patch", "a skin-coloured papule", "a lesion of another kind", "a red scaly patch"),
        *("an unspecific papule", "a benign lesion not among the common ones"),
    ),
}
