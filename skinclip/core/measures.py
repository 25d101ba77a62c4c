"""Names of the measures that evaluation reports and model cards quote."""

from __future__ import annotations

# Report key -> (name, what it says). In the order of the page.
MEASURES: dict[str, tuple[str, str]] = {
    "balanced_accuracy": ("Balanced accuracy", "mean recall of the classes present, as in ISIC 2018 Task 3"),
    "balanced_accuracy_argmax": ("Balanced accuracy of the displayed diagnosis", "by the probabilities as shown"),
    "accuracy": ("Accuracy", "share of photos whose most probable diagnosis is right"),
    "auroc_macro": ("AUROC, one against the rest", "mean of the classes present"),
    "auroc_malignant": ("AUROC, malignant against benign", "of P(malignant)"),
    "sensitivity": ("Referral sensitivity", "share of malignant lesions that are referred"),
    "specificity": ("Referral specificity", "share of benign lesions that are not referred"),
    "melanoma_sensitivity": ("Melanoma sensitivity", "share of melanomas diagnosed as such"),
    "melanoma_precision": ("Melanoma precision", "share of melanoma diagnoses that are right"),
    "melanoma_sensitivity_at_90_specificity": (
        "Melanoma sensitivity at 0.9 specificity",
        "at the best threshold on these very photos",
    ),
    "ece": ("Calibration error", "15 equally wide bins of the top probability; lower is better"),
    "ece_noise_floor": (
        "Calibration error of a perfectly calibrated system",
        "on as many photos, by chance alone; low and high are the middle 95 % of the draws",
    ),
    "adaptive_ece": ("Calibration error, adaptive", "15 bins of equally many photos; lower is better"),
    "classwise_ece": ("Calibration error, class by class", "mean over the classes; lower is better"),
    "brier": ("Brier score", "0 to 2; lower is better"),
    "nll": ("Negative log-likelihood", "nats; lower is better"),
    "aurc": ("Area under the risk-coverage curve", "lower is better"),
    "coverage": ("Coverage of the prediction set", "share of photos whose set holds the true diagnosis"),
    "set_size": ("Size of the prediction set", "diagnoses, mean"),
    "lesion_iou": ("Lesion mask, mean IoU", "against the reference mask"),
    "agreement": (
        "Rationale agrees",
        "its first-named diagnosis is the leading one, on a sample of photos; holds by construction where the text is "
        "decoded among texts that are true to the findings",
    ),
    "answered": ("Answered", "share of photos for which the model does not abstain"),
    "accuracy_answered": ("Accuracy where it answers", "of the most probable diagnosis"),
    "accuracy_not_answered": ("Accuracy where it abstains", "of the diagnosis that it would have named first"),
    "in_domain": ("In domain", "share of photos that look like those of training"),
    "diag_accuracy": ("Derm7pt diagnosis, five groups", "accuracy"),
    "criteria_mean_accuracy": ("7-point criteria", "mean accuracy"),
}
