"""Names of diagnoses as archives write them -> codes of the vocabulary, by rules in a fixed order.

The names are those of the ISIC archive (`diagnosis_1` to `diagnosis_5`, from the group to the most specific), of
ISIC 2020 and of MILK10k. A name that only says benign or malignant, or a lentigo of unstated kind, has no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Read from above: the first rule that fits the most specific name decides.
_RULES: tuple[tuple[str, str | None], ...] = (
    (r"squamous cell carcinoma in situ|bowen|intraepi(thelial|dermal) carcinoma", "akiec"),
    (r"squamous cell carcinoma|kerato ?acanthoma", "scc"),
    (r"basal cell carcinoma", "bcc"),
    (r"actinic (keratosis|cheilitis)", "akiec"),
    (r"melanoma", "mel"),
    (r"not melanocytic", "other"),
    (r"n(a)?evus (sebaceus|sebaceous|anemicus|depigmentosus|lipomatosus|comedonicus)", "other"),
    (r"(epidermal|becker|sebaceous|connective tissue|organoid|eccrine) n(a)?evus", "other"),
    (r"n(a)?ev(us|i)\b", "nv"),
    (
        r"seborrh?oeic keratosis|seborrheic keratosis|solar lentigo|lentigo solaris|stucco|pigmented benign keratosis",
        "bkl",
    ),
    (r"lichen planus[- ]like keratosis|lichenoid keratosis", "bkl"),
    (r"dermatofibroma|fibrous histiocytoma", "df"),
    (r"angioma|angiokeratoma|pyogenic granuloma|vascular|h(a)?emorrhage|lymphangioma|telangiectas", "vasc"),
    (r"lentigo|atypical melanocytic proliferation|melanocytic proliferation", None),
)
_ALONE = re.compile(r"benign|malignant|indeterminate|indeterminate/benign|indeterminate/malignant")


def code_of(names: Iterable[str | None]) -> str | None:
    """The code of the most specific of names given from the group to the most specific; None where none says enough.

    >>> code_of(["Malignant", "Malignant epidermal proliferations", "Squamous cell carcinoma, Invasive"])
    'scc'
    """
    given = [" ".join(name.lower().split()) for name in names if name]
    given = [name for name in given if not _ALONE.fullmatch(name)]
    for name in reversed(given):
        for pattern, code in _RULES:
            if re.search(pattern, name):
                return code
    return "other" if given else None
