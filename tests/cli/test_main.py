import contextlib
import errno
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from skinclip.cli import main as cli
from skinclip.core.assessment import (
    Assessment,
    Context,
    DiagnosisProbability,
    Finding,
    Lesion,
    Malignancy,
    ModelInfo,
    PhotoInfo,
    PredictionSet,
    Quality,
    QualityIssue,
    Region,
    Shift,
)
from skinclip.core.config import preset
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_CODES
from skinclip.data.layouts.isic2018_task2 import ATTRIBUTES
from skinclip.data.readers import LAYOUTS

ROOT = Path(__file__).parents[2]
REGION = Region((1.0, 2.0, 30.0, 40.0), (((1.0, 2.0), (30.0, 2.0), (30.0, 40.0)),))


def make_assessment(context: Context, in_domain: bool = True) -> Assessment:
    p = [0.02, 0.03, 0.09, 0.01, 0.6, 0.17, 0.04, 0.025, 0.015]
    ranked = sorted(zip(DIAGNOSES, p, strict=True), key=lambda pair: -pair[1])
    issue = QualityIssue("blur", "the photo is blurred; take a sharper one", False)
    return Assessment(
        model=ModelInfo("mini", "0.1.0", "ab" * 32),
        photo=PhotoInfo(80, 64, "cd" * 32, Quality(True, (issue,))),
        context=context,
        diagnosis=tuple(DiagnosisProbability(d.code, d.name, q) for d, q in ranked),
        prediction_set=PredictionSet(0.9, ("mel", "nv")),
        malignancy=Malignancy(0.65, 0.2, True),
        shift=Shift(0.4 if in_domain else 1.0, in_domain),
        lesion=Lesion(REGION.box, REGION.polygons, 0.3),
        findings=(Finding("r1", "streaks", "irregular", 0.7, REGION),),
        criteria={},
        rationale="Most likely this is melanoma, given [r1] irregular streaks.",
        abstained=not in_domain,
    )


class FakeAssessor:
    in_domain = True
    loaded: tuple = ()
    model_info = ModelInfo("mini", "0.1.0", "ab" * 32)
    config = preset("mini")
    calibrator = SimpleNamespace(prevalence="ham10000")

    @classmethod
    def load(cls, preset="mini", weights=None):
        if preset != "mini":
            raise ValueError(f"no preset {preset!r};\nchoose mini")
        print("a library that chats while it loads")
        cls.loaded = (preset, weights)
        return cls()

    def assess(self, image, context=None, progress=None, clinical=None):
        return make_assessment(context, self.in_domain)

    @contextlib.contextmanager
    def at_prevalence(self, prevalence):
        if prevalence.name == "milk10k":
            raise ValueError("this checkpoint keeps no calibration photos")
        self.calibrator = SimpleNamespace(prevalence=prevalence.name)
        yield

    def heat_on_photo(self, image, context, code, clinical=None):
        return np.zeros(image.pixels.shape[:2])

    def predict(self, images, contexts, others=None):
        p = np.full(len(DIAGNOSIS_CODES), 1 / len(DIAGNOSIS_CODES))
        return [
            SimpleNamespace(
                probabilities=p,
                balanced=p,
                criteria={},
                lesion_mask=np.zeros(image.pixels.shape[:2], dtype=bool),
                malignancy=0.3,
                refer=True,
                set_codes=("nv",),
                shift_score=0.1,
                in_domain=True,
                confident=True,
                kind="dermoscopy",
                ita=float("nan"),
            )
            for image in images
        ]


@pytest.fixture(autouse=True)
def fake_model(monkeypatch):
    """The command line without a model: what it imports late is put in place first."""
    modules = {
        "skinclip.pipeline.assessor": {"Assessor": FakeAssessor},
        "skinclip.model.skinclip_vl": {"CheckpointError": type("CheckpointError", (RuntimeError,), {})},
        "skinclip.imaging.overlay": {
            "region_overlay": lambda pixels, assessment: pixels,
            "heatmap_overlay": lambda pixels, heat: pixels,
        },
        "skinclip.reporting.assessment_pdf": {"assessment_pdf": lambda assessment, pixels, beside: b""},
    }
    for name, attributes in modules.items():
        module = ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(FakeAssessor, "in_domain", True)


@pytest.fixture
def photo(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "lesion.png")
    return tmp_path / "lesion.png"


