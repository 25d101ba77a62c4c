"""The Consistency-aware Focal Alignment (CFA) loss: what stage 2 of training minimises.

    CFA       = focal + w_align * alignment + w_cal * calibration + w_con * consistency + w_lang * language
    focal     = mean_i  a[y_i] * (1 - p_i[y_i])^gamma * CE(q_i, p_i),  p_i = softmax(z_i + tau * log pi)
                pi[c] = n_c / n, the classes' shares of the training photos: logit adjustment (Menon et al. 2021)
                a[c] ~ (1 - beta) / (1 - beta^n_c), mean 1 over classes; q_i is the smoothed one-hot label
    alignment = w_contrast * contrast + w_criteria * criteria + w_outside * outside
      contrast = mean_i -log( sum_{d in D[y_i]} exp(cos(v_i, d) / t) / sum_{d in all D} exp(cos(v_i, d) / t) )
                 v_i: lesion-pooled tokens; D[c]: description embeddings of diagnosis c
      criteria = mean of -log(probability of the states that a label leaves possible) over labelled (photo, criterion)
                 pairs, each by its label's weight; softmax over [0 for absent, score of each state]
      outside  = mean over maps m of sum((m + eps) * (1 - lesion)) / sum(m + eps)
    calibration = mean_c | mean p[c] - mean 1[y = c] | over this batch and a queue of recent predictions, p as in focal
    consistency = w_views * JS(p, p of a second view) + w_spelled * JS(stopgrad p, diagnosis the rationale spells)
    language  = next-token cross-entropy on rationale tokens, computed by the language model itself

CFA is named in the SkinCLIP-VL paper (arXiv 2603.21010), whose exact formula and code are not public: this one is
our own. Habits shared by all parts: each is an `nn.Module` that can be read and tested alone; -1 is a missing label;
rows whose label is missing are dropped before any arithmetic, so they change neither value nor gradient; a batch with
nothing to learn from gives 0 that still has a gradient graph; half precision is computed in float32.
"""

from skinclip.training.losses.alignment import AlignmentLoss, CriterionLoss, OutsideMass, RegionTextContrast
from skinclip.training.losses.calibration import CalibrationLoss
from skinclip.training.losses.cfa import CFAInputs, CFALoss
from skinclip.training.losses.checks import MISSING
from skinclip.training.losses.consistency import ConsistencyLoss, js
from skinclip.training.losses.criterion_targets import MOST_STATES, CriterionTargets
from skinclip.training.losses.focal import FocalLoss, class_balanced_weights, log_shares, prior_tilt

__all__ = [
    "MISSING",
    "MOST_STATES",
    "AlignmentLoss",
    "CFAInputs",
    "CFALoss",
    "CalibrationLoss",
    "ConsistencyLoss",
    "CriterionLoss",
    "CriterionTargets",
    "FocalLoss",
    "OutsideMass",
    "RegionTextContrast",
    "class_balanced_weights",
    "js",
    "log_shares",
    "prior_tilt",
]
