# ruff: noqa: E501  (others' sentences stay on one line each)
"""Descriptions of the diagnoses in words of others, for measuring how far an answer hangs on the wording.

Written without knowledge of the descriptions and the vocabulary that training reads (`vocabulary`, `language.paraphrases`), and
not changed after the weights were measured with them. Those of `scc` and `other` came later, from someone who knew both.
"""

from __future__ import annotations

PARAPHRASES: dict[str, tuple[str, ...]] = {
    "akiec": (
        "rough, gritty actinic keratosis on chronically sun-damaged skin, easier to feel than to see",
        "well-demarcated scaly red plaque on the lower leg, clinically typical of bowen's disease",
        "dermoscopy shows clustered glomerular vessels and surface scale, in keeping with squamous cell carcinoma in situ",
        "strawberry pattern of the face: pink pseudonetwork around white, keratin-filled follicles, as seen in solar keratosis",
        "just another sun spot of the precancerous sort, an ak on the bald scalp that wants freezing",
        "ill-defined erythematous patch with adherent yellowish-white scale on a weathered forehead, sandpapery to the touch",
    ),
    "bcc": (
        "pearly nodule with a rolled edge and central ulceration, a textbook rodent ulcer of the nasal ala",
        "dermoscopic image of pigmented basal cell carcinoma with leaf-like areas and blue-grey ovoid nests",
        "thin pink plaque on the trunk with fine telangiectasia and tiny erosions, consistent with superficial bcc",
        "shiny translucent papule crossed by sharply focused branching vessels, bleeds now and then and never quite heals",
        "looks like a nodular basal cell to me, all arborizing vessels and that waxy sheen",
        "scar-like, ivory-colored, poorly marginated plaque on the cheek representing morphoeic basal cell carcinoma",
    ),
    "bkl": (
        "stuck-on, warty brown plaque with a greasy surface, classic for a seborrhoeic keratosis",
        "dermoscopy: multiple milia-like cysts and comedo-like openings, diagnostic of seborrheic keratosis",
        "flat, evenly tan solar lentigo on the dorsal hand with a sharp, moth-eaten border",
        "lichen planus-like keratosis in regression, with coarse grey granules scattered over a pinkish-brown background",
        "waxy, cerebriform surface of fissures and ridges with plugged crypts, sharply cut off from the surrounding skin",
        "nothing to worry about, this is a benign keratosis, one of those barnacles we all collect with age",
    ),
    "df": (
        "firm brownish dermatofibroma on the shin that dimples when pinched between finger and thumb",
        "central white scar-like patch encircled by a delicate peripheral pigment network, the usual dermoscopic signature of dermatofibroma",
        "benign fibrous histiocytoma presenting as a small, hard, dusky-pink papule tethered to the overlying epidermis",
        "button-like tan nodule of the leg with a pale centre and a faint, fading brown rim",
        "probably just a dermatofibroma after an old insect bite, hard as a lentil and unchanged for years",
        "impression: histiocytoma cutis, solitary, 6 mm, hyperpigmented halo, positive dimple sign, reassured",
    ),
    "mel": (
        "asymmetrical, multicoloured lesion with a notched border, highly suspicious for malignant melanoma",
        "dermoscopy reveals an atypical network, irregular streaks and a blue-white veil, features of invasive melanoma",
        "superficial spreading melanoma with uneven shades of brown, black and gray and an area of regression",
        "ugly duckling on the back: jet-black and slate-blue blotches, ragged outline, recently enlarging",
        "i'd have this one out this week, it's a melanoma until the pathologist says otherwise",
        "lentigo maligna of the cheek, a slowly expanding patch with rhomboidal structures and asymmetrically pigmented follicles",
    ),
    "nv": (
        "symmetrical brown mole with a regular outline and uniform color, stable on follow-up",
        "compound melanocytic naevus displaying an orderly globular pattern that fades evenly towards the periphery",
        "junctional nevus, flat and small, with a regular honeycomb network thinning out at the margin",
        "soft, dome-shaped, flesh-toned intradermal naevus bearing a couple of coarse terminal hairs",
        "small round evenly pigmented macule, two shades of brown at most, neat edges and no disorder",
        "perfectly ordinary-looking benign mole, matches all the others on his back, leave it alone",
    ),
    "vasc": (
        "bright red cherry angioma on the trunk, a smooth dome made up of well-defined lacunae",
        "dermoscopy of a solitary angiokeratoma: dark violaceous lagoons beneath a whitish veil and haemorrhagic crust",
        "homogeneous purple-black area with satellite droplets at the edge, subcorneal hemorrhage on the heel after sport",
        "well-circumscribed red-to-blue clods separated by pale septa, with no pigment network anywhere",
        "campbell de morgan spot, the little ruby-coloured bump patients notice from middle age onwards",
        "benign vascular lesion, compressible and maroon, likely a haemangioma composed of dilated capillaries",
    ),
    "scc": (
        "indurated hyperkeratotic lump on the lower lip of a lifelong smoker, biopsy proven invasive scc",
        "dermoscopy of cutaneous squamous cell carcinoma: targetoid hair follicles, amorphous keratin and glomerular vessels at the rim",
        "volcano-like keratoacanthoma that shot up within six weeks, a horny core in a fleshy collar",
        "non-healing sore with heaped-up edges on the back of the hand, tender when pressed",
        "i would call this a squame, all scale and blood on a thick pink base",
        "poorly differentiated epidermoid tumour, mostly red, hardly any keratin left, ulcerating",
    ),
    "other": (
        "discoid dermatitis of the shin, itchy, with weeping and coarse scale",
        "none of the usual neoplasms, dermoscopy only shows evenly distributed pinpoint vessels as in psoriasis",
        "plantar verruca with thrombosed capillaries interrupting the skin lines",
        "old surgical scar, pale, flat and shiny, nothing growing in it",
        "something else altogether, perhaps a neurofibroma or an adnexal growth, soft and flesh-toned",
        "enlarged oil glands around a central dell on the cheek of an older man",
    ),
}