def fails(capsys, *argv) -> str:
    """Runs a command that must fail: status 2, stdout empty, one line on stderr, which is returned."""
    assert cli.main([str(a) for a in argv]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "chats" not in line]
    assert out == "" and len(lines) == 1 and "Traceback" not in err
    return lines[0]


def test_json_is_one_object_and_nothing_else(capsys, photo):
    status = cli.main(["assess", str(photo), "--age", "55", "--sex", "Male", "--site", "lower limbs", "--json"])
    out, err = capsys.readouterr()
    assert status == 0
    assert Assessment.from_json(out) == make_assessment(Context(55.0, "male", "lower extremity"))
    assert "blurred" in err and "chats" in err


def test_a_prevalence_is_read_before_the_model_and_reaches_it(capsys, photo, tmp_path, monkeypatch):
    seen = []

    def assess(self, image, context=None, clinical=None):
        seen.append(self.calibrator.prevalence)
        return make_assessment(context)

    monkeypatch.setattr(FakeAssessor, "assess", assess)
    ours = tmp_path / "ours.yaml"
    ours.write_text("name: our clinic\nshares: {mel: 1, nv: 9}\n")
    for words in ([], ["--prevalence", "general-practice"], ["--prevalence", str(ours)]):
        assert cli.main(["assess", str(photo), *words]) == 0
    assert seen == ["ham10000", "general-practice", "our clinic"]
    capsys.readouterr()
    message = fails(capsys, "assess", photo, "--prevalence", "hospital")
    assert (
        "--prevalence: 'hospital' is neither a prevalence (ham10000, milk10k, general-practice) nor a file" in message
    )
    ours.write_text("shares: {mole: 1}")
    assert "'mole' is no diagnosis" in fails(capsys, "assess", photo, "--prevalence", ours)
    assert "keeps no calibration photos" in fails(capsys, "assess", photo, "--prevalence", "milk10k")


def test_readable_text_advises_in_the_words_of_the_page(capsys, photo):
    assert cli.main(["assess", str(photo)]) == 0
    out = capsys.readouterr().out
    assert "Cannot be ruled out: melanoma or melanocytic nevus (in 90\xa0% of such photos" in out
    assert "Refer. Probability of malignancy 65.0\xa0%, at or above the referral threshold of 20.0\xa0%." in out


def test_readable_text_says_what_matters(capsys, photo, monkeypatch):
    monkeypatch.setattr(FakeAssessor, "in_domain", False)
    assert cli.main(["assess", str(photo), "--age", "unknown"]) == 0
    out = capsys.readouterr().out
    for words in (
        "Research use only",
        "melanoma                60.0\xa0%",
        "No assessment: the model abstains",
        "given [r1] irregular streaks",
        "[r1] irregular streaks (score 0.70, pixels 1, 2, 30, 40)",
        "Warning: the photo is blurred",
        "does not look like those the model was trained on",
    ):
        assert words in out
    assert len([line for line in out.splitlines() if "%" in line and "  " in line]) >= 7


