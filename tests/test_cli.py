import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from skinclip import cli
from skinclip.assessment import (
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
from skinclip.clinical import DIAGNOSES, DIAGNOSIS_CODES

REGION = Region((1.0, 2.0, 30.0, 40.0), (((1.0, 2.0), (30.0, 2.0), (30.0, 40.0)),))


def make_assessment(context: Context, in_domain: bool = True) -> Assessment:
    p = [0.02, 0.03, 0.1, 0.01, 0.6, 0.2, 0.04]
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
        rationale="Most likely this is melanoma, given [r1] irregular streaks.",
        abstained=not in_domain,
    )


class FakeAssessor:
    in_domain = True
    loaded: tuple = ()
    model_info = ModelInfo("mini", "0.1.0", "ab" * 32)

    @classmethod
    def load(cls, preset="mini", weights=None):
        if preset != "mini":
            raise ValueError(f"no preset {preset!r};\nchoose mini")
        print("a library that chats while it loads")
        cls.loaded = (preset, weights)
        return cls()

    def assess(self, image, context=None, progress=None):
        return make_assessment(context, self.in_domain)

    def predict(self, images, contexts):
        p = np.full(len(DIAGNOSIS_CODES), 1 / 7)
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
            )
            for image in images
        ]


@pytest.fixture(autouse=True)
def fake_model(monkeypatch):
    """The command line without a model: what it imports late is put in place first."""
    modules = {
        "skinclip.assess": {"Assessor": FakeAssessor},
        "skinclip.model.skinclip_vl": {"CheckpointError": type("CheckpointError", (RuntimeError,), {})},
        "skinclip.explain.gradcam": {"grad_cam": lambda assessor, image, context: np.zeros(image.pixels.shape[:2])},
        "skinclip.explain.render": {
            "region_overlay": lambda pixels, assessment: pixels,
            "heatmap_overlay": lambda pixels, heat: pixels,
        },
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


def test_readable_text_says_what_matters(capsys, photo, monkeypatch):
    monkeypatch.setattr(FakeAssessor, "in_domain", False)
    assert cli.main(["assess", str(photo), "--age", "unknown"]) == 0
    out = capsys.readouterr().out
    for words in (
        "Research use only",
        "melanoma                60.0%",
        "90% coverage: melanoma, melanocytic nevus",
        "Refer: P(malignant) is 65.0%, referral from 20.0%",
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


def test_a_preset_without_grad_cam_still_writes_the_rest(photo, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise NotImplementedError("Grad-CAM needs a convolutional image tower")

    monkeypatch.setattr(sys.modules["skinclip.explain.gradcam"], "grad_cam", refuse)
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
    assert "COMMAND" in fails(capsys)
    assert "folder" in fails(capsys, "evaluate", "--data", tmp_path / "no", "--out", "r.json", "--layout", "manifest")


def test_a_fault_of_the_program_is_not_hidden(photo, monkeypatch):
    def broken(*_):
        raise ValueError("a fault")

    monkeypatch.setattr(FakeAssessor, "assess", broken)
    with pytest.raises(ValueError, match="a fault"):
        cli.main(["assess", str(photo)])


def test_layouts_offered_are_those_that_can_be_read():
    from skinclip.data.readers import LAYOUTS

    assert set(cli.LAYOUT_NAMES) == set(LAYOUTS)


def test_help_is_light(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(c in out for c in ("assess", "evaluate", "train"))


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
    ledger = Path("eval_study/results/test_ledger.csv").read_text().splitlines()
    assert len(ledger) == 2 and ledger[1].endswith(f"{'ab' * 32},{tmp_path.name},test,2,a check")
    assert "(argmax p / prior)" in capsys.readouterr().out
    assert cli.main([*argv[:3], "--split", "valid", "--out", "v.json", "--bootstrap", "5"]) == 0
    assert len(Path("eval_study/results/test_ledger.csv").read_text().splitlines()) == 2  # valid is no test


def test_evaluate_says_what_is_wrong_in_one_line(capsys, photo, tmp_path):
    write_manifest(tmp_path, photo)
    data = ("evaluate", "--data", tmp_path, "--out", tmp_path / "report.json")
    assert "splits found: test, valid" in fails(capsys, *data, "--split", "tset")
    assert "manifest.csv" in fails(capsys, *data, "--strict")
    assert "neither a number" in fails(capsys, *data, "--rationales", "some")
    assert "give the report a file name" in fails(capsys, *data[:-1], tmp_path)
    assert "invalid choice" in fails(capsys, *data, "--layout", "coco")


def test_train_hands_over_to_its_module(capsys, monkeypatch):
    import skinclip

    training = ModuleType("skinclip.train")
    training.add_arguments = lambda parser: (
        parser.add_argument("--preset", default="mini"),
        parser.add_argument("--recipe", type=Path),
    )
    training.run = lambda args: print(f"trained {args.preset}")
    monkeypatch.setitem(sys.modules, "skinclip.train", training)
    monkeypatch.setattr(skinclip, "train", training, raising=False)
    assert cli.main(["train"]) == 0
    assert "trained mini" in capsys.readouterr().out
    assert "choose one of mini" in fails(capsys, "train", "--preset", "huge")
