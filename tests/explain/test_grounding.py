"""Qwen2.5-VL's boxes as a second opinion: read from whatever it writes, mapped to the photo, compared with regions."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from skinclip.cli import main as cli
from skinclip.core.assessment import Finding, Region
from skinclip.core.vocabulary import EVIDENCE_STATES
from skinclip.explain import grounding
from skinclip.explain.grounding import AGREES_FROM, SecondOpinion, compare, parse, second_opinions, to_photo
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import encode_png, from_array
from skinclip.imaging.transform import Window
from skinclip.model.own_vision import patches
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting.phrasing import second_opinion
from tests.helpers.tiny_hub import OWN_SIDE

SIDE = 448
ONE = (10.0, 20.0, 110.0, 220.0)


def boxes(answer: str) -> tuple[tuple[float, ...], ...]:
    return parse(answer, SIDE).boxes


@pytest.mark.parametrize(
    "answer",
    [
        '[{"bbox_2d": [10, 20, 110, 220], "label": "network"}]',
        '```json\n[\n\t{"bbox_2d": [10, 20, 110, 220], "label": "network"}\n]\n```',
        '{"bbox_2d": [10, 20, 110, 220]}',  # no list, no label
        '{"bbox_2d": [[10, 20, 110, 220]]}',
        '{"objects": [{"label": "network", "bbox_2d": [10.0, 20.0, 110.0, 220.0]}]}',
        "[{'bbox_2d': [10, 20, 110, 220], 'label': 'network'}]",
        '{"bbox_2d": ["10", "20", "110", "220"], "label": null}',
        '{"bbox_2d": [110, 220, 10, 20]}',  # corners swapped
        '{"bbox_2d": [110, 20, 10, 220], "label": 7}',
        'The network is here: {"bbox_2d": [10, 20, 110, 220]} as far as I can see.',
        '[{"bbox_2d": [10, 20, 110, 220], "label": "a"}, {"bbox_2d": [10, 20, 110, 220], "label": "again"}]',
    ],
)
def test_one_box_in_every_form_in_which_it_is_written(answer: str) -> None:
    assert parse(answer, SIDE) == grounding.Parsed((ONE,), ())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('[{"bbox_2d": [10, 20, 110, 220], "label": "netw', None),  # cut within the label: the box is whole
        ('[{"bbox_2d": [10, 20, 110, 220], "label": "a"}, {"bbox_2d": [30, 40, 5', "cut short"),
        ('[{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [1, 2, 3, 99', "cut short"),  # 99 may be the start of 990
        ('{"bbox_2d": [10, 20, 110, 220]} {"point_2d": [30, 40], "label": "b"}', "a point"),
        ('{"bbox_2d": [10, 20, 110, 220]} {"bbox": [30, 40, 50, 60]}', "without bbox_2d"),
        ('{"bbox_2d": [10, 20, 110, 220]} {bbox_2d: oops}', "not JSON"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [NaN, 20, 110, 220]}', "four finite numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [10, 20, 110, Infinity]}', "four finite numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [10, 20, 110, 1e400]}', "four finite numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [1' + "0" * 60 + ", 2, 3, 4]}", "four finite numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [true, 2, 30, 40]}', "four finite numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": ["a", 2, 30, 40]}', "four numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [1, 2, 30]}', "four numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": "10, 20, 30, 40"}', "four numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": null}', "four numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": []}', "four numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [[[1, 2, 3, 4]]]}', "four numbers"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [500, 500, 900, 900]}', "beyond the photo"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [-300, 0, 100, 100]}', "beyond the photo"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [0.1, 0.2, 0.3, 0.4]}', "smaller than a pixel"),
        ('{"bbox_2d": [10, 20, 110, 220]}, {"bbox_2d": [50, 50, 50, 90]}', "smaller than a pixel"),
        ('{"bbox_2d": [10, 20, 110, 220]}' + " and so on" * 500, "follows the first"),
    ],
)
def test_what_is_no_sound_box_is_dropped_and_said_and_takes_no_other_with_it(answer: str, reason: str | None) -> None:
    parsed = parse(answer, SIDE)
    assert parsed.boxes == (ONE,)
    assert len(parsed.dropped) == (reason is not None) and (reason is None or reason in parsed.dropped[0])


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "There is no pigment network in this photo.",
        "[]",
        "```json\n```",
        "{" * 5000,
        "[" * 5000 + '"bbox_2d"',
        '{"bbox_2d": ' + "[" * 3000 + "]" * 3000 + "}",
        '{"bbox_2d":' * 500,
        "}}}}" + "\x00\ud800\u202e" * 50,
        '{"bbox_2d": [1' + "9" * 3000 + ", 1, 2, 3]}",
        '{"bbox_2d": {"x": 1}}',
        "<|box_start|>(10,20),(110,220)<|box_end|>",
    ],
)
def test_no_answer_is_an_error(answer: str) -> None:
    parsed = parse(answer, SIDE)
    assert parsed.boxes == () and parsed.dropped


def test_several_boxes_are_kept_clipped_and_counted() -> None:
    assert boxes('[{"bbox_2d": [1, 2, 30, 40]}, {"bbox_2d": [50, 60, 70, 80]}]') == ((1, 2, 30, 40), (50, 60, 70, 80))
    assert boxes('{"bbox_2d": [[1, 2, 30, 40], [50, 60, 70, 80]]}') == ((1, 2, 30, 40), (50, 60, 70, 80))
    assert boxes('{"bbox_2d": [-5, 0, 460, 448]}') == ((0, 0, 448, 448),)
    many = "[" + ", ".join(f'{{"bbox_2d": [{i}, 0, {i + 9}, 9]}}' for i in range(30)) + "]"
    parsed = parse(many, SIDE)
    assert len(parsed.boxes) == 20 and parsed.dropped == ("boxes after the first 20",)


# --- against the photo --------------------------------------------------------------------------------------------


def finding(box: tuple[float, float, float, float]) -> Finding:
    x0, y0, x1, y1 = box
    polygon = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return Finding("r2", "streaks", "irregular", 0.8, Region(box, (polygon,)))


def test_boxes_of_an_off_centre_window_lie_on_the_photo() -> None:
    """A photo of 1000 x 600 whose window lies on its right: 448 pixels of the model are 600 of the photo."""
    window = Window(380, 0, 600)
    assert to_photo((0, 0, SIDE, SIDE), window, SIDE) == (380, 0, 980, 600)
    assert to_photo((224, 112, 448, 224), window, SIDE) == pytest.approx((680, 150, 980, 300))
    portrait = Window(0, 250, 300)
    assert to_photo((0, 0, 224, 448), portrait, SIDE) == pytest.approx((0, 250, 150, 550))

    seen = finding((680, 150, 980, 300))
    there = compare(seen, parse('{"bbox_2d": [224, 112, 448, 224]}', SIDE), window, SIDE)
    assert there == SecondOpinion("r2", (pytest.approx((680, 150, 980, 300)),), pytest.approx(1.0), True)
    assert second_opinion(there) == "It sees it there too (overlap 1.00)."


def test_a_box_agrees_by_its_centre_and_its_overlap() -> None:
    window, seen = Window(0, 0, SIDE), finding((100, 100, 200, 200))
    half = compare(seen, parse('{"bbox_2d": [100, 100, 200, 150]}', SIDE), window, SIDE)
    assert half.iou == pytest.approx(0.5) and half.agrees
    whole = compare(seen, parse('{"bbox_2d": [0, 0, 448, 448]}', SIDE), window, SIDE)  # everything is no answer
    assert whole.iou == pytest.approx(1e4 / SIDE**2) and whole.iou < AGREES_FROM and whole.agrees is False
    beside = compare(seen, parse('{"bbox_2d": [150, 100, 300, 200]}', SIDE), window, SIDE)
    assert beside.iou == pytest.approx(0.25) and beside.agrees is False  # the centre lies outside
    assert "elsewhere (overlap 0.25)" in second_opinion(beside)
    best = compare(seen, parse('{"bbox_2d": [[300, 300, 400, 400], [110, 110, 190, 190]]}', SIDE), window, SIDE)
    assert best.agrees and best.iou == pytest.approx(0.64) and len(best.boxes) == 2
    none = compare(seen, parse("I see nothing", SIDE), window, SIDE)
    assert none == SecondOpinion("r2", (), None, None, ("an answer without a box",))
    assert second_opinion(none) == "It gave no usable box."


# --- the whole way ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_question_is_put_as_to_the_published_model(big_assessor: Assessor) -> None:
    """LoRA off, its own tokens only, its own chat template: the answer equals that of `generate` on the bare base."""
    reasoner = big_assessor.model.reasoner
    photo = torch.rand(1, 3, OWN_SIDE, OWN_SIDE)
    question = "Locate a mesh, output its bbox coordinates using JSON format."
    prompts = reasoner.writer.question(question)
    text = reasoner.tokenizer.decode(prompts.input_ids[0]).replace("<|image_pad|>", "")
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"{question}<|vision_start|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    n = OWN_SIDE // 28
    assert int((prompts.input_ids == reasoner.writer.image_id).sum()) == n * n
    assert prompts.image_grid_thw.tolist() == [[[1, 2 * n, 2 * n]]]

    asked = reasoner.ask(reasoner.own_tokens(photo), question, 12)
    with reasoner.language_model.disable_adapter():
        plain = reasoner.base.generate(
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask,
            mm_token_type_ids=prompts.mm_token_type_ids,
            pixel_values=patches(photo),
            image_grid_thw=prompts.image_grid_thw[0],
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=reasoner.writer.end_id,
            pad_token_id=reasoner.writer.pad_id,
        )
    assert asked == reasoner.decode(plain[0, prompts.input_ids.shape[1] :].tolist())


def test_a_random_model_gives_no_usable_box_and_no_error(big_assessor: Assessor) -> None:
    photo = from_array(draw("melanoma", 7))
    assessment = big_assessor.assess(photo)
    found = second_opinions(big_assessor.predictor, photo, assessment)
    located = {state.key for state in EVIDENCE_STATES}
    assert [o.reference for o in found] == [f.ref for f in assessment.findings if f.key in located] and found
    assert all(o.boxes == () and o.agrees is None and o.dropped for o in found)
    assert big_assessor.assess(photo) == assessment  # LoRA is on again


def test_a_finding_is_asked_for_in_plain_words_and_answered_on_the_photo(big_assessor: Assessor, monkeypatch) -> None:
    asked: list[str] = []

    def ask(own: torch.Tensor, question: str, longest: int) -> str:
        asked.append(question)
        assert own.shape[:2] == (1, (OWN_SIDE // 28) ** 2)
        return f'```json\n[{{"bbox_2d": [0, 0, {OWN_SIDE}, {OWN_SIDE}], "label": "all of it"}}]\n```'

    monkeypatch.setattr(big_assessor.model.reasoner, "ask", ask)
    photo = from_array(np.pad(draw("melanoma", 7), ((0, 0), (200, 0), (0, 0)), "edge"))  # wide, the lesion on the right
    assessment = big_assessor.assess(photo)
    window = big_assessor.locate([photo])[0]
    found = second_opinions(big_assessor.predictor, photo, assessment)
    expected = (window.x, window.y, window.x + window.side, window.y + window.side)
    assert found and all(o.boxes == (expected,) for o in found)
    first = next(s for s in EVIDENCE_STATES if s.key == assessment.findings[0].key)
    assert asked[0] == f"Locate {first.descriptions[0]}, output its bbox coordinates using JSON format."


def test_a_preset_without_the_tower_says_so(tmp_path, capsys) -> None:
    photo = from_array(draw("melanoma", 7))
    with pytest.raises(NotImplementedError, match="own vision tower"):
        second_opinions(Assessor.load("mini").predictor, photo, None)  # type: ignore[arg-type]
    (tmp_path / "photo.png").write_bytes(encode_png(photo.pixels))
    assert cli.main(["assess", str(tmp_path / "photo.png"), "--second-opinion"]) == 2
    assert "leave out --second-opinion" in capsys.readouterr().err


def test_the_command_line_tells_and_writes_it(big_config, big_checkpoint, tmp_path, capsys) -> None:
    (tmp_path / "photo.png").write_bytes(encode_png(draw("melanoma", 7)))
    words = ["assess", str(tmp_path / "photo.png"), "--preset", big_config.preset, "--weights", str(big_checkpoint)]
    out = tmp_path / "out"
    assert cli.main([*words, "--second-opinion", "--out", str(out)]) == 0
    assert "Qwen2.5-VL on [r1]: It gave no usable box." in capsys.readouterr().out
    written = json.loads((out / "second_opinion.json").read_text())
    assert written[0]["reference"] == "r1" and set(written[0]) == {f.name for f in dataclasses.fields(SecondOpinion)}
