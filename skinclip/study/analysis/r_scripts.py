"""R scripts that repeat the main analyses with other people's software, for a reviewer who wants to see it twice.

`crossed_model.R` fits the primary model with lme4 and lmerTest and prints our figures beside theirs. `mrmc.R` compares
the areas under the readers' ROC curves with iMRMC and MRMCaov. Both read the exported tables and say what is missing
where a package is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinclip import RESEARCH_USE_ONLY
from skinclip.study.analysis.tables import StudyTables

_CROSSED = r"""# Run it in this folder: Rscript crossed_model.R
# The primary and the safety endpoint by arm and stratum, random effects of reader, case, reader x arm and case x arm.
for (package in c("lme4", "lmerTest")) if (!requireNamespace(package, quietly = TRUE))
  stop("install.packages('", package, "') first")
suppressPackageStartupMessages(library(lmerTest))

cases <- read.csv("../data/cases.csv", check.names = FALSE, na.strings = c("", "NA"))
cases <- cases[tolower(cases[["repeat"]]) == "false" & cases$stratum != "ood", ]
known <- !is.na(cases$truth) & !is.na(cases$diagnosis_before) & !is.na(cases$diagnosis_after)

# deserved: an arm's figure is its mean where the AI is right less its mean where it errs; readers differ in that too.
contrast <- function(outcome, arm, reference, deserved = FALSE) {{
  d <- cases
  d$outcome <- outcome
  d <- d[!is.na(d$outcome), ]
  # Strata are averaged at their shares in practice: the sum of the sampling weights of their cases.
  of_case <- d[!duplicated(d$case), ]
  shares <- tapply(of_case$weight, of_case$stratum, sum) / sum(of_case$weight)
  if (deserved) shares <- c(right = 1, wrong = -1)
  d$cell <- factor(paste(d$arm, d$stratum, sep = "|"))
  if (nlevels(d$cell) < length(unique(d$arm)) * length(unique(d$stratum)))
    stop("an arm has no answers in one stratum: see the report")
  model <- "outcome ~ 0 + cell + (1 | reader) + (1 | case) + (1 | reader:arm) + (1 | case:arm)"
  if (deserved) model <- paste(model, "+ (1 | reader:stratum) + (1 | reader:arm:stratum)")
  if ("patient" %in% names(d) && any(duplicated(na.omit(of_case$patient)))) {{
    d$patient <- ifelse(is.na(d$patient), paste("case", d$case), d$patient)
    model <- paste(model, "+ (1 | patient)")
  }}
  if (length(unique(d$block)) > 1) {{
    # Blocks as centred indicators, so that a cell's effect is its mean over the session.
    d$blocks <- scale(model.matrix(~ factor(block), d)[, -1, drop = FALSE], scale = FALSE)
    model <- sub("cell", "cell + blocks", model, fixed = TRUE)
  }}
  if ("session" %in% names(d) && length(unique(d$session)) > 1) {{
    # A reader's two answers to a case share an effect; the second session is a centred indicator.
    d$second <- as.numeric(d$session == 2) - mean(d$session == 2)
    model <- paste(sub("cell", "cell + second", model, fixed = TRUE), "+ (1 | reader:case)")
  }}
  if (nlevels(d$cell) == 1) model <- sub("0 + cell", "1", model, fixed = TRUE)
  fit <- lmer(as.formula(model), data = d, REML = TRUE)
  weights <- setNames(rep(0, length(fixef(fit))), names(fixef(fit)))
  for (s in names(shares)) {{
    weights[paste0("cell", arm, "|", s)] <- shares[s]
    weights[paste0("cell", reference, "|", s)] <- -shares[s]
  }}
  print(VarCorr(fit), comp = "Variance")
  print(contest1D(fit, weights, confint = TRUE, level = 1 - {alpha}))
}}

cat("Primary endpoint: {endpoint}\n")
contrast({outcome}, "{arm}", "{reference}", deserved = {deserved})
cat("\nThis study's report, for comparison:\n{ours}\n")

cat("\nSafety endpoint: switch to wrong where the AI errs\n")
switched <- ifelse(known & cases$ai_leading != cases$truth,
  as.numeric(cases$diagnosis_before == cases$truth & cases$diagnosis_after != cases$truth), NA)
