"""Screening in one process: every row answered, resumable, clear words."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skinclip.cli import main as cli
from skinclip.core.assessment import Assessment, Context
from skinclip.imaging.photo import load_photo
from skinclip.pipeline.assessor import Assessor
from skinclip.screening import part as screening_part
from skinclip.screening import results
from skinclip.screening.errors import ScreeningError
from skinclip.screening.journal import MAX_DEATHS, Journal
from skinclip.screening.manifest import read_manifest
from skinclip.screening.plan import open_plan
from skinclip.screening.run import ScreeningOptions, screen
from tests.hostile_texts import TEXTS
from tests.screening import screenings


@pytest.fixture(scope="module")
def assessor() -> Assessor:
    return Assessor.load()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return screenings.write_manifest(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def run(assessor: Assessor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Screens with the loaded model into a folder of the test's own."""
    monkeypatch.setattr(Assessor, "load", lambda *args: assessor)

    def screen_into(manifest: Path, **options) -> dict:
        progress: list[int] = []
        made = ScreeningOptions(manifest, tmp_path / "out", **{"part_rows": 5, **options})
        summary = screen(made, lambda n: None, progress.append)
        assert sum(progress) == summary["rows"]
        return summary

    return screen_into


def test_every_row_has_a_result_or_a_reason(run, manifest: Path, tmp_path: Path, assessor: Assessor) -> None:
    summary = run(manifest)
    rows = screenings.rows_of(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(summary["rows"])) == list(range(16))
    reasons = {row["image"]: (row["status"], row["reason"]) for row in rows if row["assessment"] is None}
    assert reasons["damaged.jpg"][0] == results.UNREADABLE and "damaged" in reasons["damaged.jpg"][1]
    assert reasons["missing.jpg"][0] == results.UNREADABLE and "does not exist" in reasons["missing.jpg"][1]
    assert reasons["photo_000.jpg"] == (
        results.BAD_ROW,
        "line 9 of the manifest: age '200' is not a number from 0 to 120",
    )
    assert reasons[""] == (results.BAD_ROW, "line 10 of the manifest: no image")
    row = next(row for row in rows if row["image"] == "photo_001.jpg")
    answer = Assessment.from_json(row["assessment"])
    assert answer == assessor.assess(load_photo(manifest.parent / "photo_001.jpg"), Context(31.0, "male", "back"))
    assert row["leading"] == answer.diagnosis[0].code and row["malignancy"] == answer.malignancy.probability


