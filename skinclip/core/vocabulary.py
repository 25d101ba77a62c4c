"""The clinical vocabulary: diagnoses, malignancy, the 7-point checklist, ABC measurements, patient context.

Everything that names a diagnosis, a criterion or a body site reads it from here, so that a label file, an
embedding, a rationale and the page can never disagree about a word. Diagnoses are the classes of HAM10000
(Tschandl et al. 2018), squamous cell carcinoma, and none of these; criteria and their grouped states follow the
7-point checklist as labelled in Derm7pt (Argenziano et al. 1998; Kawahara et al. 2019), and two attributes that experts
drew for ISIC 2018 Task 2. Weights depend on the order and the words of both: a new entry goes to the end, and a
checkpoint made before it goes on knowing its own part (`skinclip.core.known`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from skinclip.core.derm7pt_labels import DERM7PT_DIAGNOSIS_GROUP as DERM7PT_DIAGNOSIS_GROUP
from skinclip.core.derm7pt_labels import DERM7PT_GROUPS as DERM7PT_GROUPS
from skinclip.core.derm7pt_labels import DERM7PT_STATES as DERM7PT_STATES
from skinclip.core.derm7pt_labels import DERM7PT_TO_CODE as DERM7PT_TO_CODE


@dataclass(frozen=True)
class Diagnosis:
    """One class of the differential.

    Attributes:
        malignant: its probability counts into P(malignant).
        descriptions: the answer is compared with them.
        also: other diagnoses that the class covers.
        derm7pt_group: the one of Derm7pt's five diagnosis groups that it belongs to.
        mixed: holds benign and malignant lesions, so that a case labelled so has no truth of malignancy.
        sentence_name: what a sentence calls it, where `name` makes sense in a list alone.
    """

    code: str
    name: str
    malignant: bool
    descriptions: tuple[str, ...]
    also: tuple[str, ...] = ()
    derm7pt_group: str = "MISC"
    mixed: bool = False
    sentence_name: str = ""

    @property
    def in_text(self) -> str:
        """Name in sentences, those of a rationale among them."""
        return self.sentence_name or self.name


DIAGNOSES: tuple[Diagnosis, ...] = (
    Diagnosis(
        "akiec",
        "actinic keratosis",
        True,
        (
            "actinic keratosis or intraepithelial carcinoma, a scaly red patch on sun-damaged skin",
            "a dermoscopy photo of actinic keratosis with surface scale and a strawberry pattern",
            "bowen disease, intraepidermal carcinoma with dotted vessels and scale",
        ),
        also=("carcinoma in situ",),
    ),
    Diagnosis(
        "bcc",
        "basal cell carcinoma",
        True,
        (
            "basal cell carcinoma with arborising vessels and blue-grey ovoid nests",
            "a dermoscopy photo of basal cell carcinoma, shiny white areas and ulceration",
            "a pearly lesion with leaf-like areas and no pigment network, basal cell carcinoma",
        ),
        derm7pt_group="BCC",
    ),
    Diagnosis(
        "bkl",
        "benign keratosis",
        False,
        (
            "benign keratosis: seborrheic keratosis, solar lentigo or lichen planus-like keratosis",
            "a dermoscopy photo of seborrheic keratosis with milia-like cysts and comedo-like openings",
            "a sharply bordered stuck-on brown keratosis with fissures and ridges",
        ),
        derm7pt_group="SK",
    ),
    Diagnosis(
        "df",
        "dermatofibroma",
        False,
        (
            "dermatofibroma with a central white scar-like patch and a delicate peripheral network",
            "a dermoscopy photo of dermatofibroma, a firm brown papule",
            "a fibrous histiocytoma with a pale centre and a fine brown rim",
        ),
    ),
    Diagnosis(
        "mel",
        "melanoma",
        True,
        (
            "melanoma with an atypical pigment network and irregular pigmentation",
            "a dermoscopy photo of melanoma, asymmetric, with several colours and a blue-whitish veil",
            "a malignant melanocytic lesion with irregular streaks, dots and regression",
        ),
        derm7pt_group="MEL",
    ),
    Diagnosis(
        "nv",
        "melanocytic nevus",
        False,
        (
            "a melanocytic nevus with a typical pigment network and regular globules",
            "a dermoscopy photo of a benign mole, symmetric and evenly coloured",
            "a benign melanocytic nevus with a regular pattern and a smooth border",
        ),
        derm7pt_group="NEV",
    ),
    Diagnosis(
        "vasc",
        "vascular lesion",
        False,
        (
            "a vascular lesion, angioma or angiokeratoma, with red or purple lacunae",
            "a dermoscopy photo of a haemangioma with well-defined red lagoons",
            "a red-blue vascular lesion or haemorrhage without a pigment network",
        ),
    ),
    Diagnosis(
        "scc",
        "squamous cell carcinoma",
        True,
        (
            "invasive squamous cell carcinoma or keratoacanthoma, a keratotic nodule",
            "a dermoscopy photo of squamous cell carcinoma with white circles, keratin and looped vessels",
            "a fast growing crateriform tumour with a central keratin plug, keratoacanthoma",
        ),
        also=("keratoacanthoma",),
    ),
    Diagnosis(
        "other",
        "none of these",
        False,
        (
            "another skin lesion: inflammation, infection, scar or a rare tumour",
            "a dermoscopy photo of none of the common tumours",
            "an inflammatory or benign lesion of another kind",
        ),
        mixed=True,
        sentence_name="a lesion of another kind",  # "none of these is the leading diagnosis" would say the opposite
    ),
)

DIAGNOSIS_CODES: tuple[str, ...] = tuple(d.code for d in DIAGNOSES)
DIAGNOSIS_BY_CODE: dict[str, Diagnosis] = {d.code: d for d in DIAGNOSES}
# Malignant is defined here and nowhere else. HAM10000's akiec includes intraepithelial carcinoma. "None of these" may
# be either: it counts as not malignant in P(malignant), which page and reports say, and has no truth of malignancy.
MALIGNANT_CODES: frozenset[str] = frozenset(d.code for d in DIAGNOSES if d.malignant)
MIXED_CODES: frozenset[str] = frozenset(d.code for d in DIAGNOSES if d.mixed)


def is_malignant(code: str | None) -> bool | None:
    """The malignancy of a diagnosis by its code, None where it is missing or may be either.

    >>> is_malignant("scc"), is_malignant("nv"), is_malignant("other")
    (True, False, None)
    """
    return None if code is None or code in MIXED_CODES else DIAGNOSIS_BY_CODE[code].malignant


# Malignant tumours of the skin that a reader must keep in mind wherever no diagnosis covers them.
_OTHER_TUMOURS = ("squamous cell carcinoma", "Merkel cell carcinoma", "cutaneous lymphoma", "metastases")


def unnamed_tumours(codes: Collection[str]) -> tuple[str, ...]:
    """The malignant tumours to keep in mind that none of the diagnoses `codes` names.

    >>> unnamed_tumours(("mel", "scc"))
    ('Merkel cell carcinoma', 'cutaneous lymphoma', 'metastases')
    """
    named = {name for code in codes for name in (DIAGNOSIS_BY_CODE[code].name, *DIAGNOSIS_BY_CODE[code].also)}
    return tuple(tumour for tumour in _OTHER_TUMOURS if tumour not in named)


# The column order of ISIC 2018 Task 3 submission and ground-truth files.
ISIC2018_COLUMNS: dict[str, str] = {
    "MEL": "mel",
    "NV": "nv",
    "BCC": "bcc",
    "AKIEC": "akiec",
    "BKL": "bkl",
    "DF": "df",
    "VASC": "vasc",
}
# The columns of our own prediction files: ISIC's, then those of diagnoses that ISIC 2018 did not have.
PREDICTION_COLUMNS: dict[str, str] = ISIC2018_COLUMNS | {
    code.upper(): code for code in DIAGNOSIS_CODES if code not in ISIC2018_COLUMNS.values()
}


def state_key(criterion: str, state: str) -> str:
    """The key of a criterion in a state, "streaks:irregular"; `criterion_of` gives the criterion back."""
    return f"{criterion}:{state}"


def criterion_of(key: str) -> str:
    """The criterion of a state's key."""
    return key.split(":")[0]