if (sum(switched, na.rm = TRUE) > 0) {{
  contrast(switched, "{safety_arm}", "{safety_reference}")
}} else cat("no switch to wrong\n")
cat("\nThis study's report, for comparison:\n{ours_safety}\n")
"""

_MRMC = r"""# Run it in this folder: Rscript mrmc.R
# Area under the readers' ROC curves, malignant against benign; the score is 50 +- confidence / 2 (data dictionary).
# Written to the documented interfaces of iMRMC 2.1.0 (doAUCmrmc, dfMRMC_example) and MRMCaov 0.3.0 (mrmc, summary), on
# CRAN both. This script is tested to parse and to hand over data of the documented form; with the packages themselves
# it was not run.
scores <- read.csv("../data/mrmc.csv")
found <- FALSE

if (requireNamespace("iMRMC", quietly = TRUE)) {
  # U-statistics, which allow that each reader saw each case in one arm only. Pure R from version 2.0 on.
  truth <- unique(scores[, c("case", "malignant")])
  input <- rbind(
    data.frame(readerID = "truth", caseID = truth$case, modalityID = "truth", score = truth$malignant),
    data.frame(readerID = scores$reader, caseID = scores$case, modalityID = scores$modality, score = scores$score)
  )
  for (column in c("readerID", "caseID", "modalityID")) input[[column]] <- factor(input[[column]])
  result <- try(iMRMC::doAUCmrmc(input))
  if (!inherits(result, "try-error")) print(result$Ustat.full)
  found <- TRUE
}

if (requireNamespace("MRMCaov", quietly = TRUE)) {
  # Obuchowski and Rockette want every reader to read every case in every test. Unaided against aided (whichever aid)
  # is such a design; arms against each other are not. Readers who stopped are left out, then cases that one left out.
  suppressPackageStartupMessages(library(MRMCaov))
  scores$test <- ifelse(scores$modality == "unaided", "unaided", "aided")
  both <- table(scores$reader, scores$case) == 2
  readers <- rownames(both)[rowMeans(both) >= 0.9]
  cases <- colnames(both)[colSums(both[readers, , drop = FALSE]) == length(readers)]
  d <- scores[scores$reader %in% readers & scores$case %in% cases, ]
  cat(length(readers), "readers and", length(cases), "cases, each read unaided and aided\n")
  result <- try(mrmc(empirical_auc(malignant, score), test, reader, case, data = d))
  if (!inherits(result, "try-error")) print(summary(result))
  found <- TRUE
}

if (!found) cat("Neither iMRMC nor MRMCaov is installed: install.packages('MRMCaov') or install.packages('iMRMC')\n")
"""


def scripts(tables: StudyTables, analysis: Mapping[str, Any]) -> dict[str, str]:
    """File name -> R script."""
    plan, endpoint = analysis["plan"], analysis["primary_endpoint"]
    crossed = _CROSSED.format(
        endpoint=plan["endpoint"],
        outcome=_outcome(endpoint),
        alpha=plan["alpha"],
        deserved="TRUE" if endpoint["deserved"] else "FALSE",
        ours=_ours(analysis["primary"]),
        ours_safety=_ours(analysis["safety"]),
        safety_arm=plan["safety"]["arm"],
        safety_reference=plan["safety"]["reference"],
        **plan["primary"],
    )
    head = f"# {' '.join(filter(None, (tables.mark, RESEARCH_USE_ONLY)))}\n"
    return {"crossed_model.R": head + crossed, "mrmc.R": head + _MRMC}


def _ours(result: Mapping[str, Any]) -> str:
    """A result of the report as a line of text inside an R string."""
    if "not_estimable" in result:
        return f"not estimable: {result['not_estimable']}".replace('"', "'")
    p = f", p {result['p']:.3g}" if "p" in result else ""
    words = f"estimate {result['value']:.5f}, standard error {result['error']:.5f}, df {result['degrees']:.2f}, "
    return f"{words}interval {result['low']:.5f} to {result['high']:.5f}{p}"


_RATES = {  # outcomes made of the diagnoses, as R computes them from the exported table
    "right": "ifelse(known, as.numeric(cases$diagnosis_after == cases$truth), NA)",
    "followed": "ifelse(known & cases$diagnosis_before != cases$ai_leading, "
    "as.numeric(cases$diagnosis_after == cases$ai_leading), NA)",
}


def _outcome(endpoint: Mapping[str, Any]) -> str:
    """The outcome as R computes it from the exported table."""
    if endpoint["rate"]:
        return _RATES[endpoint["rate"]]
    columns = [f'cases[["{endpoint[name]}"]]' for name in ("column", "minus") if endpoint[name]]
    return " - ".join(columns)
