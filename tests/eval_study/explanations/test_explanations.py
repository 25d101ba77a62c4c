"""What is said of explanations, against cases whose answer is known."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from eval_study.benchmarks.common import Bench
from eval_study.explanations import changes, criteria, gallery, maps, rationales, regions, sanity, tuning
from skinclip.core.vocabulary import CRITERIA, EVIDENCE_STATES
from skinclip.data.cases import Case
from skinclip.explain.faithfulness import random_region
from skinclip.explain.methods import METHODS
from skinclip.explain.saliency import Cam
from skinclip.explain.subject import GRID
from skinclip.imaging.examples import draw_with_mask
from skinclip.imaging.photo import load_photo
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting.markdown import section_markdown


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[Case]:
    folder = tmp_path_factory.mktemp("photos")
    figures = []
    for i, kind in enumerate(("melanoma", "nevus")):
        photo, mask = draw_with_mask(kind, i, (160, 160))
        cv2.imwrite(str(folder / f"{i}.png"), photo)
        cv2.imwrite(str(folder / f"{i}m.png"), mask.astype(np.uint8) * 255)
        figures.append(Case(folder / f"{i}.png", str(i), "drawn", f"L{i}", "nv", mask=folder / f"{i}m.png"))
    return figures


@pytest.fixture
def bench(tmp_path: Path, monkeypatch, cases) -> Bench:
    made = Bench(tmp_path, tmp_path / "out", tmp_path / "work", n_boot=20, command="a command")
    made.__dict__["assessor"] = Assessor.load("mini")
    monkeypatch.setattr(Bench, "cases", lambda self, name, *splits: cases if name == "ham10000" else [])
    return made


def probabilities(states: list[int], p: float) -> list[np.ndarray]:
    """One photo whose criterion q is in state `states[q]` with probability `p`."""
    rows = []
    for criterion, state in zip(CRITERIA, states, strict=True):
        row = np.full((1, len(criterion.labels)), (1 - p) / (len(criterion.labels) - 1))
        row[0, state] = p
        rows.append(row)
    return rows


def test_a_criterion_is_cited_from_its_threshold_and_in_one_state() -> None:
    stated = [2, 0, 1, 0, 0, 0, 0, 0, 0]
    assert criteria.cited(probabilities(stated, 0.9), [0.3] * 9).tolist() == [stated]
    assert not criteria.cited(probabilities(stated, 0.9), [0.96] * 9).any()


def test_hallucination_and_recall_by_hand() -> None:
    labels = np.array([[2, 0, 0, 0, 0, 0, 0, 0, -1], [1, 0, 0, 0, 0, 1, 0, 0, -1], [0, 2, 0, 0, 0, 0, 0, 0, -1]])
    # two right, one absent, one of another type; the last is not labelled, and citing it does not count
    stated = np.array([[2, 1, 0, 0, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 1, 0, 0, 0], [0] * 9])
    figures = {k: float(v(np.ones((1, 3)))[0]) for k, v in criteria.truth_of(stated, labels).items()}
    assert figures["hallucination"] == figures["other_type"] == 0.25 and figures["precision"] == 0.5
    assert figures["cited_per_photo"] == pytest.approx(4 / 3)
    assert figures["macro_recall"] == pytest.approx((1 + 0 + 1) / 3)  # of the three criteria that are labelled
    assert figures["macro_recall_of_states"] == pytest.approx((1 + 0 + 0 + 1) / 4)  # and their four states


def test_thresholds_are_not_chosen_on_the_photos_they_cite() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, len(EVIDENCE_STATES)))
    labels = np.stack([rng.integers(1, len(c.labels), 200) for c in CRITERIA], 1)  # every criterion in every photo
    half = np.arange(200) < 100
    stated = criteria.cross_fitted(scores, labels, half, 0.5)
    assert (stated[half] > 0).mean() == pytest.approx(0.5, abs=0.1)
    for other in (half, ~half):  # which labels a half has does not matter to what is cited of it
        again = labels.copy()
        again[other] = 0
        assert (criteria.cross_fitted(scores, again, half, 0.5)[other] == stated[other]).all()


def test_the_reference_lesion_lies_on_the_window(bench, cases) -> None:
    subject = bench.assessor.subject(load_photo(cases[0].image))
    mask = cv2.imread(str(cases[0].mask), cv2.IMREAD_GRAYSCALE) > 127
    figures = maps.reference_lesion(cases[0], subject)
    assert figures is not None and figures.shape == (GRID, GRID)
    assert figures.mean() == pytest.approx(mask.mean(), abs=0.02)


def test_every_method_is_measured_and_kept(bench, cases, monkeypatch, tmp_path) -> None:
    few = {key: METHODS[key] for key in ("evidence", "grad_cam", "gaussian", "random")}
    monkeypatch.setattr(maps, "METHODS", few)
    result = maps.run(bench)
    figures = result["sets"]["ham10000"]
    assert figures["n"] == 2 and set(figures["methods"]) == set(few)
    for row in figures["methods"].values():
        assert 0 <= row["energy"]["value"] <= 1 and 0 <= row["deletion"]["value"] <= 1
        assert len(row["curves"]["deleting"]) == len(row["curves"]["inserting"]) == 9
    assert figures["methods"]["random"]["energy"]["evidence_less_this"]["value"] == pytest.approx(
        figures["methods"]["evidence"]["energy"]["value"] - figures["methods"]["random"]["energy"]["value"]
    )
    monkeypatch.setattr(maps, "measure", lambda *_: pytest.fail("measured again"))
    assert maps.run(bench)["sets"] == result["sets"]
    text = section_markdown(maps.section(result))
    assert "Centred Gaussian" in text and "energy in the lesion" in text
    assert "(figures/followed_ham10000.svg)" in text


def test_regions_a_reader_sees_are_measured_and_kept_for_their_thresholds(bench, monkeypatch, tmp_path) -> None:
    result = regions.run(bench)
    figures = result["sets"]["ham10000"]
    assert figures["n"] >= 1 and 0 < figures["joined"]["share"]["value"] <= 0.42
    assert result["meta"]["thresholds"] == bench.assessor.thresholds
    assert len(list((tmp_path / "work/explanations/gallery/ham10000").glob("*.html"))) == 1
    assert "of the most certain finding" in section_markdown(regions.section(result))
    with monkeypatch.context() as patch:
        patch.setattr(regions, "cited", lambda *_: pytest.fail("measured again"))
        assert regions.run(bench)["sets"] == result["sets"]
    bench.assessor.thresholds = dict.fromkeys(bench.thresholds, 1.01)
    bench.__dict__["thresholds"] = bench.assessor.thresholds
    assert regions.run(bench)["sets"]["ham10000"]["n"] == 0


def test_the_headline_names_regions_that_matter_no_more_than_chance() -> None:
    def of(joined: float, pivotal: float) -> dict:
        low = {"joined": joined, "pivotal": pivotal}
        figures = {w: {"beats_draws": {"value": 0.55, "low": low[w], "high": 0.6}} for w in low}
        return {"sets": {"a": figures}}

    assert "no more to the answer than random places" in regions.headline(of(0.45, 0.51))
    assert "no more than the strongest of as many random places" in regions.headline(of(0.51, 0.45))
    assert regions.headline(of(0.51, 0.52)) == ""


def test_a_chosen_region_that_is_random_itself_beats_no_more_than_chance(monkeypatch) -> None:
    """A region chosen as the strongest of k must be held against the strongest of k, on any answer."""
    lesion = np.zeros((GRID, GRID), bool)
    lesion[15:65, 15:65] = True
    weights = np.random.default_rng(7).normal(size=(GRID, GRID)) * lesion  # the answer falls by what is taken out

    def answer(out: np.ndarray) -> np.ndarray:
        return 0.5 - 0.002 * (out * weights).sum(axis=(1, 2))

    def drops(answer, photo, regions, lesion) -> np.ndarray:
        return answer(np.zeros((1, GRID, GRID))) - answer(regions)

    monkeypatch.setattr(regions, "without", lambda photo, out: out.astype(float))
    monkeypatch.setattr(regions, "effects", drops)
    subject = SimpleNamespace(answer=answer, photo=None, lesion=lesion)
    beats, against_mean = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        drawn = {f"r{i}": random_region(lesion, 600, rng) for i in range(3)}
        monkeypatch.setattr(regions, "cited_regions", lambda subject, drawn=drawn: drawn)
        effect = dict(zip(drawn, drops(answer, None, np.stack(list(drawn.values())), lesion), strict=True))
        monkeypatch.setattr(regions, "cited_effects", lambda subject, effect=effect: effect)
        figures = regions.cited(subject, 1000 + seed)
        beats.append(figures["pivotal/beats_draws"])
        against_mean.append(float(figures["pivotal/drop"] > figures["joined/random"]))
    assert np.mean(beats) == pytest.approx(0.5, abs=0.12)
    assert np.mean(against_mean) > 0.7  # what the earlier comparison made of the same random regions


def test_the_headline_names_what_beats_the_evidence() -> None:
    def row(energy: tuple[float, float], deletion: tuple[float, float]) -> dict:
        pairs = {"energy": energy, "deletion": deletion}
        gaps = {k: {"evidence_less_this": {"low": lo, "high": hi}} for k, (lo, hi) in pairs.items()}
        return {**{k: {"evidence_less_this": None} for k in maps.TITLES}, **gaps}

    none = row((0.1, 0.2), (-0.2, -0.1))  # more energy and less deletion: evidence is better in both
    lost = row((-0.1, 0.1), (0.1, 0.2))  # its deletion is higher, its energy not told apart
    figures = {"methods": {"evidence": row((0, 0), (0, 0)), "grad_cam": none, "gaussian": none}}
    assert maps.wins(figures) == [] and "No other method" in maps.headline({"sets": {"a": figures}})
    figures["methods"]["gaussian"] = lost
    assert maps.wins(figures) == ["deletion AUC: Centred Gaussian"]
    assert "on a, deletion AUC: Centred Gaussian" in maps.headline({"sets": {"a": figures}})


def test_holm_by_hand() -> None:
    assert maps.holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert maps.holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_paired_differences_without_any_difference() -> None:
    assert maps.wilcoxon_p(np.array([0.0, 0.0, np.nan])) == 1
    assert maps.wilcoxon_p(np.linspace(0.1, 1, 20)) < 0.001


def test_the_gallery_has_each_photo_once() -> None:
    worth = np.array([np.nan, *np.linspace(1, 0, 9)])
    picked = gallery.picked(worth)
    assert [i for _, i in picked] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert gallery.picked(np.array([0.5, 0.1])) == []  # too few for three kinds
    assert len(gallery.picked(np.linspace(0, 1, 50))) == 12


def test_the_gallery_shows_each_photo_with_its_regions_and_maps(bench: Bench, cases, monkeypatch) -> None:
    monkeypatch.setattr(gallery, "GALLERY_METHODS", ("lesion_mask",))
    page = gallery.write(bench, [*cases, cases[0]], np.array([0.3, 0.1, 0.2]), "drawn")
    pictures = [Path(page.parent, name).stat().st_size for name in re.findall(r'src="([^"]+)"', page.read_text())]
    assert len(pictures) == 9 and min(pictures) > 500


def test_the_gallery_escapes_its_captions() -> None:
    page = gallery.to_html("<set>", [("best: a&b", [("Photo", "best-1-photo.jpg"), ('"quoted"', "best-1-x.jpg")])])
    assert "<title>&lt;set&gt;</title>" in page and "<h2>best: a&amp;b</h2>" in page
    assert '<img alt="Photo" title="Photo" src="best-1-photo.jpg">' in page and 'alt="&#34;quoted&#34;"' in page


def test_criteria_maps_that_are_one_map() -> None:
    rng = np.random.default_rng(0)
    lesion = np.ones((8, 8))
    one = rng.random((8, 8))
    assert criteria.map_correlation(np.stack([one, 2 * one + 1, one - 3]), lesion) == pytest.approx(1)
    assert abs(criteria.map_correlation(rng.random((12, 8, 8)), lesion)) < 0.05
    assert np.isnan(criteria.map_correlation(rng.random((3, 8, 8)), np.zeros((8, 8))))


def test_shuffled_weights_have_the_same_values_in_other_places(bench) -> None:
    model = bench.assessor.model
    other = sanity.shuffled(model, ("evidence.",), 0)
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        if name.startswith("evidence.") and a.numel() > 100:
            assert not a.equal(b) and a.flatten().sort().values.equal(b.flatten().sort().values), name
        elif not name.startswith("evidence."):
            assert a.equal(b), name


def test_maps_of_shuffled_weights_are_unlike_those_of_the_model(bench, cases, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sanity, "COMPARED", ("evidence", "lesion_mask"))
    result = sanity.run(bench)
    figures = result["steps"]
    assert figures["reasoner"]["lesion_mask"]["ssim"]["value"] == 1  # it knows nothing of the reasoner
    assert figures["tower"]["criteria"]["rank_correlation"]["value"] < 0.7
    assert (
        figures["noise"]["criteria"]["rank_correlation"]["value"]
        > figures["tower"]["criteria"]["rank_correlation"]["value"]
    )
    assert "reasoner, evidence finder" in section_markdown(sanity.section(result))


def test_turning_on_what_is_melanoma_specific_raises_melanoma(bench, cases, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(Bench, "cases", lambda self, name, *splits: cases)
    result = changes.run(bench)
    for key in ("pigment_network:atypical", "blue_whitish_veil:present"):
        assert result["states"][key]["raises"]["value"] == 1
    assert "raises P(melanoma)" in section_markdown(changes.section(result))


def test_what_a_text_gives_away_without_names() -> None:
    text = "Melanoma is the leading diagnosis, supported by [r1] irregular streaks. Melanocytic nevus stays possible."
    assert "elano" not in rationales.without_names(text)
    other = "Melanocytic nevus is the leading diagnosis, supported by [r1] blue-whitish veil. Melanoma stays possible."
    assert rationales.masked(text) == rationales.masked(other) != rationales.masked("Most likely this is melanoma.")


def test_a_classifier_recovers_what_the_words_say() -> None:
    labels = np.array([0, 1] * 20)
    groups = [f"L{i}" for i in range(40)]
    telling = [("streaks and veil" if y else "typical network") for y in labels]
    p = rationales.recovered(telling, labels, groups)
    assert (p.argmax(1) == labels).all() and not p[:, 2:].any()
    silent = rationales.recovered(["the same words"] * 40, labels, groups)
    assert np.allclose(silent[:, :2], 0.5, atol=0.1)


def test_grad_cam_is_tuned_for_what_it_is_compared_by(bench, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tuning, "CAMS", (Cam(-1), Cam(-3, relu=False)))
    figures = iter([0.1, 0.3, 0.3, 0.1] * 2)  # a photo's own network under both settings, then the plain one's
    monkeypatch.setattr(tuning, "_measured", lambda *_: (next(figures), 0.5))
    result = tuning.run(bench)
    assert result["n"] == 2
    assert result["chosen"] == {"own": "stage -3, signed, one view", "plain": "stage -1, ReLU, one view"}
    assert "**stage -3, signed, one view**" in section_markdown(tuning.section(result))