def test_out_writes_three_files(photo, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert cli.main(["assess", str(photo), "--out", str(out), "--weights", str(tmp_path)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["assessment.json", "gradcam.png", "regions.png"]
    assert Assessment.from_json((out / "assessment.json").read_text()) == make_assessment(Context())
    with Image.open(out / "gradcam.png") as picture:
        assert picture.size == (80, 64)
    assert FakeAssessor.loaded == ("mini", tmp_path)


def test_pdf_is_written_where_it_is_wanted(photo, tmp_path, capsys, monkeypatch):
    module = ModuleType("skinclip.reporting.assessment_pdf")
    module.assessment_pdf = lambda assessment, pixels, beside: repr((assessment.photo.sha256, pixels.shape)).encode()
    monkeypatch.setitem(sys.modules, "skinclip.reporting.assessment_pdf", module)
    file = tmp_path / "new" / "lesion.pdf"
    assert cli.main(["assess", str(photo), "--json", "--pdf", str(file)]) == 0
    assert Assessment.from_json(capsys.readouterr().out) == make_assessment(Context())
    assert file.read_bytes() == repr(("cd" * 32, (64, 80, 3))).encode()
    assert [p.name for p in file.parent.iterdir()] == ["lesion.pdf"]


def test_a_preset_without_grad_cam_still_writes_the_rest(photo, tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("Grad-CAM needs a convolutional image tower")

    monkeypatch.setattr(FakeAssessor, "heat_on_photo", refuse)
    assert cli.main(["assess", str(photo), "--out", str(tmp_path / "o")]) == 0
    assert not (tmp_path / "o" / "gradcam.png").exists() and (tmp_path / "o" / "regions.png").exists()
    assert "gradcam.png was not written: Grad-CAM needs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--age", "250"], "years from 0 to 120"),
        (["--age", "old"], "years from 0 to 120"),
        (["--sex", "x"], "female or male"),
        (["--site", "moon"], "one of scalp, face"),
        (["--preset", "huge"], "choose mini"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_bad_options_give_one_line(capsys, photo, options, words):
    assert words in fails(capsys, "assess", photo, *options)


def test_bad_photos_and_folders_give_one_line(capsys, photo, tmp_path):
    assert "no_such.jpg" in fails(capsys, "assess", tmp_path / "no_such.jpg")
    fails(capsys, "assess", tmp_path)
    (tmp_path / "text.jpg").write_text("hello")
    fails(capsys, "assess", tmp_path / "text.jpg", "--json")
    assert "lesion.png" in fails(capsys, "assess", photo, "--out", photo)
    assert "lesion.png" in fails(capsys, "assess", photo, "--pdf", photo / "a.pdf")
    assert str(tmp_path) in fails(capsys, "assess", photo, "--pdf", tmp_path)
    assert "COMMAND" in fails(capsys)
    assert "folder" in fails(capsys, "evaluate", "--data", tmp_path / "no", "--out", "r.json", "--layout", "manifest")


@pytest.mark.parametrize("seed", ["-1", "4294967296", "abc", "1.5", "9" * 5000])
def test_seeds_that_no_generator_takes_are_refused_in_words(capsys, photo, tmp_path, seed):
    write_manifest(tmp_path, photo)
    argv = ["evaluate", "--data", tmp_path, "--out", tmp_path / "r.json", f"--seed={seed}"]
    assert "is not a valid seed; give a whole number from 0 to 4294967295" in fails(capsys, *argv)


@pytest.mark.parametrize("name", ["--bootstrap", "--batch-size"])
def test_numbers_of_photos_and_resamples_are_at_least_one(capsys, photo, tmp_path, name):
    write_manifest(tmp_path, photo)
    assert "at least 1" in fails(capsys, "evaluate", "--data", tmp_path, "--out", tmp_path / "r.json", name, "0")


def test_names_in_another_encoding_are_printed_with_escapes(tmp_path):
    folder = os.fsencode(tmp_path) + b"/M\xfcller"
    os.mkdir(folder)
    command = [sys.executable, "-m", "skinclip", "assess", folder + b"/none.jpg"]
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, timeout=60
        )
        assert done.returncode == 2 and b"Traceback" not in done.stderr
        assert b"Muller/none.jpg does not exist" in done.stderr.replace(b"\\udcfc", b"u")


def test_a_fault_of_the_program_is_not_hidden(photo, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a fault")

    monkeypatch.setattr(FakeAssessor, "assess", broken)
    with pytest.raises(ValueError, match="a fault"):
        cli.main(["assess", str(photo)])


def test_help_is_light(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name.replace("_", "-") in out for name in cli.COMMANDS)


@pytest.mark.parametrize("command", ["run", "assess", "evaluate", "fetch", "plot-training", "adapter", "study"])
def test_help_of_a_command_imports_no_heavy_library(command):
    code = f"""
import sys
from skinclip.cli.main import main
status = main(["{command}", "--help"])
heavy = {{"torch", "gradio", "pandas", "scipy", "sklearn", "transformers", "matplotlib", "sqlalchemy", "cv2"}}
print("heavy:", sorted(heavy & set(sys.modules)))
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.endswith("heavy: []\n"), done.stdout + done.stderr


def write_manifest(folder: Path, photo: Path) -> None:
    rows = [f"{photo.name},{code},{split}" for code, split in (("nv", "valid"), ("mel", "test"), ("bcc", "test"))]
    for i, row in enumerate(rows):
        copy = folder / f"photo{i}.png"
        copy.write_bytes(photo.read_bytes())
        rows[i] = row.replace(photo.name, copy.name)
    (folder / "manifest.csv").write_text("\n".join(["image,diagnosis,split", *rows, "gone.png,nv,valid"]) + "\n")


def test_evaluate_writes_report_predictions_and_ledger(capsys, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval_study" / "results").mkdir(parents=True)
    write_manifest(tmp_path, photo)
    argv = ["evaluate", "--data", str(tmp_path), "--split", "test", "--out", "r/report.json", "--bootstrap", "5"]
    assert cli.main([*argv, "--rationales", "all", "--reason", "a check"]) == 0
    report = json.loads(Path("r/report.json").read_text())
    assert report["n"] == 2 and report["meta"]["layout"] == "manifest" and report["meta"]["problems"] == 1
    assert report["meta"]["command"].startswith("python -m skinclip evaluate --data ")
    lines = Path("r/predictions.csv").read_text().splitlines()
    assert lines[0] == "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC" and len(lines) == 3
    ledger = Path("r/test_ledger.csv").read_text().splitlines()
    assert len(ledger) == 2 and ledger[1].endswith(f"{'ab' * 32},{tmp_path.name},test,2,a check")
    natural = Path("r/probabilities.csv").read_text().splitlines()
    assert natural[0] == f"{lines[0]},SCC,OTHER" and len(natural) == 3
    assert Path("r/report.html").read_text().startswith("<!DOCTYPE html>")
    assert "(argmax p / prior)" in capsys.readouterr().out
    assert cli.main([*argv[:3], "--split", "valid", "--out", "v.json", "--bootstrap", "5"]) == 0
    assert len(Path("r/test_ledger.csv").read_text().splitlines()) == 2  # valid is no test


def test_evaluate_says_what_is_wrong_in_one_line(capsys, photo, tmp_path):
    write_manifest(tmp_path, photo)
    data = ("evaluate", "--data", tmp_path, "--out", tmp_path / "report.json")
    assert "splits found: test, valid" in fails(capsys, *data, "--split", "tset")
    assert "no case of split ''" in fails(capsys, *data, "--split", "")  # never all of them, test included
    assert "manifest.csv" in fails(capsys, *data, "--strict")
    assert "neither a number" in fails(capsys, *data, "--rationales", "some")
    assert "give the report a file name" in fails(capsys, *data[:-1], tmp_path)
    assert "invalid choice" in fails(capsys, *data, "--layout", "coco")


THEIRS = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nphoto1.png,0.6,0.4,0,0,0,0,0\nphoto2,0.1,0.1,0.8,0,0,0,0\n"
PRIOR = "mel=1,nv=4,bcc=1,akiec=1,bkl=1,df=1,vasc=1"


@pytest.fixture
def theirs(tmp_path, photo, monkeypatch) -> Path:
    """Another system's predictions on the test split, mel and bcc, of a data set that is laid out beside them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval_study" / "results").mkdir(parents=True)
    write_manifest(tmp_path, photo)
    (tmp_path / "theirs.csv").write_text(THEIRS)
    return tmp_path / "theirs.csv"


def measure(*options) -> int:
    common = ["--data", ".", "--split", "test", "--out", "r/report.json", "--bootstrap", "5"]
    return cli.main(["evaluate", *common, *(str(option) for option in options)])


def test_another_systems_file_is_measured_without_a_model(theirs, capsys, monkeypatch):
    def no_model(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(FakeAssessor, "load", no_model)
    assert measure("--predictions", theirs, "--name", "Big 13B", "--reason", "rival") == 0
    report = json.loads(Path("r/report.json").read_text())
    assert report["n"] == 2 and report["accuracy"]["value"] == 1 and report["sensitivity"] is None
    assert report["meta"]["system"]["name"] == "Big 13B" and report["meta"]["model"] is None
    assert "Big 13B on 2 photos" in capsys.readouterr().out
    assert sorted(path.name for path in Path("r").iterdir()) == ["report.html", "report.json", "test_ledger.csv"]
    sha256 = hashlib.sha256(theirs.read_bytes()).hexdigest()
    ledger = Path("r/test_ledger.csv").read_text().splitlines()
    assert len(ledger) == 2 and f",{sha256},{theirs.parent.name},test,2,rival" in ledger[1]


def test_a_file_against_the_model_and_the_model_against_a_file(theirs, capsys):
    assert measure("--predictions", theirs, "--against", "model") == 0
    first = json.loads(Path("r/report.json").read_text())["comparison"]
    assert first["against"]["kind"] == "model" and first["differences"]["accuracy"]["value"] == 1
    assert "theirs less SkinCLIP-VL mini, paired, on 2 photos" in capsys.readouterr().out
    assert len(Path("r/test_ledger.csv").read_text().splitlines()) == 3  # both systems
    assert measure("--against", theirs, "--against-name", "Big", "--against-prior", PRIOR) == 0
    second = json.loads(Path("r/report.json").read_text())["comparison"]
    assert second["against"]["name"] == "Big" and second["against"]["prior"]["nv"] == pytest.approx(0.4)
    assert second["differences"]["accuracy"]["value"] == -1
    assert "McNemar's exact test of accuracy: p = 0.5" in capsys.readouterr().out


def test_what_evaluate_writes_can_be_compared_with(theirs, capsys):
    assert measure() == 0
    Path("r/probabilities.csv").rename("ours.csv")
    assert measure("--predictions", "ours.csv", "--against", theirs, "--prior", f"{PRIOR},scc=1,other=1") == 0
    report = json.loads(Path("r/report.json").read_text())
    assert report["comparison"]["n"] == 2 and report["meta"]["rules"]["balanced_accuracy"] == "argmax p / prior"


def test_photos_without_a_prediction_are_counted_where_allowed(theirs, capsys):
    theirs.write_text(THEIRS.rpartition("photo2")[0])
    out = ("--data", ".", "--split", "test", "--out", "r.json")
    message = fails(capsys, "evaluate", *out, "--predictions", theirs)
    assert "1 of 2 (photo2)" in message and "--allow-missing" in message
    assert measure("--predictions", theirs, "--allow-missing") == 0
    assert json.loads(Path("r/report.json").read_text())["meta"]["system"]["missing"] == 1
    assert "photos without a prediction of theirs, left out: 1" in capsys.readouterr().out
    assert "photo2" in Path("r/report.html").read_text()
    assert measure("--against", theirs, "--allow-missing") == 0
    assert "photos without a prediction of theirs, left out: 1" in capsys.readouterr().out
    assert "Photos without a prediction of theirs, 1: photo2" in Path("r/report.html").read_text()


def test_options_of_other_systems_that_do_not_fit_give_one_line(theirs, capsys):
    data = ("evaluate", "--data", ".", "--split", "test", "--out", "r.json")
    assert "give that file" in fails(capsys, *data, "--name", "x")
    assert "--prior is for --predictions" in fails(capsys, *data, "--prior", PRIOR)
    assert "give the file as --predictions" in fails(capsys, *data, "--against", "model")
    assert "for a file given as --against" in fails(capsys, *data, "--against-name", "x")
    assert "name each of" in fails(capsys, *data, "--predictions", theirs, "--prior", "0.1,0.2")
    assert "cannot be read" in fails(capsys, *data, "--predictions", "no.csv")
    assert "name it r.json" in fails(capsys, *data[:-1], "r.html")
    theirs.rename("predictions.csv")
    assert "would be written over" in fails(capsys, *data, "--against", "predictions.csv")
    assert not Path("test_ledger.csv").exists()


def make_layout(folder: Path, layout: str, photo: bytes) -> None:
    """Two photos, of a nevus and a melanoma, in one of the layouts that can be read."""

    def put(name: str, content: bytes) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    isic = "ISIC2018_Task3_Validation_GroundTruth"
    table, photos, lines = {
        "isic2018": (
            f"{isic}/{isic}.csv",
            "ISIC2018_Task3_Validation_Input",
            ["image,MEL,NV,BCC,AKIEC,BKL,DF,VASC", "ISIC_1,0,1,0,0,0,0,0", "ISIC_2,1,0,0,0,0,0,0"],
        ),
        "ham10000": (
            "HAM10000_metadata.csv",
            "HAM10000_images_part_1",
            ["lesion_id,image_id,dx", "HAM_1,ISIC_1,nv", "HAM_2,ISIC_2,mel"],
        ),
        "derm7pt": (
            "meta/meta.csv",
            "images",
            ["case_num,diagnosis,derm", "1,clark nevus,ISIC_1.jpg", "2,melanoma (in situ),ISIC_2.jpg"],
        ),
        "milk10k": (
            "MILK10k_Training_Metadata.csv",
            "MILK10k_Training_Input/IL",
            ["lesion_id,image_type,isic_id", "IL_1,dermoscopic,ISIC_1", "IL_2,dermoscopic,ISIC_2"],
        ),
        "isic2018_task2": (
            "labels.csv",
            "images",
            [f"image_id,{','.join(ATTRIBUTES)},diagnosis", "ISIC_1,0,0,0,0,0,nv", "ISIC_2,0,0,0,0,0,mel"],
        ),
        "isic2019": (
            "ISIC_2019_Training_GroundTruth.csv",
            "ISIC_2019_Training_Input",
            ["image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK", "ISIC_1,0,1,0,0,0,0,0,0,0", "ISIC_2,1,0,0,0,0,0,0,0,0"],
        ),
        "isic2020": (
            "train.csv",
            "train",
            ["image_name,diagnosis,benign_malignant", "ISIC_1,nevus,benign", "ISIC_2,melanoma,malignant"],
        ),
        "pad_ufes": (
            "metadata.csv",
            "imgs_part_1",
            ["img_id,diagnostic", "ISIC_1.jpg,NEV", "ISIC_2.jpg,MEL"],
        ),
        "isic_archive": (
            "metadata.csv",
            "photos",
            ["isic_id,diagnosis_1,diagnosis_3", "ISIC_1,Benign,Nevus", "ISIC_2,Malignant,Melanoma Invasive"],
        ),
        "manifest": (
            "manifest.csv",
            "photos",
            ["image,diagnosis", "photos/ISIC_1.jpg,nv", "photos/ISIC_2.jpg,mel"],
        ),
    }[layout]
    put(table, "\n".join(lines).encode())
    if layout == "milk10k":
        classes = "AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC"
        rows = [f"lesion_id,{classes}", "IL_1,0,0,0,0,0,0,0,0,1,0,0", "IL_2,0,0,0,0,0,0,0,1,0,0,0"]
        put("MILK10k_Training_GroundTruth.csv", "\n".join(rows).encode())
    if layout == "isic2018_task2":
        put("attribute_masks/readme.txt", b"none is drawn")
    for number in (1, 2):
        put(f"{photos}/ISIC_{number}.jpg", photo)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_figures_and_a_page(layout, tmp_path, capsys):
    picture = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 120, dtype=np.uint8)).save(picture, "JPEG")
    make_layout(tmp_path / "data", layout, picture.getvalue())
    out = tmp_path / "out" / "report.json"
    assert cli.main(["evaluate", "--data", str(tmp_path / "data"), "--out", str(out), "--bootstrap", "5"]) == 0
    report = json.loads(out.read_text())
    assert report["meta"]["layout"] == layout and report["n"] == 2 and report["meta"]["problems"] == 0
    # The fake gives all classes the same probability, of which the first is taken: akiec.
    assert report["accuracy"]["value"] == 0 and report["auroc_malignant"]["value"] == 0.5
    assert report["brier"]["value"] == pytest.approx(6 / 7) and report["curves"]["confusion"][4][0] == 1
    assert "Evaluation of SkinCLIP-VL mini" in out.with_suffix(".html").read_text()


def test_train_hands_over_to_its_module(capsys, monkeypatch):
    training = ModuleType("skinclip.training.run")
    training.add_arguments = lambda parser: (
        parser.add_argument("--preset", default="mini"),
        parser.add_argument("--recipe", type=Path),
        parser.add_argument("--seed", type=int),
    )
    training.run = lambda args: print(f"trained {args.preset}")
    monkeypatch.setitem(sys.modules, "skinclip.training.run", training)
    monkeypatch.setattr("skinclip.training.run", training, raising=False)
    assert cli.main(["train"]) == 0
    assert "trained mini" in capsys.readouterr().out
    assert "choose one of mini" in fails(capsys, "train", "--preset", "huge")
    assert "-1 is not a valid seed" in fails(capsys, "train", "--seed=-1")


@pytest.mark.parametrize("name", [None, "results.json"])
def test_a_full_disk_is_told_with_what_to_do(capsys, monkeypatch, photo, tmp_path, name):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", *([str(tmp_path / name)] if name else []))

    monkeypatch.setattr(FakeAssessor, "assess", full)
    assert cli.main(["assess", str(photo), "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.splitlines()[-1].startswith("skinclip: the disk")
    assert "is full; free some space and give the command again" in told.err and "permissions" not in told.err
