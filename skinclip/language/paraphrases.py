"""Paraphrases of the diagnoses' descriptions, from which the compact text tower learns its language.

The three fixed descriptions of each diagnosis (`vocabulary.DIAGNOSES`) alone would teach a text tower those sentences
and nothing else: in other words, the same diagnosis would be embedded elsewhere. So stage 0 also reads sentences that
are put together anew at every step from names, signs and frames, with some of their words left out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE

WORD_DROPOUT = 0.1
UNNAMED = 0.3  # share of sentences that leave the diagnosis itself unsaid


@dataclass(frozen=True)
class Vocabulary:
    """Words for one diagnosis: its names, the signs it shows, and nouns that refer to it without naming it."""

    names: tuple[str, ...]
    signs: tuple[str, ...]
    nouns: tuple[str, ...]


VOCABULARY: dict[str, Vocabulary] = {
    "akiec": Vocabulary(
        (
            *("actinic keratosis", "solar keratosis", "an actinic keratosis", "bowen's disease", "bowen disease"),
            *("intraepithelial carcinoma", "intraepidermal carcinoma", "squamous cell carcinoma in situ"),
            *("carcinoma in situ of the epidermis", "bowenoid keratosis", "pigmented actinic keratosis"),
            *("sun-induced keratosis", "precancerous keratosis", "keratinocyte carcinoma in situ"),
        ),
        (
            *("a scaly surface", "adherent white scale", "yellowish scale", "rough hyperkeratosis", "crusts"),
            *("a strawberry pattern", "a red pseudonetwork", "erythema", "a pink to red background"),
            *("dotted vessels", "coiled vessels", "glomerular vessels in clusters", "rosettes", "keratin plugs"),
            *("widened follicular openings with targets", "surrounding sun damage", "a sandpaper-like feel"),
            *("an ill-defined margin", "slate-grey dots in lines", "pinpoint vessels"),
        ),
        (
            *("a scaly red macule", "a rough erythematous plaque", "a keratotic patch on sun-damaged skin"),
            *("a pink scaling plaque", "a flat rough spot on the face or scalp", "a dysplastic keratinocytic lesion"),
            "a sharply outlined red scaly plaque",
        ),
    ),
    "bcc": Vocabulary(
        (
            *("basal cell carcinoma", "a basal cell carcinoma", "bcc", "basalioma", "a rodent ulcer"),
            *("nodular basal cell carcinoma", "superficial basal cell carcinoma", "basal cell cancer"),
            *("pigmented basal cell carcinoma", "a basal cell epithelioma", "non-melanoma skin cancer of basal type"),
        ),
        (
            *("arborising vessels", "arborizing telangiectasia", "tree-like vessels", "fine short telangiectasias"),
            *("blue-grey ovoid nests", "blue-gray globules", "leaf-like areas", "maple leaf-like structures"),
            *("spoke-wheel areas", "shiny white structures", "white blotches and strands", "ulceration"),
            *("small erosions", "a pearly border", "a raised rolled rim", "translucency", "no pigment network"),
            *("concentric structures", "a central crater", "sharply focused branching vessels", "a waxy surface"),
        ),
        (
            *("a pearly nodule", "a translucent papule", "a shiny pink nodule", "a pearly ulcerated tumour"),
            *("a skin-coloured glossy papule", "a locally invasive epithelial tumor", "a pink shiny plaque"),
        ),
    ),
    "bkl": Vocabulary(
        (
            *("benign keratosis", "seborrheic keratosis", "seborrhoeic keratosis", "a seborrheic wart"),
            *("solar lentigo", "a senile lentigo", "lichen planus-like keratosis", "lichenoid keratosis"),
            *("a keratosis of seborrheic type", "verruca seborrhoica", "an age spot", "a benign lichenoid keratosis"),
            *("sun lentigo", "lplk", "a liver spot", "a pigmented benign keratosis"),
        ),
        (
            *("milia-like cysts", "white horn cysts", "comedo-like openings", "crypts", "fissures and ridges"),
            *("a cerebriform surface", "a brain-like pattern", "fat fingers", "fingerprint-like structures"),
            *("a moth-eaten border", "a sharp demarcation", "hairpin vessels with a white halo", "a waxy surface"),
            *("a stuck-on appearance", "verrucous texture", "greyish granularity", "light brown parallel lines"),
            *("keratin plugs", "a dull crumbly surface", "coarse grey peppering", "gyri and sulci"),
        ),
        (
            *("a stuck-on brown plaque", "a warty greasy papule", "a sharply bordered brown macule"),
            *("a harmless rough growth of older skin", "a verrucous tan plaque", "a benign epidermal growth"),
            *("a waxy brown keratotic lesion", "a flat evenly tan sun spot"),
        ),
    ),
    "df": Vocabulary(
        (
            *("dermatofibroma", "a dermatofibroma", "benign fibrous histiocytoma", "a fibrous histiocytoma"),
            *("histiocytoma", "a cutaneous fibrous histiocytoma", "dermal fibroma", "a benign dermal fibrous nodule"),
        ),
        (
            *("a central white patch", "a scar-like centre", "a white center", "a delicate peripheral network"),
            *("a fine light brown network around it", "a central white network", "ring-like globules"),
            *("a dimple on pinching", "firmness", "a pale centre", "a brown rim", "peripheral pigmentation"),
            *("crystalline white lines in the centre", "a pinkish middle", "central scarring with a thin mesh outside"),
        ),
        (
            *("a firm brown papule", "a firm nodule on the leg", "a hard button-like papule"),
            *("a small firm tan nodule that dimples", "a firm fibrous nodule", "a benign fibrous skin tumour"),
        ),
    ),
    "mel": Vocabulary(
        (
            *("melanoma", "malignant melanoma", "a melanoma", "superficial spreading melanoma", "melanoma in situ"),
            *("lentigo maligna", "nodular melanoma", "invasive melanoma", "cutaneous melanoma", "black skin cancer"),
            *("an early melanoma", "lentigo maligna melanoma", "acral melanoma"),
        ),
        (
            *("an atypical pigment network", "an irregular broadened network", "a blue-whitish veil"),
            *("a blue-white veil", "irregular streaks", "pseudopods", "radial streaming", "irregular dots"),
            *("irregular globules", "regression structures", "white scar-like areas", "peppering"),
            *("several colours", "many colors", "asymmetry of colour and structure", "an irregular border"),
            *("irregular blotches", "off-centre dark blotches", "a negative network", "shiny white streaks"),
            *("atypical vessels", "milky red areas", "a notched edge", "black, brown, blue and red areas"),
            *("chaotic architecture", "recent change in size", "disorder of pattern", "uneven pigmentation"),
        ),
        (
            *("an asymmetric multicoloured lesion", "a malignant pigmented lesion", "a dark irregular tumour"),
            *("an irregular changing pigmented lesion", "a malignant melanocytic tumor", "a chaotic pigmented lesion"),
            *(
                "a malignant tumour of melanocytes",
                "an ugly duckling lesion",
                "a lesion most suspicious of cancer",
            ),
        ),
    ),
    "nv": Vocabulary(
        (
            *("melanocytic nevus", "melanocytic naevus", "a nevus", "a naevus", "a mole", "a benign mole"),
            *("a compound nevus", "junctional nevus", "dermal nevus", "an intradermal naevus", "clark nevus"),
            *("a common mole", "a birthmark mole", "congenital nevus", "a blue nevus", "spitz nevus", "reed nevus"),
            *("a benign melanocytic lesion", "a benign nevus", "dysplastic nevus", "an acquired mole"),
        ),
        (
            *("a typical pigment network", "a regular reticular pattern", "regular globules", "a cobblestone pattern"),
            *("a uniform network fading at the edge", "even pigmentation", "symmetry of colour and structure"),
            *("a smooth border", "one or two shades of brown", "homogeneous pigmentation", "comma vessels"),
            *("regular dots in the centre", "a globular pattern", "evenly spread brown globules", "a round outline"),
            *("a starburst of regular streaks", "homogeneous steel-blue colour", "no sign of malignancy"),
            *("a stable appearance", "an orderly pattern", "a well-defined regular edge", "a single colour"),
        ),
        (
            *("a symmetric brown macule", "a small evenly brown papule", "a benign pigmented lesion"),
            *("a harmless pigmented spot", "a uniform tan spot", "a regular benign pigmented lesion"),
            *("a round symmetric evenly coloured lesion", "an innocent pigmented papule"),
        ),
    ),
    "vasc": Vocabulary(
        (
            *("vascular lesion", "angioma", "an angioma", "haemangioma", "hemangioma", "cherry angioma"),
            *("angiokeratoma", "a senile angioma", "pyogenic granuloma", "haemorrhage", "hemorrhage"),
            *("subcorneal haematoma", "a blood vessel growth", "a campbell de morgan spot", "a venous lake"),
            *("a capillary haemangioma", "a benign vascular proliferation", "lobular capillary hemangioma"),
        ),
        (
            *("red lacunae", "red lagoons", "purple lacunas", "dark red to black lacunae", "red-blue clods"),
            *("well-defined red lagoons", "a red homogeneous area", "a whitish veil over dark lacunae"),
            *("septa between red lagoons", "bluish-red lakes", "blood-filled spaces", "a bright red colour"),
            *("haemorrhagic crust", "no pigment network", "reddish-black homogeneous pigment", "blanching on pressure"),
            *("a white collarette", "purple colour", "maroon clods"),
        ),
        (
            *("a bright red papule", "a red-purple dome-shaped papule", "a benign growth of blood vessels"),
            *("a dark red vascular papule", "a red-blue compressible lesion", "a collection of dilated vessels"),
            "blood under the skin",
        ),
    ),
    "scc": Vocabulary(
        (
            *("squamous cell carcinoma", "an invasive squamous cell carcinoma", "scc", "keratoacanthoma"),
            *("a keratoacanthoma", "well differentiated squamous cell carcinoma", "cutaneous squamous cell cancer"),
            *("spinalioma", "epidermoid carcinoma", "a squamous cell cancer of the skin"),
        ),
        (
            *("a central keratin mass", "white circles", "white structureless areas", "blood spots", "ulceration"),
            *("looped vessels", "hairpin vessels", "serpentine vessels", "a crateriform centre"),
            *("thick scale and crust", "a white halo around vessels", "an indurated base", "a keratin horn"),
            *("a red raised rim", "bleeding"),
        ),
        (
            *("a keratotic nodule", "a rapidly growing nodule", "a crusted ulcerated tumour"),
            *("a hyperkeratotic plaque", "a firm red nodule with a plug", "an invasive keratinocyte tumour"),
        ),
    ),
    "other": Vocabulary(
        (
            *("another diagnosis", "none of the listed tumours", "an inflammatory lesion", "a scar", "an infection"),
            *("a viral wart", "eczema", "psoriasis", "a cyst", "lichen planus", "an adnexal tumour", "a rare tumour"),
            *("sebaceous hyperplasia", "a neurofibroma", "folliculitis", "an unusual benign lesion"),
        ),
        (
            *("uniform redness", "dotted vessels spread evenly", "yellowish structures", "a central pore"),
            *("fine scale", "a scar-like surface", "crown vessels around yellow lobules", "papillomatous surface"),
            *("black dots of blood",),
            *("no specific pattern", "crusts after scratching", "white lines crossing", "a skin-coloured dome"),
        ),
        (
            *("an inflamed patch", "a skin-coloured papule", "a lesion of another kind", "a red scaly patch"),
            *("an unspecific papule", "a benign lesion not among the common ones"),
        ),
    ),
}
NAMED = (
    *("{name}", "a dermoscopy photo of {name}", "dermoscopic image of {name}", "{name} on dermoscopy"),
    *("a photo of {name}", "clinical close-up of {name}", "this looks like {name}", "suspected {name}"),
    *("a case of {name}", "most likely {name}", "lesion consistent with {name}", "typical {name}"),
)
NAMED_WITH_SIGNS = (
    *("{name} with {signs}", "{name} showing {signs}", "{name}: {signs}", "{name}, {signs}"),
    *("a dermoscopy photo of {name} with {signs}", "dermoscopy of {name} reveals {signs}"),
    *("{signs}, typical of {name}", "{signs}, in keeping with {name}", "{signs} suggest {name}"),
    *("{noun}, {name}, with {signs}", "{noun} with {signs}, {name}", "{name} presenting as {noun}"),
    *("there is {signs}; the diagnosis is {name}", "{name}, seen as {noun} with {signs}"),
)
UNNAMED_FRAMES = (
    *("{noun} with {signs}", "{noun} showing {signs}", "dermoscopy shows {signs}", "{signs} in {noun}"),
    *("a lesion with {signs}", "{noun}: {signs}", "one sees {signs}", "{noun}, {signs}", "{signs}"),
)


def write_description(code: str, rng: random.Random, vocabularies: Mapping[str, Vocabulary] = VOCABULARY) -> str:
    """A sentence about the diagnosis `code`, put together at random; some of its words may be left out.

    Of a diagnosis that has no entry in `vocabularies` it is one of the fixed descriptions.
    """
    if code not in vocabularies and code in DIAGNOSIS_BY_CODE:
        return _with_dropout(rng.choice(DIAGNOSIS_BY_CODE[code].descriptions), rng)
    vocabulary = vocabularies[code]
    signs = rng.sample(vocabulary.signs, rng.choice((1, 2, 2, 3)))
    if rng.random() < UNNAMED:
        frame = rng.choice(UNNAMED_FRAMES)
        signs = signs if len(signs) > 1 else rng.sample(vocabulary.signs, 2)  # one sign alone is several diagnoses'
    else:
        frame = rng.choice(NAMED if rng.random() < 0.3 else NAMED_WITH_SIGNS)
    text = frame.format(name=rng.choice(vocabulary.names), noun=rng.choice(vocabulary.nouns), signs=_listed(signs, rng))
    return _with_dropout(text, rng)


def _with_dropout(text: str, rng: random.Random) -> str:
    """The text less some of its words, never all."""
    words = text.split()
    kept = [w for w in words if rng.random() >= WORD_DROPOUT]
    return " ".join(kept or words)


def describe(code: str, count: int, rng: random.Random) -> list[str]:
    """`count` different-looking texts about `code`: one of its fixed descriptions, the others made up."""
    fixed = rng.choice(DIAGNOSIS_BY_CODE[code].descriptions)
    return [fixed, *(write_description(code, rng) for _ in range(count - 1))]


def _listed(parts: list[str], rng: random.Random) -> str:
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])}{rng.choice((' and ', ', ', ' plus '))}{parts[-1]}"
