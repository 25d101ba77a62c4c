"""Speed and memory: `python -m eval_study.speed [--photos 20] [--threads 2] [--only serving]`.

Prints the load time, the median time of a whole Assessment on drawn photos and what of it regions and rationale take,
that of each way to explain, photos a second in batches, peak resident memory, and how long the page takes from launch
until it is ready. Nothing here is a test: machines differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import LogitsProcessorList

from eval_study.trust_study.serving import await_ready, free_port
from skinclip.core.assessment import Context, Differential
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.explain.methods import METHODS
from skinclip.imaging.examples import LOOKS, draw
from skinclip.imaging.photo import LesionImage, from_array
from skinclip.language.prompt import RationaleTarget
from skinclip.pipeline.assessor import Assessor

ROOT = Path(__file__).resolve().parents[1]


def page_ready() -> float:
    """Seconds from launch until the page takes photos; an embedded model may still load then."""
    port = free_port()
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await_ready(port, process)
        return time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(20)


def seconds_of(made: Callable[[Any], object], photos: Sequence[Any]) -> list[float]:
    """Seconds that `made` takes for each photo."""
    times = []
    for photo in photos:
        start = time.perf_counter()
        made(photo)
        times.append(time.perf_counter() - start)
    return times


def rationale_by(assessor: Assessor, photo: LesionImage, how: str) -> Callable[[], str]:
    """Writes the rationale of a photo that was perceived before.

    Args:
        how: by transformers' "generate" under the same rules, by our own decoding in "runs", or in "runs, prompt kept"
            from its diagnosis.
    """
    context = Context(55, "male", "back")
    reasoner, output = assessor.model.reasoner, assessor.forward([photo], [context])
    findings = [f.key for f in assessor.findings(photo, output)]
    differential = Differential(*(DIAGNOSIS_CODES[c] for c in output.calibrated.ranking[0, :2]))
    if how != "generate":
        prefix = output.prefix if how == "runs, prompt kept" else None
        return lambda: reasoner.explain(context, output.tokens, output.evidence, findings, differential, prefix)

    def generate() -> str:
        d = differential
        prompts = reasoner.writer.write([context], [RationaleTarget(findings, d.leading, d.runner_up)])
        length = prompts.input_ids.shape[1]
        rules, longest = reasoner.rules(length, findings, differential, reasoner.config.paraphrases)
        with torch.no_grad():
            written = reasoner.base.generate(
                input_ids=prompts.input_ids,
                inputs_embeds=reasoner.inputs(prompts, output.tokens, output.evidence),
                attention_mask=prompts.attention_mask,
                mm_token_type_ids=prompts.mm_token_type_ids,
                image_grid_thw=prompts.image_grid_thw[0],
                logits_processor=LogitsProcessorList(rules),
                max_new_tokens=longest,
                do_sample=False,
                eos_token_id=reasoner.writer.end_id,
                pad_token_id=reasoner.writer.pad_id,
            )
        return reasoner.decode(written[0, length:])

    return generate


WAYS = ("generate", "runs", "runs, prompt kept")
BATCHES = (1, 2, 4, 8)


def serving(assessor: Assessor, photos: Sequence[LesionImage], repeats: int) -> dict[str, Any]:
    """Seconds of each way to write a rationale, and how many photos a second are predicted in batches.

    Everything is done several times over, in turn, and the fastest time counts: other work on the machine falls on all.

    Raises RuntimeError where two ways write different texts.
    """
    writers = {how: [rationale_by(assessor, photo, how) for photo in photos] for how in WAYS}
    texts, calls = _texts_and_calls(assessor, writers)
    if any(texts[how] != texts["generate"] for how in WAYS):
        raise RuntimeError("two ways to decode write different texts")
    written = {how: [seconds_of(lambda w: w(), writers[how]) for _ in range(repeats)] for how in WAYS}
    batches = {size: [photos[i : i + size] for i in range(0, len(photos), size)] for size in BATCHES}
    predicted = {
        size: [seconds_of(lambda b: assessor.predict(b, [Context()] * len(b)), parts) for _ in range(repeats)]
        for size, parts in batches.items()
    }
    assessed = [seconds_of(assessor.assess, photos) for _ in range(repeats)]
    tokens = [len(assessor.model.reasoner.writer.encode(text)) for text in texts["generate"]]
    return {
        "rationale_tokens_median": median(tokens),
        "rationale_ms_median": {how: round(1000 * median(fastest(runs))) for how, runs in written.items()},
        "language_model_calls_mean": calls,
        "assess_ms_median": round(1000 * median(fastest(assessed))),
        "predict_photos_per_s": {size: round(len(photos) / sum(fastest(runs)), 1) for size, runs in predicted.items()},
        "photos": len(photos),
    }


def _texts_and_calls(
    assessor: Assessor, writers: dict[str, list[Callable[[], str]]]
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Texts by each way, and how often the language model ran for one of them on average."""
    calls: list[int] = []
    hook = assessor.model.reasoner.base.model.language_model.register_forward_hook(lambda *_: calls.append(1))
    texts, mean_calls = {}, {}
    try:
        for how, own in writers.items():
            calls.clear()
            texts[how] = [write() for write in own]
            mean_calls[how] = round(len(calls) / len(own), 1)
    finally:
        hook.remove()
    return texts, mean_calls


def fastest(runs: Sequence[Sequence[float]]) -> list[float]:
    """The least time of each item over several runs."""
    return [min(times) for times in zip(*runs, strict=True)]


def _drawn_photos(n: int) -> list[LesionImage]:
    """Drawn photos of all kinds in turn."""
    kinds = sorted(LOOKS)
    return [from_array(draw(kinds[i % len(kinds)], i)) for i in range(n)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-page", action="store_true")
    parser.add_argument("--only", choices=["serving"])
    parser.add_argument("--repeats", type=int, default=5, help="of `--only serving`, the fastest of which counts")
    return parser


def main() -> None:
    """Measures the speed of the product and writes it as JSON."""
    args = _parser().parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    assessor = Assessor.load("mini")
    loaded = time.perf_counter() - start
    photos = _drawn_photos(args.photos)
    assessor.assess(photos[0])
    if args.only:
        print(json.dumps(serving(assessor, photos, args.repeats) | {"threads": args.threads}, indent=2))
        return
    times = seconds_of(lambda photo: assessor.assess(photo, Context(55, "male", "back")), photos)
    forward_seconds = seconds_of(lambda photo: assessor.forward([photo], [Context(55, "male", "back")]), photos)
    subjects = [assessor.subject(photo) for photo in photos]
    explained = {key: seconds_of(method.maps, subjects) for key, method in METHODS.items()}
    batch = len(photos) / sum(seconds_of(lambda part: assessor.predict(part, [Context()] * len(part)), [photos]))
    figures = {
        "load_s": round(loaded, 2),
        "assess_median_s": round(median(times), 2),
        "assess_max_s": round(max(times), 2),
        "regions_and_rationale_median_s": round(median(a - s for a, s in zip(times, forward_seconds, strict=True)), 2),
        "explained_median_s": {key: round(median(seconds), 3) for key, seconds in explained.items()},
        "predict_photos_per_s": round(batch, 1),
        "peak_resident_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "page_ready_s": None if args.no_page else round(page_ready(), 1),
        "threads": args.threads,
        "photos": args.photos,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