@dataclass(frozen=True)
class State:
    """A state of a criterion that can be seen in a photo.

    `phrase` is how a rationale names it; `supports` and `against` are the diagnoses that it makes more and less
    likely (pattern analysis and the 7-point checklist).
    """

    criterion: str
    code: str
    phrase: str
    descriptions: tuple[str, ...]
    supports: tuple[str, ...]
    against: tuple[str, ...]
    points: int = 0

    @property
    def key(self) -> str:
        return state_key(self.criterion, self.code)


@dataclass(frozen=True)
class Criterion:
    """A criterion with its present states; "absent" is always the remaining one, unless `measured`."""

    code: str
    name: str
    states: tuple[State, ...]
    measured: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """All states a label can take, "absent" first where the criterion has it."""
        present = tuple(s.code for s in self.states)
        return present if self.measured else ("absent", *present)


def _states(criterion: str, *rows: tuple) -> tuple[State, ...]:
    return tuple(State(criterion, *row) for row in rows)


# The seven criteria in Derm7pt's official grouping (Kawahara et al. 2019, table 1), then two drawn in ISIC 2018 Task 2.
# Points: 2 for a major criterion of the checklist, 1 for a minor one (Argenziano et al. 1998), 0 for what is not on it.
CRITERIA: tuple[Criterion, ...] = (
    Criterion(
        "pigment_network",
        "pigment network",
        _states(
            "pigment_network",
            (
                "typical",
                "typical pigment network",
                ("a typical pigment network, a regular mesh of thin brown lines",),
                ("nv", "df"),
                ("mel", "bcc", "scc"),
            ),
            (
                "atypical",
                "atypical pigment network",
                ("an atypical pigment network with thick, dark, irregular lines",),
                ("mel",),
                ("nv", "bcc", "scc"),
                2,
            ),
        ),
    ),
    Criterion(
        "streaks",
        "streaks",
        _states(
            "streaks",
            (
                "regular",
                "regular streaks",
                ("regular streaks, even radial lines all around the edge",),
                ("nv",),
                ("bkl", "bcc"),
            ),
            (
                "irregular",
                "irregular streaks",
                ("irregular streaks, uneven radial lines at part of the edge",),
                ("mel",),
                ("nv",),
                1,
            ),
        ),
    ),
    Criterion(
        "pigmentation",
        "pigmentation",
        _states(
            "pigmentation",
            (
                "regular",
                "regular pigmentation",
                ("regular pigmentation, an evenly brown area without structure",),
                ("nv", "bkl"),
                ("mel",),
            ),
            (
                "irregular",
                "irregular pigmentation",
                ("irregular pigmentation, an uneven dark blotch off the centre",),
                ("mel",),
                ("nv",),
                1,
            ),
        ),
    ),
    Criterion(
        "regression_structures",
        "regression structures",
        _states(
            "regression_structures",
            (
                "present",
                "regression structures",
                ("regression structures, white scar-like areas and blue peppering",),
                ("mel", "bkl"),
                ("nv", "vasc"),
                1,
            ),
        ),
    ),
    Criterion(
        "dots_and_globules",
        "dots and globules",
        _states(
            "dots_and_globules",
            (
                "regular",
                "regular dots and globules",
                ("regular dots and globules, round, alike and evenly spread",),
                ("nv",),
                ("mel", "bcc"),
            ),
            (
                "irregular",
                "irregular dots and globules",
                ("irregular dots and globules of many sizes, unevenly spread",),
                ("mel",),
                ("nv",),
                1,
            ),
        ),
    ),
    Criterion(
        "blue_whitish_veil",
        "blue-whitish veil",
        _states(
            "blue_whitish_veil",
            (
                "present",
                "blue-whitish veil",
                ("a blue-whitish veil, a confluent blue area under a white haze",),
                ("mel",),
                ("nv", "bkl"),
                2,
            ),
        ),
    ),
    Criterion(
        "vascular_structures",
        "vascular structures",
        _states(
            "vascular_structures",
            (
                "regular",
                "regular vessels",
                ("regular vascular structures: arborising, comma or hairpin vessels",),
                ("bcc", "bkl", "vasc"),
                ("mel", "df"),
            ),
            (
                "irregular",
                "irregular vessels",
                ("irregular vascular structures: dotted or linear irregular vessels",),
                ("mel", "akiec", "scc"),
                ("nv",),
                2,
            ),
        ),
    ),
    Criterion(
        "negative_network",
        "negative network",
        _states(
            "negative_network",
            (
                "present",
                "negative network",
                ("a negative network, pale serpiginous lines around darker round islands",),
                ("mel",),
                ("bcc",),
            ),
        ),
    ),
    Criterion(
        "milia_like_cysts",
        "milia-like cysts",
        _states(
            "milia_like_cysts",
            (
                "present",
                "milia-like cysts",
                ("milia-like cysts, small round bright white or yellowish dots",),
                ("bkl",),
                ("mel",),
            ),
        ),
    ),
)