def test_a_finished_screening_does_nothing_again(run, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(manifest)
    monkeypatch.setattr(Assessor, "assess", None)
    assert run(manifest)["rows_of_this_run"] == 0


def test_it_goes_on_after_an_interruption(run, manifest: Path, monkeypatch, tmp_path: Path, assessor) -> None:
    photos = iter(range(100))

    def interrupt(self, image, context):
        if next(photos) == 7:
            raise KeyboardInterrupt
        return answer(self, image, context)

    answer = Assessor.assess
    with monkeypatch.context() as patch:
        patch.setattr(Assessor, "assess", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(manifest)
    assert run(manifest)["rows_of_this_run"] == 6  # two parts of five were done
    assert len(screenings.rows_of(tmp_path / "out")) == 16


def test_other_terms_are_refused(run, manifest: Path, tmp_path: Path) -> None:
    run(manifest, detail="quick")
    with pytest.raises(ScreeningError, match="detail quick there, full now.*choose another --out"):
        run(manifest)
    other = tmp_path / "other.csv"
    other.write_text("image\nphoto.jpg\n")
    with pytest.raises(ScreeningError, match="manifest_sha256"):
        run(other, detail="quick")


def test_quick_results_have_the_same_probabilities(run, manifest: Path, tmp_path: Path, assessor: Assessor) -> None:
    run(manifest, detail="quick")
    row = next(row for row in screenings.rows_of(tmp_path / "out") if row["image"] == "photo_001.jpg")
    whole = assessor.assess(load_photo(manifest.parent / "photo_001.jpg"), Context(31.0, "male", "back"))
    quick = Assessment.from_json(row["assessment"])
    assert quick.diagnosis == whole.diagnosis and quick.malignancy == whole.malignancy and quick.rationale == ""


def test_retry_reads_photos_that_have_come(run, tmp_path: Path, assessor: Assessor) -> None:
    folder = tmp_path / "photos"
    rows = screenings.write_photos(folder, 2)
    (folder / "photos.csv").write_text("image\n" + "\n".join(row[0] for row in rows) + "\nlate.jpg\n")
    assert run(folder / "photos.csv")["statuses"][results.UNREADABLE] == 1
    (folder / "late.jpg").write_bytes((folder / "photo_000.jpg").read_bytes())
    assert run(folder / "photos.csv")["statuses"][results.UNREADABLE] == 1
    assert results.UNREADABLE not in run(folder / "photos.csv", retry=True)["statuses"]


def test_a_photo_that_ends_its_process_is_passed_over(run, manifest: Path, tmp_path: Path, monkeypatch) -> None:
    """A process that is killed writes nothing more: its journal is left with a photo begun and not ended."""
    with monkeypatch.context() as patch:
        patch.setattr(screening_part.PartScreener, "screen", lambda self, part, on_photo: _stop())
        with pytest.raises(KeyboardInterrupt):
            run(manifest)
    plan = open_plan(tmp_path / "out")
    assert plan is not None
    plan.journal(1).write_text("attempt\nbegin 5\nend 5\nbegin 6\n" * MAX_DEATHS)
    run(manifest)
    failed = [row for row in screenings.rows_of(tmp_path / "out") if row["status"] == results.FAILED]
    assert [row["row"] for row in failed] == [6] and "ended 3 times" in failed[0]["reason"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_hostile_names_and_entries_are_rows_of_their_own(run, tmp_path: Path, kind: str) -> None:
    """The corpus through every column of a manifest: each row once, as text, with its reason on one line."""
    cannot = {"csv": ("\ud800", "\0"), "parquet": ("\ud800",)}[kind]  # be held by such a file
    texts = [text for text in TEXTS if not any(c in text for c in cannot)]
    ((name, *_),) = screenings.write_photos(tmp_path, 1)
    rows = [(name, "50", "male", "back"), *((text, "", "", "") for text in texts)]
    rows += [[(name, text, "", ""), (name, "", text, ""), (name, "", "", text)][i % 3] for i, text in enumerate(texts)]
    path = tmp_path / f"photos.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([screenings.HEADER, *rows])
    else:
        columns = dict(zip(screenings.HEADER, map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), path)
    summary = run(path)
    found = screenings.rows_of(tmp_path / "out")
    assert [row["row"] for row in found] == list(range(len(rows))) and summary["rows"] == len(rows)
    assert [row["status"] for row in found[1:]].count(results.UNREADABLE) >= len(texts) - 1
    assert found[0]["assessment"] is not None
    assert all(row["reason"] and len(row["reason"].splitlines()) == 1 for row in found if row["assessment"] is None)


def test_a_stop_in_good_order_suspects_no_photo(tmp_path: Path) -> None:
    path = tmp_path / "journal.txt"
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt), Journal(path) as journal:
            journal.begin(1)
            _stop()
    assert not Journal(path).deaths


def test_a_fault_of_the_model_on_one_photo_is_a_row(run, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "photos"
    screenings.write_photos(folder, 2)
    (folder / "photos.csv").write_text("image\nphoto_000.jpg\nphoto_001.jpg\n")
    monkeypatch.setattr(Assessor, "assess", lambda self, image, context: 1 / 0)
    assert run(folder / "photos.csv")["statuses"] == {results.FAILED: 2}
    assert "ZeroDivisionError" in screenings.rows_of(tmp_path / "out")[0]["reason"]


def test_short_memory_stops_the_run_and_costs_no_row(run, manifest: Path, tmp_path: Path, monkeypatch) -> None:
    def short(self, image, context):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Assessor, "assess", short)
        with pytest.raises(MemoryError):
            run(manifest)
    assert run(manifest)["rows"] == 16


@pytest.mark.parametrize("in_plan", [True, False])
def test_a_full_disk_leaves_no_half_file(run, manifest: Path, tmp_path: Path, monkeypatch, in_plan: bool) -> None:
    def full(table, file, **options):
        if (Path(file).parent.name != "results") == in_plan:
            raise OSError(28, "No space left on device", "part")
        write_table(table, file, **options)

    write_table = pq.write_table
    with monkeypatch.context() as patch:
        patch.setattr("skinclip.screening.plan.pq.write_table", full)
        with pytest.raises(OSError, match="No space left"):
            run(manifest)
    assert not list((tmp_path / "out").glob("results/*")) and not list((tmp_path / "out").glob("**/.p*"))
    assert run(manifest)["rows"] == 16


def test_a_parquet_manifest_gives_the_same_rows(manifest: Path, tmp_path: Path) -> None:
    table = pa.table({"Image": ["a.jpg", None], "age": [55.0, None], "SEX": ["F", "male"], "site": ["back", "knee"]})
    pq.write_table(table, tmp_path / "photos.parquet")
    first, second = read_manifest(tmp_path / "photos.parquet")
    assert (first.image, first.context, first.problem) == ("a.jpg", Context(55.0, "female", "back"), None)
    assert second.problem == "line 2 of the manifest: no image"


@pytest.mark.parametrize(
    ("text", "words"),
    [("file,age\na.jpg,3\n", "rename it to 'image'"), ("image\n", "no rows"), ("", "no column image")],
)
def test_a_manifest_that_cannot_be_used(text: str, words: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "photos.csv").write_text(text)
    status = cli.main(["screen", "--manifest", str(tmp_path / "photos.csv"), "--out", str(tmp_path / "out")])
    assert status == 2 and words in capsys.readouterr().err


def test_a_missing_manifest_and_a_second_run_into_one_folder(tmp_path: Path, run, manifest: Path, capsys) -> None:
    words = ["screen", "--manifest", str(tmp_path / "no.csv"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2 and "does not exist" in capsys.readouterr().err
    inner: list[str] = []

    def again(self, image, context):
        with pytest.raises(ScreeningError) as refused:
            run(manifest)
        inner.append(str(refused.value))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Assessor, "assess", again)
        with pytest.raises(KeyboardInterrupt):
            run(manifest)
    assert "another process is screening" in inner[0]


def test_the_summary_counts_what_is_there(run, manifest: Path, tmp_path: Path) -> None:
    summary = run(manifest)
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written == summary and sum(written["statuses"].values()) == 16
    pq.write_table(pq.read_table(tmp_path / "out/results/part-000000.parquet").slice(1), tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").replace(tmp_path / "out/results/part-000000.parquet")
    with pytest.raises(ScreeningError, match="does not hold the rows of its part"):
        run(manifest)


def _stop() -> None:
    raise KeyboardInterrupt
