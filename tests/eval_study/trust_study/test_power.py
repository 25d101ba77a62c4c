import json
from dataclasses import replace

import pytest

from eval_study.trust_study import power
from eval_study.trust_study.power import Setting, markdown, run, settings, summary


def short(question: str = "coverage", studies: int = 10) -> Setting:
    """The proof's own setting, on fewer readers and cases so that a study takes a moment."""
    chosen = next(s for s in settings() if s.question == question)
    return replace(chosen, simulation=replace(chosen.simulation, readers=8, cases=24), studies=studies)


def test_ten_studies_cover_the_truth_and_resume_where_they_stopped(tmp_path, monkeypatch):
    run([short(studies=4)], tmp_path)
    seeds = []
    once = power.one_study
    monkeypatch.setattr(power, "one_study", lambda s, seed: seeds.append(seed) or once(s, seed))
    report = run([short()], tmp_path)
    assert seeds == list(range(4, 10))
    row = next(iter(report["settings"].values()))
    assert row["studies"] == row["estimable"] == 10
    assert row["coverage"]["value"] >= 0.8
    assert json.loads((tmp_path / "power.json").read_text()) == json.loads(json.dumps(report))
    assert "SIMULATED DATA" in (tmp_path / "POWER.md").read_text()


def test_other_parameters_begin_anew(tmp_path):
    run([short(studies=2)], tmp_path)
    other = short(studies=2)
    other = replace(other, simulation=replace(other.simulation, missing=0.3))
    run([other], tmp_path)
    stored = json.loads((tmp_path / "power.json").read_text())["studies"][other.name]
    assert stored == [power.one_study(other.simulation, seed)[:4] + row[4:] for seed, row in enumerate(stored)]


def test_a_study_without_effect_has_none():
    assert short("null").truth == 0.0
    assert short("coverage").truth == pytest.approx(0.388, abs=0.01)


def test_summary_equals_hand_counted():
    setting = short("null", 4)
    rows = [[0.1, -0.2, 0.4, 0.5, 1.0], [0.5, 0.2, 0.8, 0.01, 1.0], [-0.1, -0.4, 0.2, 0.5, 1.0], [None] * 5]
    row = summary(setting, rows)
    assert row["coverage"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert row["significant"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert (row["studies"], row["estimable"], row["holds"]) == (4, 3, False)
    assert "| null" in markdown({"command": "x", "settings": {setting.name: row}})


def test_kept_results_hold_what_is_promised():
    path = power.RESULTS / "power.json"
    report = json.loads(path.read_text())
    proofs = [s for s in report["settings"].values() if s["question"] != "power"]
    assert len(proofs) == 6 and all(s["studies"] == 500 and s["holds"] for s in proofs)
    sizes = {(s["readers"], s["cases"]) for s in report["settings"].values() if s["question"] == "power"}
    assert sizes == {(r, c) for r in (10, 20, 40) for c in (50, 100)}
    assert report["data_kind"] == "SIMULATED DATA"