# Measured on the lesion mask and the photo's colours, never labelled: the A, B and C of the ABCD rule (Stolz 1994).
MEASURED_CRITERIA: tuple[Criterion, ...] = (
    Criterion(
        "asymmetry",
        "shape",
        _states(
            "asymmetry",
            ("symmetric", "symmetric shape", (), ("nv", "df", "vasc"), ("mel",)),
            ("asymmetric", "asymmetric shape", (), ("mel", "akiec", "scc"), ("nv",)),
        ),
        measured=True,
    ),
    Criterion(
        "border",
        "border",
        _states(
            "border",
            ("regular", "regular border", (), ("nv", "df", "vasc"), ("mel",)),
            ("irregular", "irregular border", (), ("mel", "akiec", "scc"), ("nv",)),
        ),
        measured=True,
    ),
    Criterion(
        "colour",
        "colour",
        _states(
            "colour",
            ("uniform", "uniform colour", (), ("nv", "df"), ("mel",)),
            ("variegated", "several colours", (), ("mel", "bkl"), ("nv",)),
        ),
        measured=True,
    ),
)

MAX_FINDINGS = 9  # that a rationale cites: one digit, so that no reference is the beginning of another
CRITERION_CODES: tuple[str, ...] = tuple(c.code for c in CRITERIA)
CRITERION_BY_CODE: dict[str, Criterion] = {c.code: c for c in (*CRITERIA, *MEASURED_CRITERIA)}
EVIDENCE_STATES: tuple[State, ...] = tuple(s for c in CRITERIA for s in c.states)  # the K maps, in this order
STATE_BY_KEY: dict[str, State] = {s.key: s for c in (*CRITERIA, *MEASURED_CRITERIA) for s in c.states}

