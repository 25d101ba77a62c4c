"""The big presets, whole, on a tiny base laid out as the hub lays it out."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LogitsProcessorList, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

from skinclip.core.assessment import Context, Differential
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.language.prompt import RationaleTarget
from skinclip.language.rationale_check import check_rationale
from skinclip.model import reasoner as reasoner_module
from skinclip.model.checkpoint import load_model, save_model
from skinclip.model.decoding import greedy
from skinclip.model.errors import CheckpointError
from skinclip.model.evidence import Evidence
from skinclip.model.own_vision import own_grid, patches
from skinclip.model.perception import VisualTokens
from skinclip.model.qwen import UNQUANTIZED, load_language_model, quantization
from skinclip.model.skinclip_vl import SkinClipVL, assemble
from skinclip.model.tokenizer import load_tokenizer
from tests.helpers.tiny_hub import OWN_SIDE, tiny_base, tiny_clip, tiny_preset, tiny_qwen

FINDINGS = ["streaks:irregular", "pigment_network:atypical"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> SkinClipVL:
    return tiny_qwen(tiny_preset(base, tiny_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture(scope="module")
def look(model: SkinClipVL) -> tuple[VisualTokens, Evidence]:
    torch.manual_seed(3)
    with torch.no_grad():
        seen = model.perceive(torch.rand(2, 3, OWN_SIDE, OWN_SIDE))
        return seen, model.find_evidence(seen)


def one(look: tuple[VisualTokens, Evidence]) -> tuple[VisualTokens, Evidence]:
    first = torch.tensor([0])
    return look[0].pick(first), look[1].pick(first)


def test_patches_are_those_of_qwens_own_image_processor() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (OWN_SIDE, OWN_SIDE, 3), np.uint8)
    theirs = Qwen2VLImageProcessor(do_resize=False)(images=Image.fromarray(pixels), return_tensors="pt")
    ours = patches(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    assert theirs["image_grid_thw"].tolist() == [[1, OWN_SIDE // 14, OWN_SIDE // 14]]
    torch.testing.assert_close(ours, theirs["pixel_values"], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="multiple of 28"):
        own_grid(100)


def test_qwens_own_tower_reads_as_the_model_itself_reads(model: SkinClipVL) -> None:
    """A photo scattered in by us gives the logits that the published model gives for its pixels."""
    base, writer = model.reasoner.base, model.reasoner.writer
    photo = torch.rand(1, 3, OWN_SIDE, OWN_SIDE)
    n = own_grid(OWN_SIDE)
    ids = torch.tensor([[*writer.encode("<|im_start|>user\n<|vision_start|>"), *[writer.image_id] * n * n, 5, 6, 7]])
    types, grid = (ids == writer.image_id).int(), torch.tensor([[1, 2 * n, 2 * n]])
    with torch.no_grad():
        theirs = base(
            input_ids=ids, pixel_values=patches(photo), image_grid_thw=grid, mm_token_type_ids=types
        ).logits  # fmt: skip
        embeds = base.get_input_embeddings()(ids)
        embeds = embeds.masked_scatter((ids == writer.image_id).unsqueeze(-1), model.reasoner.own_tokens(photo))
        ours = base(input_ids=ids, inputs_embeds=embeds, image_grid_thw=grid, mm_token_type_ids=types).logits
    torch.testing.assert_close(ours, theirs)


def test_both_photos_have_two_dimensional_positions(model: SkinClipVL) -> None:
    prompts = model.reasoner.writer.write([Context()])
    types = prompts.mm_token_type_ids
    positions, _ = model.reasoner.base.model.get_rope_index(
        prompts.input_ids, types, image_grid_thw=prompts.image_grid_thw[0]
    )
    photo, (own, clip) = positions[:, 0, types[0] == 1], model.reasoner.writer.grids
    for part, grid in ((photo[:, : own**2], own), (photo[:, own**2 :], clip)):
        rows, columns = part[1] - part[1].min(), part[2] - part[2].min()
        assert rows.tolist() == [k // grid for k in range(grid**2)]
        assert columns.tolist() == [k % grid for k in range(grid**2)]
    assert photo[:, own**2 :].min() > photo[:, : own**2].max()


def test_a_token_of_qwens_tower_is_its_own_patch_of_the_photo(model: SkinClipVL) -> None:
    """With attention kept to windows, a change within one of them changes the tokens of that window only."""
    tower = model.reasoner.base.model.visual
    kept, tower.fullatt_block_indexes = tower.fullatt_block_indexes, []
    torch.manual_seed(4)
    photo = torch.rand(1, 3, OWN_SIDE, OWN_SIDE)
    changed = photo.clone()
    changed[..., 56:, :56] = 0.5  # lower left
    try:
        moved = (model.reasoner.own_tokens(photo) - model.reasoner.own_tokens(changed)).abs().sum(-1).view(4, 4) > 1e-6
    finally:
        tower.fullatt_block_indexes = kept
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[2:, :2] = True
    assert torch.equal(moved, expected)


def test_vision_head_and_embeddings_stay_whole(base: Path) -> None:
    four_bit = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        base, dtype=torch.float32, quantization_config=quantization()
    )
    names = [n for n, m in four_bit.named_modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(names) == 2 * 7 and all(n.startswith("model.language_model.layers") for n in names)
    dense = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32).state_dict()
    for name, value in four_bit.state_dict().items():
        if name.startswith((*UNQUANTIZED, "model.language_model.embed_tokens")):
            assert torch.equal(value, dense[name]), name


def test_adapter_off_is_the_base_exactly(model: SkinClipVL, base: Path, look) -> None:
    seen, evidence = look
    reasoner = model.reasoner
    prompts = reasoner.writer.write([Context(), Context(60, "male", "back")])
    plain = load_language_model(base, quantize=True, cpu_weights=model.config.reasoner.cpu_weights)
    with torch.no_grad():
        embeds = reasoner.inputs(prompts, seen, evidence)
        on = reasoner.hidden(prompts, embeds)
        with reasoner.language_model.disable_adapter():
            off = reasoner.hidden(prompts, embeds)
        kwargs = {
            "attention_mask": prompts.attention_mask,
            "mm_token_type_ids": prompts.mm_token_type_ids,
            "image_grid_thw": prompts.image_grid_thw.flatten(0, 1),
        }
        alone = plain.model(input_ids=prompts.input_ids, inputs_embeds=embeds, **kwargs).last_hidden_state
    assert torch.equal(off, alone)
    assert not torch.allclose(on, off, atol=1e-3)


def test_saved_and_loaded_is_the_live_model_exactly(model: SkinClipVL, tmp_path: Path) -> None:
    save_model(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "reasoner").exists()  # the base is not saved with it
    again = load_model(tmp_path / "adapter")
    photos, contexts = torch.rand(2, 3, OWN_SIDE, OWN_SIDE), [Context(30, "female", "lower extremity"), Context()]
    with torch.no_grad():
        answers = []
        for m in (model, again):
            seen = m.perceive(photos)
            answers.append(m.reason(m.reasoner.writer.write(contexts), seen, m.find_evidence(seen)).logits)
    assert torch.equal(*answers)


def test_a_hidden_photo_cannot_be_read_by_either_tower(model: SkinClipVL, look) -> None:
    seen, evidence = look
    prompts = model.reasoner.writer.write([Context(), Context()])
    other = seen.pick(torch.tensor([1, 0]))
    own_alone = VisualTokens(seen.tokens, seen.grid, seen.embedding, seen.levels, other.own)
    hidden = torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        one_, two = (model.reason(prompts, s, evidence, hidden).logits for s in (seen, other))
        shown, moved = (
            model.reasoner.hidden(prompts, model.reasoner.inputs(prompts, s, evidence)) for s in (seen, own_alone)
        )
    assert torch.equal(one_, two)
    assert not torch.allclose(shown, moved, atol=1e-3)  # Qwen's own tokens are read as well


def test_names_that_begin_alike_share_the_probability_of_their_first_token(model: SkinClipVL, look) -> None:
    reasoner = model.reasoner
    codes = [d.code for d in DIAGNOSES]
    mel, nv = codes.index("mel"), codes.index("nv")
    kept = reasoner.name_ids.clone()
    reasoner.name_ids[nv] = reasoner.name_ids[mel]
    try:
        hidden, position = torch.randn(1, 3, 64), torch.tensor([1])
        head = torch.randn(1, len(codes))
        p = reasoner.spell(hidden, position, head).softmax(-1)[0]
        first = reasoner.base.lm_head(hidden[:, 1])[0, reasoner.name_ids].float()
        by_token = dict(zip(reasoner.name_ids.tolist(), first, strict=True))  # other names may begin alike as well
        share = first[mel].exp() / torch.stack(list(by_token.values())).exp().sum()
    finally:
        reasoner.name_ids.copy_(kept)
    torch.testing.assert_close(p[mel] + p[nv], share)
    torch.testing.assert_close(p[mel] / p[nv], (head[0, mel] - head[0, nv]).exp())


def test_a_rationale_in_byte_pairs_says_what_the_findings_support(model: SkinClipVL, look) -> None:
    seen, evidence = one(look)
    text = model.reasoner.explain(Context(), seen, evidence, FINDINGS, Differential("mel", "nv"))
    assert check_rationale(text, FINDINGS) == []
    assert "[r1]" in text and "[r2]" in text


@pytest.mark.parametrize("which", ["byte pairs", "words"])
def test_decoding_equals_generate_with_and_without_what_was_read(which, model, tiny_model, look) -> None:
    """Runs of forced tokens and a kept prefix change the time it takes, not one token."""
    if which == "words":
        m = tiny_model
        with torch.no_grad():
            seen = m.perceive(torch.rand(1, 3, 160, 160))
            evidence = m.find_evidence(seen)
    else:
        m, (seen, evidence) = model, one(look)
    reasoner = m.reasoner
    context = Context(45, "male", "back")
    with torch.no_grad():
        prefix = m.reason(reasoner.writer.write([context]), seen, evidence, keep=True).prefix
        prompts = reasoner.writer.write([context], [RationaleTarget(FINDINGS, "mel", "nv")])
        rules, longest = reasoner.rules(
            prompts.input_ids.shape[1], FINDINGS, Differential("mel", "nv"), reasoner.config.paraphrases
        )
        plain = reasoner.base.generate(
            input_ids=prompts.input_ids,
            inputs_embeds=reasoner.inputs(prompts, seen, evidence),
            attention_mask=prompts.attention_mask,
            mm_token_type_ids=prompts.mm_token_type_ids,
            image_grid_thw=prompts.image_grid_thw[0],
            logits_processor=LogitsProcessorList(rules),
            max_new_tokens=longest,
            do_sample=False,
            eos_token_id=reasoner.writer.end_id,
            pad_token_id=reasoner.writer.pad_id,
        )
    expected = reasoner.decode(plain[0, prompts.input_ids.shape[1] :])
    told: list[str] = []
    args = (context, seen, evidence, FINDINGS, Differential("mel", "nv"))
    assert reasoner.explain(*args) == expected
    assert reasoner.explain(*args, prefix) == expected
    assert reasoner.explain(*args, prefix, told.append) == expected  # the prefix is as good as new
    assert told[-1] == expected and all(b.startswith(a) for a, b in itertools.pairwise(told))
    with pytest.raises(ValueError, match="does not begin"):
        reasoner.explain(Context(5, "female", None), *args[1:], prefix)


def test_a_free_text_is_shown_to_nobody_before_it_is_found_sound(model: SkinClipVL, look, monkeypatch) -> None:
    """What a random model babbles is decoded anew among true paraphrases. A sound free text is shown whole."""
    args = (Context(), *one(look), FINDINGS, Differential("mel", "nv"))
    monkeypatch.setattr(model.reasoner, "config", dataclasses.replace(model.reasoner.config, paraphrases=64))
    expected = model.reasoner.explain(*args)
    monkeypatch.setattr(model.reasoner, "config", dataclasses.replace(model.reasoner.config, paraphrases=0))
    passes: list[tuple[int, str]] = []  # rules of a pass, its text

    def watched(base, prompts, embeds, rules, *rest):
        written: list[int] = []
        passes.append((len(rules), ""))
        for run in greedy(base, prompts, embeds, rules, *rest):
            written += run
            passes[-1] = (len(rules), model.reasoner.decode(written))
            yield run

    monkeypatch.setattr(reasoner_module, "greedy", watched)
    told: list[str] = []
    assert model.reasoner.explain(*args, None, told.append) == expected
    assert [n for n, _ in passes] == [1, 2] and passes[1][1] == expected
    assert check_rationale(passes[0][1], FINDINGS, ("mel", "nv")) and not check_rationale(expected, FINDINGS)
    assert told and all(expected.startswith(text) for text in told)

    sound = model.reasoner.writer.words_between(expected)
    monkeypatch.setattr(reasoner_module, "greedy", lambda *_: ([token] for token in sound))
    told.clear()
    assert model.reasoner.explain(*args, None, told.append) == told[0] and len(told) == 1


def test_the_model_is_not_asked_where_one_token_is_possible(model: SkinClipVL, look) -> None:
    seen, evidence = one(look)
    layers = model.reasoner.base.model.language_model
    calls: list[int] = []
    hook = layers.register_forward_hook(lambda *_: calls.append(1))
    try:
        text = model.reasoner.explain(Context(), seen, evidence, FINDINGS, Differential("mel", "nv"))
    finally:
        hook.remove()
    assert 1 < len(calls) < len(model.reasoner.writer.encode(text)) / 2


def test_a_tokenizer_of_another_model_is_refused(base: Path, model: SkinClipVL) -> None:
    large = load_tokenizer(base)
    large.add_tokens([f"<extra-{i}>" for i in range(500)])
    with pytest.raises(CheckpointError, match="use the tokenizer that came with it"):
        assemble(model.config, model.perception, base, large)
