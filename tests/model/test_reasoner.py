from __future__ import annotations

import copy
import dataclasses
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from skinclip.core.assessment import Context, Differential
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.language.prompt import RationaleTarget, context_text
from skinclip.language.rationale_check import check_citations, check_rationale, read_rationale
from skinclip.model.answer import at_most_unit
from skinclip.model.checkpoint import load_model, save_model
from skinclip.model.errors import CheckpointError
from skinclip.model.evidence import Evidence
from skinclip.model.perception import VisualTokens
from skinclip.model.qwen import load_language_model, quantize_to, qwen_config
from skinclip.model.reasoner import FALLBACK_PARAPHRASES
from skinclip.model.tokenizer import mini_tokenizer


@pytest.fixture(scope="module")
def look(tiny_model):
    torch.manual_seed(3)
    with torch.no_grad():
        seen = tiny_model.perceive(torch.rand(2, 3, 160, 160))
        return seen, tiny_model.find_evidence(seen)


def test_lora_touches_language_layers_only(tiny_model) -> None:
    names = [n for n, p in tiny_model.reasoner.language_model.named_parameters() if p.requires_grad]
    assert names and all("lora_" in n and "language_model.layers" in n for n in names)
    assert not any("visual" in n for n in names)


def test_quantization_leaves_vision_and_head_alone(tiny_config, tmp_path) -> None:
    import bitsandbytes as bnb

    model = Qwen2_5_VLForConditionalGeneration(qwen_config(tiny_config.reasoner, mini_tokenizer()))
    quantize_to(model, tmp_path / "nf4")
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "nf4", dtype=torch.float32)
    four_bit = [n for n, m in loaded.named_modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert four_bit and all("language_model" in n for n in four_bit)
    assert not isinstance(loaded.lm_head, bnb.nn.Linear4bit)
    for name, layer in loaded.model.visual.named_modules():
        assert not isinstance(layer, bnb.nn.Linear4bit), name


def test_dequantized_once_gives_the_numbers_of_nf4(tiny_config, tmp_path) -> None:
    import bitsandbytes as bnb

    tokenizer = mini_tokenizer()
    quantize_to(Qwen2_5_VLForConditionalGeneration(qwen_config(tiny_config.reasoner, tokenizer)), tmp_path / "nf4")
    four_bit = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "nf4", dtype=torch.float32).eval()
    plain = load_language_model(tmp_path / "nf4", quantize=True)
    layers = dict(plain.named_modules())
    for name, layer in four_bit.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            expected = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            assert torch.equal(layers[name].weight, expected), name
    ids = torch.tensor([tokenizer("patient : age 55 , male , back .")["input_ids"]])
    with torch.no_grad():  # the NF4 kernel for CPUs multiplies with less precision than the dequantized weights
        torch.testing.assert_close(four_bit(input_ids=ids).logits, plain(input_ids=ids).logits, atol=2e-2, rtol=0.05)


def test_no_word_of_a_prompt_is_unknown(tiny_model) -> None:
    prompts = tiny_model.reasoner.writer.write(
        [Context(47, "female", "head or neck")],
        [
            RationaleTarget(
                ["streaks:irregular", "colour:variegated"], "mel", "nv", "this looks most like melanoma on the whole ."
            )
        ],
    )
    assert not (prompts.input_ids == tiny_model.reasoner.tokenizer.unk_token_id).any()


def test_missing_context_is_left_out() -> None:
    assert context_text(Context()) == "patient : not given ."
    assert context_text(Context(age=52)) == "patient : age 50 ."


def test_order_of_descriptions_does_not_change_probabilities(tiny_model, look) -> None:
    seen, evidence = look
    prompts = tiny_model.reasoner.writer.write([Context(), Context(60, "male", "back")])
    order = torch.randperm(len(DIAGNOSES))
    with torch.no_grad():
        straight = tiny_model.reasoner(prompts, seen, evidence, tiny_model.descriptions).logits
        shuffled = tiny_model.reasoner(prompts, seen, evidence, tiny_model.descriptions[order]).logits
    assert torch.equal(straight[:, order].softmax(1).argmax(1), shuffled.softmax(1).argmax(1))
    torch.testing.assert_close(straight[:, order], shuffled)


