"""Photos are counted before any model runs, and the errors that they are likely to yield are estimated."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from skinclip.cli.main import main
from skinclip.data.cases import Case
from skinclip.study import supply
from skinclip.study.errors import StudyRequestError
from skinclip.study.protocol.protocol import Protocol
from tests.study import tiny

RESULTS = Path(__file__).parents[2] / "eval_study" / "results"


def case(name: str, diagnosis: str | None = "nv", group: str | None = None, lesion: str = "") -> Case:
    return Case(Path(f"{name}.jpg"), name, "photos", lesion or name, diagnosis, group=group)


def photos(n: int, diagnosis: str = "nv") -> list[Case]:
    return [case(f"{diagnosis}{i}", diagnosis) for i in range(n)]


def test_two_photos_of_a_lesion_count_once_and_those_without_diagnosis_are_named() -> None:
    found = supply.count([*photos(3), case("twin", lesion="nv0"), case("nameless", None), case("out", None, " OOD ")])
    assert found.labelled == {"nv": 3} and found.out_of_distribution == 1 and found.unlabelled == ("nameless.jpg",)


def test_too_few_photos_are_refused_with_number_and_kind(trust_study: Protocol) -> None:
    few = supply.count([*photos(20), case("nameless", None)])
    with pytest.raises(StudyRequestError) as refused:
        supply.check_supply(trust_study, few)
    words = str(refused.value)
    assert "20 photos of known diagnosis (one per lesion), 58 needed: add 38 at least" in words
    assert "0 photos marked as out of distribution" in words and "6 needed" in words
    assert "1 photos have no diagnosis: nameless.jpg" in words and "manifest.csv" in words
    supply.check_supply(trust_study, supply.count([*photos(58), *(case(f"o{i}", None, "ood") for i in range(6))]))


def test_errors_are_estimated_by_diagnosis() -> None:
    nevi, melanomas = supply.expected_errors({"nv": 100}), supply.expected_errors({"mel": 100})
    assert nevi.mean == pytest.approx(22.6, abs=0.2) and melanomas.mean == pytest.approx(27.6, abs=0.2)
    assert nevi.low < nevi.mean < nevi.high and supply.expected_errors({}).mean == 0


def test_error_rates_are_those_of_the_published_result() -> None:
    confusion = json.loads((RESULTS / "evaluate_ham10000_test.json").read_text())["curves"]["confusion"]
    rates = supply.error_rates()
    for code, row in zip(rates, confusion, strict=True):
        i = list(rates).index(code)
        assert rates[code] == (sum(row), sum(row) - row[i]), code


def test_few_errors_are_warned_of(trust_study: Protocol) -> None:
    outside = [case(f"o{i}", None, "ood") for i in range(6)]
    found = supply.outlook(trust_study, supply.count([*photos(58), *outside]))
    assert not found.problems and "fewer than the 20 photos needed; about" in found.warnings[0]
    assert not supply.outlook(trust_study, supply.count([*photos(150), *photos(50, "mel"), *outside])).warnings


def test_the_plan_command_counts_photos_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("skinclip.cli.study.load_assessor", lambda args: pytest.fail("the model was loaded"))
    plan = tiny.write_protocol(tmp_path / "plan.yaml")
    assert main(["study", "plan", str(plan), "--studies", "0"]) == 0
    assert "4  of these, errors of the AI" in capsys.readouterr().out
    folder = tiny.write_photos(tmp_path / "photos")
    assert main(["study", "plan", str(plan), "--photos", str(folder), "--studies", "0"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert [row[0] for row in rows if row[-1:] in (["mel"], ["nv"])] == ["6", "7"] and "about 3 (" in printed
    with open(folder / "manifest.csv", newline="") as file:
        rows = list(csv.reader(file))
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows[:6])
    assert main(["study", "plan", str(plan), "--photos", str(folder), "--studies", "0"]) == 1
    assert "NOT ENOUGH: 5 photos of known diagnosis" in capsys.readouterr().out
    assert main(["study", "build", str(plan), "--photos", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "5 photos of known diagnosis (one per lesion), 9 needed" in capsys.readouterr().err


def test_photos_are_counted_by_diagnosis_malignancy_and_skin_tone(trust_study: Protocol) -> None:
    cases = [*photos(60, "nv"), *photos(40, "mel"), *photos(6, "vasc")]
    toned = [replace(c, fitzpatrick=2 + i % 2) for i, c in enumerate(cases[:10])]
    found = supply.count([*toned, *cases[10:]])
    assert found.tones == {"Fitzpatrick 2": 5, "Fitzpatrick 3": 5}
    text = supply.outlook_table(trust_study, supply.outlook(trust_study, found), found)
    rows = {
        line.split()[-1]: [float(x) for x in line.split()[:-1]]
        for line in text.splitlines()
        if line[:8].strip().isdigit() and len(line.split()) == 5
    }
    assert rows["malignant"][0] == 40 and rows["benign"][0] == 66
    counts = trust_study.cases.counts
    assert rows["malignant"][2] + rows["benign"][2] == pytest.approx(counts["right"] + counts["wrong"], abs=0.2)
    assert rows["malignant"][3] + rows["benign"][3] == pytest.approx(counts["wrong"], abs=0.2)
    assert rows["mel"][1] > rows["nv"][1] * 40 / 60  # the AI errs more on melanomas
    assert "by skin tone: 5 Fitzpatrick 2, 5 Fitzpatrick 3" in text
