"""The sentences and clauses that a rationale is made of.

Sentences fit findings of either number ("[r1] irregular streaks", "[r1] blue-whitish veil") and need no article before
a reference, so that a decoder can force the phrase that belongs to a reference right after it.
"""

# {lead} and {runner} are diagnosis names, {found} is a list of cited findings and {all} says in
# their number that they count for the leading diagnosis. An opening names no diagnosis before {lead}.
SUPPORTED_OPENINGS = (
    "{lead} is the leading diagnosis , supported by {found} .",
    "the photo shows {found} , a picture that fits {lead} best .",
    "most likely this is {lead} , given {found} .",
    "{found} would speak for {lead} , the leading diagnosis here .",
    "the leading diagnosis is {lead} . the photo shows {found} , {all} .",
    "this looks most like {lead} , mainly because of {found} .",
    "on account of {found} , {lead} comes first .",
    "{lead} ranks first . this rests on {found} , {all} .",
    "the findings point to {lead} , with {found} in the photo .",
    "first in the differential is {lead} , backed by {found} .",
    "with {found} , the lesion is best explained as {lead} .",
    "{lead} is favoured . one can see {found} , {all} .",
    "the photo is most in keeping with {lead} . there one finds {found} , {all} .",
    "{lead} is considered first , in view of {found} .",
)
IN_FAVOUR = {
    1: (
        "a finding in its favour",
        "one sign that favours it",
        "a sign that counts for it",
        "a point that supports it",
        "as one would expect",
    ),
    2: (
        "both in its favour",
        "both of which speak for it",
        "two signs that favour it",
        "two points that support it",
        "as one would expect",
    ),
    3: (
        "all in its favour",
        "all of which speak for it",
        "all signs that favour it",
        "all points that support it",
        "as one would expect",
    ),
}
UNSUPPORTED_OPENINGS = (
    "{lead} is the leading diagnosis , yet no finding in the list supports it .",
    "most likely this is {lead} , judged by the overall appearance rather than by a single finding .",
    "this looks most like {lead} , although none of the cited findings speaks for it .",
    "{lead} comes first on the whole picture , without a finding that supports it .",
    "first in the differential is {lead} ; none of the findings below is in its favour .",
    "the model puts {lead} first , but the findings it can point at do not support this .",
    "{lead} is favoured by the general look of the lesion , not by the findings listed here .",
    "the leading diagnosis is {lead} ; it rests on the overall appearance alone .",
    "{lead} ranks first , even though no cited finding counts for it .",
    "the photo as a whole is most in keeping with {lead} , the single findings are not .",
    "{lead} is considered first , with no finding to back it .",
)
BARE_OPENINGS = (
    "{lead} is the leading diagnosis , judged by the overall appearance alone .",
    "most likely this is {lead} .",
    "this looks most like {lead} on the whole .",
    "{lead} comes first on the whole picture .",
    "first in the differential is {lead} .",
    "the model puts {lead} first .",
    "{lead} is favoured by the general look of the lesion .",
    "the leading diagnosis is {lead} .",
    "{lead} ranks first .",
    "the photo as a whole is most in keeping with {lead} .",
    "{lead} is considered first .",
)
NOTHING_SEEN = (
    "none of the criteria was clearly seen , so there is no finding to point at .",
    "no criterion of the checklist could be seen clearly in this photo .",
    "the photo shows none of the criteria with enough certainty to cite it .",
    "not one of the criteria stands out clearly , and none is cited .",
    "there is no criterion that can be pointed at with confidence .",
    "the checklist stays empty : no criterion was seen clearly .",
    "none of the findings that the model looks for was seen with confidence .",
    "no finding is cited , because no criterion was clearly seen .",
    "a clear criterion could not be found in the photo .",
    "the model looked for every criterion and found none clearly .",
    "as no criterion was clearly seen , nothing can be cited here .",
)
AGAINST = (
    "{found} would argue against {lead}",
    "against {lead} one has to weigh {found}",
    "{found} would be unusual for {lead}",
    "{found} should lower the confidence in {lead}",
    "the presence of {found} makes {lead} less likely",
    "{found} can hardly be explained by {lead}",
    "one would not expect {found} in {lead}",
    "{lead} does not account well for {found}",
    "the photo also shows {found} , at odds with {lead}",
    "a point against {lead} is made by {found}",
    "{found} must be held against {lead}",
)
FOR_RUNNER_UP = (
    "{found} would rather speak for {runner}",
    "for {runner} one could cite {found}",
    "{found} may point to {runner} instead",
    "{found} would fit {runner} better",
    "{runner} could be suggested by {found}",
    "{found} should keep {runner} in mind",
    "the presence of {found} leans towards {runner}",
    "{runner} would explain {found} better",
    "in favour of {runner} there is the finding of {found}",
    "the photo also shows {found} , rather in line with {runner}",
    "{found} might be read as a sign of {runner}",
)
AGAINST_RUNNER_UP = (
    "{found} would make {runner} less likely",
    "{found} would argue against {runner}",
    "one would not expect {found} in {runner}",
    "{runner} does not account well for {found}",
    "{found} must be held against {runner}",
    "the presence of {found} makes {runner} less likely",
    "against {runner} one could cite {found}",
    "{found} can hardly be explained by {runner}",
    "the photo also shows {found} , at odds with {runner}",
    "{found} would be unusual for {runner}",
)
NEUTRAL = (
    "the photo also shows {found} , without deciding between the two",
    "{found} would fit neither better than the other",
    "{found} cannot decide between {lead} and {runner}",
    "one can also see {found} , without weight for either of the two",
    "the presence of {found} leaves open which of the two it is",
    "{found} can do little to tell them apart",
    "one may add {found} , of no help in the choice",
    "{found} may be noted , without bearing on the choice",
    "also in view , with no bearing on the choice , is the finding of {found}",
    "the finding of {found} is neutral here",
    "{found} should not sway the choice between {lead} and {runner}",
)
NEUTRAL_ALONE = (
    "the photo also shows {found} , counting neither for nor against {lead}",
    "{found} would be of no weight here",
    "{found} cannot settle the question",
    "one can also see {found} , without weight for the diagnosis",
    "the presence of {found} neither supports nor opposes {lead}",
    "{found} may be noted , without bearing on the diagnosis",
    "one may add {found} , of no help in the choice",
    "also in view , with no bearing on the diagnosis , is the finding of {found}",
    "the finding of {found} is neutral here",
    "{found} should not sway the diagnosis",
)
# Why the answer is uncertain, where the findings themselves say so ...
ONE_FINDING = (
    "only one finding is cited",
    "this rests on a single finding",
    "a single finding is little to go by",
    "there is just one finding to rely on",
    "one finding alone is weak support",
    "with only one finding the basis is narrow",
    "no second finding confirms this",
    "the support is thin , as it is a single sign",
    "one sign by itself proves little",
    "there is little else to point at",
)
MIXED = (
    "the findings do not all point the same way",
    "the signs disagree",
    "the findings are mixed",
    "there are signs on both sides",
    "the picture is not clear-cut",
    "the evidence is divided",
    "the findings leave room for doubt",
    "not every finding agrees",
    "the findings pull in different directions",
    "the case is not free of contradiction",
)
SHARED = (
    "what speaks for it would also fit {runner}",
    "the supporting findings are shared by {runner}",
    "the same signs can be found in {runner}",
    "nothing cited in its favour sets it apart from {runner}",
    "{runner} may look just the same in these points",
    "the cited support is common to {runner} as well",
    "these signs are also known from {runner}",
    "{runner} has the same points in its favour",
    "in these points {runner} looks alike",
    "the support does not separate it from {runner}",
)
# ... and what stays open in any case.
RUNNER_UP_OPEN = (
    "{runner} is not excluded",
    "{runner} remains possible",
    "{runner} cannot be ruled out",
    "the main alternative is {runner}",
    "{runner} is the next to consider",
    "second in the differential is {runner}",
    "{runner} stays in the differential",
    "it is uncertain whether this could be {runner}",
    "there is still room for {runner}",
    "{runner} should be kept in mind",
    "what is seen here does not exclude {runner}",
)
OPEN = (
    "the photo alone is no proof",
    "some doubt remains",
    "other diagnoses are not excluded",
    "the answer remains uncertain",
    "this cannot be settled by a photo alone",
    "an examination of the patient has to confirm this",
    "the diagnosis is not certain",
    "a photo cannot give certainty",
    "other causes remain possible",
    "it needs to be confirmed by a clinician",
)
EXTRA = (
    "this should be confirmed by a clinician",
    "certainty needs histology",
    "how certain this is must be judged by a clinician",
    "the photo alone is no proof",
    "an examination of the patient has to settle this",
    "the answer remains uncertain",
    "a photo cannot give certainty",
    "so the answer should be read with caution",
    "some doubt remains",
    "only histology could decide",
)
CLAUSE_JOINS = (" ; ", " , and ", " , while ", " , whereas ")
DOUBT_JOINS = (" , and ", " ; ")
BUT = ("however , ", "on the other hand , ", "in contrast , ", "yet ", "but ", "at the same time , ")
PAIR_JOINS = (" and ", " as well as ", " together with ", " plus ", " along with ")
LAST_JOINS = (" and ", " and also ", " as well as ", " , and ", " plus ")

# Clauses on a runner-up that lies outside the prediction set: they rank it, and do not say that it remains possible.
RUNNER_UP_RANKED = (
    "the main alternative is {runner}",
    "{runner} is the next to consider",
    "second in the differential is {runner}",
)
FOR_RUNNER_UP_RANKED = tuple(text for text in FOR_RUNNER_UP if "in mind" not in text)
EXTRA_RANKED = tuple(text for text in EXTRA if "histology" not in text)