def test_the_answer_corrects_the_photo_by_no_more_than_its_own_length(tiny_model) -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(at_most_unit(vectors), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    reasoner, descriptions = tiny_model.reasoner, tiny_model.descriptions
    whole = descriptions[:1]  # a photo that is just as the first diagnosis is described
    hidden = torch.randn(1, 1, reasoner.to_diagnosis[0].normalized_shape[0])
    loud = copy.deepcopy(reasoner.to_diagnosis[-1].weight)
    with torch.no_grad():
        reasoner.to_diagnosis[-1].weight.mul_(1e4)
        logits = reasoner.diagnose(hidden, torch.tensor([0]), descriptions, whole)
        reasoner.to_diagnosis[-1].weight.copy_(loud)
    cosine = logits[0, 0] / reasoner.logit_scale.exp()
    assert cosine > -1e-3  # however loud the answer, it cannot outweigh what CLIP saw


def test_a_checklist_state_moves_the_answer_towards_what_it_speaks_for(tiny_model) -> None:
    reasoner, descriptions = tiny_model.reasoner, tiny_model.descriptions
    hidden, position = torch.zeros(1, 1, reasoner.to_diagnosis[0].normalized_shape[0]), torch.tensor([0])
    scores = torch.full((1, reasoner.checklist.in_features), -3.0)
    none = torch.zeros(1, 1, 1)

    def seen() -> Evidence:
        return Evidence(none, none, none, scores, none, none)

    kept = reasoner.checklist.weight.clone()
    with torch.no_grad():
        reasoner.checklist.weight.zero_()
        reasoner.checklist.weight[:, 3] = descriptions[1] - descriptions.mean(0)
        before = reasoner.diagnose(hidden, position, descriptions, descriptions[:1], seen()).softmax(1)
        scores[0, 3] = 3.0
        after = reasoner.diagnose(hidden, position, descriptions, descriptions[:1], seen()).softmax(1)
        reasoner.checklist.weight.copy_(kept)
    assert after[0, 1] > before[0, 1]


def test_padding_does_not_change_the_diagnosis(tiny_model, look) -> None:
    seen, evidence = look
    write = tiny_model.reasoner.writer.write
    with torch.no_grad():
        alone = tiny_model.reason(write([Context(), Context()]), seen, evidence).logits
        padded = tiny_model.reason(write([Context(), Context(60, "male", "back")]), seen, evidence).logits
    torch.testing.assert_close(alone[0], padded[0], atol=1e-5, rtol=1e-4)


def test_a_hidden_photo_cannot_be_read(tiny_model, look) -> None:
    """With its CLIP tokens hidden, a photo's diagnosis hangs on its evidence alone."""
    seen, evidence = look
    prompts = tiny_model.reasoner.writer.write([Context(), Context()])
    other = VisualTokens(seen.tokens.flip(0), seen.grid, seen.embedding.flip(0), seen.levels)
    hidden = torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        one, two = (tiny_model.reason(prompts, s, evidence, hidden).logits for s in (seen, other))
        absent = tiny_model.reason(prompts, None, evidence).logits
        shown = tiny_model.reason(prompts, other, evidence).logits
    assert torch.equal(one, two)
    torch.testing.assert_close(one, absent)
    assert not torch.allclose(one, shown, atol=1e-3)


def test_the_story_does_not_reach_back_to_the_diagnosis(tiny_model, look) -> None:
    seen, evidence = look
    write = tiny_model.reasoner.writer.write
    rationale_targets = [RationaleTarget(["streaks:irregular"], "mel", "nv")] * 2
    with torch.no_grad():
        silent = tiny_model.reason(write([Context(), Context()]), seen, evidence).logits
        told = tiny_model.reason(write([Context(), Context()], rationale_targets), seen, evidence).logits
    torch.testing.assert_close(silent, told, atol=1e-5, rtol=1e-4)


def test_photo_tokens_have_two_dimensional_positions(tiny_model) -> None:
    prompts = tiny_model.reasoner.writer.write([Context()])
    positions, _ = tiny_model.reasoner.base.model.get_rope_index(
        prompts.input_ids, prompts.mm_token_type_ids, image_grid_thw=prompts.image_grid_thw[0]
    )
    photo = positions[:, 0, prompts.mm_token_type_ids[0] == 1]
    g = tiny_model.config.reasoner.clip_grid
    rows, columns = photo[1] - photo[1].min(), photo[2] - photo[2].min()
    assert rows.tolist() == [k // g for k in range(g * g)]
    assert columns.tolist() == [k % g for k in range(g * g)]


def test_generate_honours_the_embeddings(tiny_model, look) -> None:
    """The first generated step has the scores of a plain forward with the same embeddings, and not of others."""
    seen, evidence = look
    reasoner = tiny_model.reasoner
    one = type(seen)(seen.tokens[:1], seen.grid, seen.embedding[:1], [level[:1] for level in seen.levels])
    found = evidence.pick(torch.tensor([0]))
    prompts = reasoner.writer.write([Context()], [RationaleTarget([], "mel", "nv")])
    embeds = reasoner.inputs(prompts, one, found)
    kwargs = {
        "input_ids": prompts.input_ids,
        "attention_mask": prompts.attention_mask,
        "mm_token_type_ids": prompts.mm_token_type_ids,
        "image_grid_thw": prompts.image_grid_thw[0],
    }

    def first_scores(inputs_embeds: torch.Tensor) -> torch.Tensor:
        out = reasoner.base.generate(
            **kwargs, inputs_embeds=inputs_embeds, max_new_tokens=1, do_sample=False, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        return out.scores[0]

    with torch.no_grad():
        expected = reasoner.base.lm_head(reasoner.hidden(prompts, embeds)[:, -1])
        torch.testing.assert_close(first_scores(embeds), expected, atol=1e-4, rtol=1e-4)
        assert (first_scores(reasoner.inputs(prompts, None, None)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("paraphrases", [0, 16])
def test_only_findings_that_exist_can_be_cited(tiny_model, look, paraphrases: int, monkeypatch) -> None:
    """Even an untrained model cannot assert anything else, whatever it babbles."""
    seen, evidence = look
    one = type(seen)(seen.tokens[:1], seen.grid, seen.embedding[:1], [level[:1] for level in seen.levels])
    found = evidence.pick(torch.tensor([0]))
    findings = ["streaks:irregular", "border:regular"]
    reasoner = tiny_model.reasoner
    monkeypatch.setattr(reasoner, "config", dataclasses.replace(reasoner.config, paraphrases=paraphrases))
    text = tiny_model.reasoner.explain(Context(), one, found, findings, Differential("mel", "nv"))
    assert text == tiny_model.reasoner.explain(Context(), one, found, findings, Differential("mel", "nv"))
    assert not check_citations(text, findings)
    assert set(re.findall(r"\[r\d\]", text)) <= {"[r1]", "[r2]"}
    assert "basal" not in text and "keratosis" not in text
    # the whole text is one of those that are true to the findings, decoded anew where the free one is not
    among = reasoner.paraphrases(findings, Differential("mel", "nv"), paraphrases or FALLBACK_PARAPHRASES)
    assert reasoner.writer.words_between(text) in among
    assert read_rationale(text).leading == "mel"
    assert not check_rationale(text, findings, ("mel", "nv"))


def test_saved_and_loaded_equals_live(tiny_model, look, tmp_path) -> None:
    seen, _ = look
    save_model(tiny_model, tmp_path / "checkpoint")
    again = load_model(tmp_path / "checkpoint")
    prompts = tiny_model.reasoner.writer.write([Context(), Context(30, "female", "back")])
    photos = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        for model in (tiny_model, again):
            seen = model.perceive(photos)
            evidence = model.find_evidence(seen)
            model.result = (evidence.maps, model.reason(prompts, seen, evidence).logits)  # type: ignore[assignment]
    for live, loaded in zip(tiny_model.result, again.result, strict=True):
        assert torch.equal(live, loaded)


@pytest.mark.parametrize("part", ["heads.safetensors", "adapter.safetensors", "perception.safetensors"])
def test_missing_or_unexpected_keys_are_an_error(tiny_model, tmp_path, part: str) -> None:
    save_model(tiny_model, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / part
    state = load_file(path)
    state["surplus"] = torch.zeros(1)
    state.pop(next(iter(state)))
    save_file(state, path)
    with pytest.raises((CheckpointError, RuntimeError), match=r"missing.*unexpected"):
        load_model(tmp_path / "checkpoint")


def test_incomplete_checkpoint_says_what_is_missing(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="config.yaml is missing"):
        load_model(tmp_path)
