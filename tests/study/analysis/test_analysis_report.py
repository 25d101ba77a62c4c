import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pypdfium2
import pytest

from skinclip import RESEARCH_USE_ONLY
from skinclip.reporting import pdf_pages
from skinclip.reporting.document import Table, tied
from skinclip.reporting.html_page import to_html
from skinclip.reporting.pdf_pages import to_pdf
from skinclip.study.analysis import analysis_report, plots, r_scripts, statistics
from skinclip.study.analysis.analysis_report import document, summary
from skinclip.study.analysis.statistics import analyse
from skinclip.study.analysis.tables import TABLES, StudyTables, primary_cases
from tests.study.studies import PLAN, study

FIGURES = {
    "forest_primary",
    "raincloud",
    "safety",
    "forest_secondary",
    "accuracy",
    "switches",
    "calibration",
    "preferences",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The report of a small simulated study."""
    out = tmp_path_factory.mktemp("report")
    analysis_report.write(study(), out, PLAN, "python -m skinclip study analyse trust")
    return out


@pytest.fixture(scope="module")
def analysis(folder) -> dict:
    return json.loads((folder / "analysis.json").read_text())


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_needs_nothing_else_and_runs_nothing(folder):
    page = Page((folder / "report.html").read_text())
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert page.tags.count("svg") == len(FIGURES)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert not [value for name, value in page.attributes if name in ("href", "src", "xlink:href") and value[:1] != "#"]


def test_simulated_data_are_marked_on_every_page_and_in_every_file(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in {".pdf", ".parquet"}:
            assert "SIMULATED DATA" in path.read_text(), path.name
    text = (folder / "report.html").read_text()
    assert text.index("SIMULATED DATA") < text.index("<h1>")
    assert "These are simulated readers" in text


def test_every_page_of_the_pdf_has_the_banner(analysis, monkeypatch):
    pages = []

    class Spy(pdf_pages.Pages):
        def header(self):
            pages.append(self.banner)
            super().header()

    monkeypatch.setattr(pdf_pages, "Pages", Spy)
    file = to_pdf(document(analysis))
    assert file.startswith(b"%PDF-") and len(pages) == file.count(b"/Type /Page\n")
    assert all("SIMULATED DATA" in page and RESEARCH_USE_ONLY in page for page in pages)


def test_a_real_study_is_not_called_simulated_and_is_still_for_research_only(analysis):
    real = {**analysis, "mark": "", "data_kind": "answers of readers", "study": "trust"}
    text = to_html(document(real))
    assert "SIMULATED" not in text and "simulated" not in text
    assert RESEARCH_USE_ONLY in text


def test_each_figure_has_its_data_beside_it(folder):
    drawn = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert drawn == {path.stem for path in (folder / "figures").glob("*.csv")} == FIGURES
    for path in (folder / "figures").glob("*.csv"):
        assert set(pd.read_csv(path)["data_kind"]) == {"SIMULATED DATA"}


def test_the_figures_show_the_results(folder, analysis):
    forest = pd.read_csv(folder / "figures" / "forest_primary.csv")
    assert forest["name"][0].startswith("Primary")
    assert forest["value"][0] == pytest.approx(analysis["primary"]["value"])
    moved = pd.read_csv(folder / "figures" / "switches.csv")
    assert moved["n"].sum() == sum(row["n"] for row in analysis["switches"])


def test_the_summary_says_who_what_and_whether_it_is_safe(analysis):
    words = summary(analysis)
    assert "Of 6 readers enrolled at 3 sites" in words and "16 cases, 5 of them real errors" in words
    assert re.search(r"points (higher|lower) with Rationale \+ regions than with Grad-CAM \(95 % interval", words)
    assert "Where the AI errs" in words and "margin of +10.0" in words


@pytest.mark.parametrize(
    ("decision", "words"), [("non-inferior", "not inferior"), ("inferior", "misleads more"), ("not shown", "not shown")]
)
def test_the_summary_speaks_of_safety_as_decided(analysis, decision, words):
    safety = {"value": 0.0, "low": -0.1, "high": 0.1, "rate": 0.1, "rate_reference": 0.1, "margin": 0.05}
    assert words in summary({**analysis, "safety": {**safety, "decision": decision}})


def test_a_difference_is_claimed_only_below_alpha(analysis):
    primary = analysis["primary"]
    assert "no difference beyond chance" in summary({**analysis, "primary": {**primary, "p": 0.051}})
    assert ": a difference beyond chance" in summary({**analysis, "primary": {**primary, "p": 0.049}})


def test_the_report_can_be_made_again_from_its_results(folder, analysis):
    again = to_html(document(analysis, "python -m skinclip study analyse trust"))
    assert again == (folder / "report.html").read_text()


def test_names_from_outside_are_escaped():
    nasty = replace(study(), study="<script>alert(1)</script>")
    text = to_html(document(analyse(nasty, PLAN), command="<img src=x>"))
    assert "<script" not in text and "<img" not in text


def test_figures_are_tied_to_their_signs():
    assert tied("0.4 % (95 % interval, p = 0.03; p < 0.001) of 5") == (
        "0.4\u00a0% (95\u00a0% interval, p\u00a0=\u00a00.03; p\u00a0<\u00a00.001) of 5"
    )


def test_no_word_of_a_table_in_the_pdf_is_broken(analysis):
    with pypdfium2.PdfDocument(to_pdf(document(analysis))) as pdf:
        lines = [line.strip() for page in pdf for line in page.get_textpage().get_text_range().splitlines()]
    heads = {cell for section in document(analysis).sections for block in section.blocks
             if isinstance(block, Table) for cell in block.header}  # fmt: skip
    words = set(" ".join(lines).split())
    assert {"Cronbach", "Difference", "explanation"} <= {word for head in heads for word in head.split()} <= words


def test_densities_and_rates_stay_on_their_scales():
    means = [{"reader": f"R{i}", "arm": "none", "mean": mean} for i, mean in enumerate((1.0, 1.5, 4.0, 7.0))]
    cloud = plots.raincloud(means, ["none"], "trust", "")
    assert cloud is not None
    axes = cloud.figure.axes[0]
    density = axes.collections[0].get_datalim(axes.transData)
    assert (density.x0, density.x1) == (1.0, 7.0)
    rate = {"value": 0.5, "low": 0.4, "high": 0.6}
    rates = plots.dumbbells([{"arm": "none", "before": rate, "after": rate}], "balanced accuracy", "")
    assert rates is not None and rates.figure.axes[0].get_xlim() == (-0.02, 1.02)


def test_the_shares_of_crossing_bands_stand_apart():
    rows = [
        {"arm": "none", "ai_right": ai, "before": before, "after": after, "n": 5, "of": 20}
        for ai in (True, False) for before in (True, False) for after in (True, False)
    ]  # fmt: skip
    drawn = plots.switches(rows, ["none"], "")
    assert drawn is not None
    shares = [text for text in drawn.figure.axes[0].texts if text.get_text() == "25%"]
    assert len(shares) == 2 and abs(shares[0].get_position()[1] - shares[1].get_position()[1]) > 0.1


def test_an_empty_study_has_a_report_that_says_why(tmp_path):
    frames = {name: pd.DataFrame(columns=list(columns)) for name, columns in TABLES.items()}
    files = analysis_report.write(StudyTables(**frames, mark="", study="empty"), tmp_path, PLAN)
    text = files["report.html"].read_text()
    assert "not estimable: answers of fewer than two readers" in text
    assert files["report.pdf"].read_bytes().startswith(b"%PDF-")


def test_one_reader_has_a_report(tmp_path):
    tables = study()
    one = tables.with_cases(tables.cases[tables.cases["reader"] == "R001"])
    files = analysis_report.write(one, tmp_path, PLAN)
    assert "fewer than two readers" in files["report.html"].read_text()


def test_r_scripts_name_the_contrast_and_our_figures(folder, analysis):
    script = (folder / "R" / "crossed_model.R").read_text()
    assert '"regions"' in script and '"grad_cam"' in script and "(1 | reader:arm) + (1 | case:arm)" in script
    assert f"{analysis['primary']['value']:.5f}" in script
    assert "BEGIN DATA" in (folder / "data" / "scores.imrmc").read_text()


def has_package(name: str) -> bool:
    if not shutil.which("Rscript"):
        return False
    asked = ["Rscript", "-e", f"quit(status = !requireNamespace('{name}', quietly = TRUE))"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_package("lmerTest"), reason="R with lmerTest is not installed")
def test_lme4_gives_the_same_estimate(folder, analysis):
    done = subprocess.run(["Rscript", "crossed_model.R"], cwd=folder / "R", capture_output=True, text=True, check=True)
    line = done.stdout.split("Pr(>|t|)\n")[1].splitlines()[0].split()
    assert float(line[1]) == pytest.approx(analysis["primary"]["value"], abs=1e-3)
    assert float(line[2]) == pytest.approx(analysis["primary"]["error"], rel=1e-2)
    line = done.stdout.split("Pr(>|t|)\n")[2].splitlines()[0].split()
    assert float(line[1]) == pytest.approx(analysis["safety"]["value"], abs=1e-3)
    assert float(line[2]) == pytest.approx(analysis["safety"]["error"], rel=1e-2)


@pytest.mark.skipif(not has_package("lmerTest"), reason="R with lmerTest is not installed")
@pytest.mark.parametrize("endpoint", ["accuracy", "deserved_trust"])
def test_lme4_gives_the_same_estimate_of_other_primary_endpoints(endpoint, tmp_path):
    plan = replace(PLAN, endpoint=endpoint, secondary=("act",), secondary_contrasts=())
    tables = study(readers=8, cases=40)
    found = statistics.primary_result(primary_cases(tables.cases), plan)
    result = {"plan": asdict(plan), "primary_endpoint": asdict(plan.primary_endpoint), "primary": found}
    tables.write(tmp_path / "data")
    (tmp_path / "R").mkdir()
    script = r_scripts.scripts(tables, {**result, "safety": {"not_estimable": "left out"}})["crossed_model.R"]
    (tmp_path / "R" / "crossed_model.R").write_text(script)
    done = subprocess.run(
        ["Rscript", "crossed_model.R"], cwd=tmp_path / "R", capture_output=True, text=True, check=True
    )
    line = done.stdout.split("Pr(>|t|)\n")[1].splitlines()[0].split()
    assert float(line[1]) == pytest.approx(found["value"], abs=1e-3)
    assert float(line[2]) == pytest.approx(found["error"], rel=1e-2)


# --- mrmc.R ---------------------------------------------------------------------------------------------------------

# What the packages document that they take: https://rdrr.io/cran/iMRMC/man/dfMRMC_example.html (2.1.0) and
# https://rdrr.io/cran/MRMCaov/man/mrmc.html (0.3.0). These stand-ins refuse anything else and tell what they got.
STAND_INS = {
    "iMRMC": """
doAUCmrmc <- function(data, flagROC = FALSE) {
  stopifnot(identical(names(data), c("readerID", "caseID", "modalityID", "score")), is.numeric(data$score))
  stopifnot(all(sapply(data[1:3], is.factor)), !anyDuplicated(data[1:3]), !anyNA(data))
  told <- data[data$readerID == "truth", ]
  stopifnot(all(told$modalityID == "truth"), all(told$score %in% c(0, 1)), !anyDuplicated(told$caseID))
  stopifnot(setequal(told$caseID, data$caseID[data$readerID != "truth"]))
  list(Ustat.full = paste("iMRMC took", nlevels(data$readerID) - 1, "readers,", nrow(told), "cases,",
                          nlevels(data$modalityID) - 1, "modalities"))
}
""",
    "MRMCaov": """
empirical_auc <- function(truth, rating) stop("only named in a call of mrmc")
mrmc <- function(response, test, reader, case, data) {
  asked <- as.character(substitute(response))
  stopifnot(asked[1] == "empirical_auc", all(data[[asked[2]]] %in% 0:1), is.numeric(data[[asked[3]]]))
  names <- sapply(list(substitute(test), substitute(reader), substitute(case)), as.character)
  design <- table(data[names])
  stopifnot(dim(design)[1] == 2, all(design == 1))  # a factorial design: every cell read once
  structure(paste("MRMCaov took", paste(dim(design), collapse = " x ")), class = "mrmc_stand_in")
}
summary.mrmc_stand_in <- function(object, ...) unclass(object)
""",
}


EXPORTED = {
    "iMRMC": "export(doAUCmrmc)\n",
    "MRMCaov": "export(mrmc, empirical_auc)\nS3method(summary, mrmc_stand_in)\n",
}


@pytest.fixture(scope="module")
def r_library(tmp_path_factory) -> Path:
    """A library with packages of those names, made of the stand-ins."""
    library, source = (tmp_path_factory.mktemp(name) for name in ("library", "source"))
    for name, code in STAND_INS.items():
        package = source / name
        (package / "R").mkdir(parents=True)
        (package / "R" / "all.R").write_text(code)
        about = f"Package: {name}\nVersion: 0.0.1\nTitle: Stand-In\nDescription: For tests.\nLicense: none\n"
        (package / "DESCRIPTION").write_text(about)
        exported = (
            "export(doAUCmrmc)" if name == "iMRMC" else "export(mrmc, empirical_auc)\nS3method(summary, mrmc_stand_in)"
        )
        (package / "NAMESPACE").write_text(exported + "\n")
        command = ["R", "CMD", "INSTALL", "--no-docs", f"--library={library}", str(package)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return library


needs_r = pytest.mark.skipif(not shutil.which("Rscript"), reason="R is not installed")


def run_r(script: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        ["Rscript", script],
        cwd=folder / "R",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    return done.stdout


@needs_r
def test_r_scripts_parse(folder):
    for script in (folder / "R").glob("*.R"):
        subprocess.run(["Rscript", "-e", f"invisible(parse('{script}'))"], check=True, capture_output=True, timeout=60)


@needs_r
def test_mrmc_script_hands_over_what_the_packages_document(folder, r_library):
    told = run_r("mrmc.R", folder, R_LIBS=str(r_library))
    assert "iMRMC took 6 readers, 16 cases, 5 modalities" in told
    assert "MRMCaov took 2 x 6 x 16" in told


@needs_r
def test_mrmc_script_leaves_out_readers_who_stopped(tmp_path, r_library):
    tables = study()
    stopped = (tables.cases["reader"] == "R001") & (tables.cases["position"] > 8)
    skipped = (tables.cases["reader"] == "R002") & (tables.cases["case"] == "C005") & ~tables.cases["repeat"]
    analysis_report.write(tables.with_cases(tables.cases[~(stopped | skipped)]), tmp_path, PLAN)
    told = run_r("mrmc.R", tmp_path, R_LIBS=str(r_library))
    assert "iMRMC took 6 readers" in told
    assert "MRMCaov took 2 x 5 x 15" in told


@needs_r
@pytest.mark.skipif(has_package("iMRMC") or has_package("MRMCaov"), reason="one of the packages is installed")
def test_mrmc_script_says_what_is_missing(folder):
    assert "install.packages('MRMCaov') or install.packages('iMRMC')" in run_r("mrmc.R", folder)