# How the probabilities add up to the five groups.
CODE_TO_DERM7PT_GROUP: dict[str, str] = {d.code: d.derm7pt_group for d in DIAGNOSES}

SEXES: tuple[str, ...] = ("female", "male")
# Canonical site -> other words for it found in data sets and in clinics.
SITES: dict[str, tuple[str, ...]] = {
    "scalp": (),
    "face": ("nose", "lip", "cheek", "forehead"),
    "ear": (),
    "neck": (),
    "head or neck": ("head neck", "head/neck", "head and neck", "head neck face"),
    "chest": ("anterior torso",),
    "back": ("posterior torso",),
    "abdomen": (),
    "trunk": ("torso", "lateral torso", "buttocks"),
    "upper extremity": ("upper limbs", "upper limb", "arm", "forearm", "shoulder"),
    "lower extremity": ("lower limbs", "lower limb", "leg", "thigh", "hip"),
    "hand": (),
    "foot": (),
    "palm or sole": ("acral", "palms/soles"),
    "genital": ("genital areas", "oral/genital"),
}
_SITE_LOOKUP: dict[str, str] = {word: site for site, words in SITES.items() for word in (site, *words)}


def canonical_site(text: str | None) -> str | None:
    """The canonical body site for a free word, or None where it is missing, "unknown" or not known.

    >>> canonical_site("lower limbs")
    'lower extremity'
    """
    if text is None:
        return None
    return _SITE_LOOKUP.get(" ".join(str(text).lower().replace("_", " ").split()))
