from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from huggingface_hub import constants
from safetensors.numpy import save, save_file

from skinclip.cli import main as cli
from skinclip.core.config import PRESETS, PerceptionConfig, preset
from skinclip.hub import (
    BaseIdentity,
    IncompleteWeights,
    MissingWeights,
    WrongRevision,
    base_identity,
    check_complete,
    find_base,
    find_clip,
    origins,
    sources,
)
from skinclip.hub.fetch import fetch
from skinclip.hub.layout import SOURCE_FILE, read_shape
from skinclip.hub.origins import FetchError
from skinclip.hub.sources import BASES, CLIP_FILES, CLIPS, Source
from skinclip.hub.store import folder_of, part_of, store_dir
from tests.helpers.fake_hub import FakeHub, git_sha1

REVISION, OTHER = "a" * 40, "b" * 40
BASE, CLIP = "lab/tiny-vl", "lab/tiny-clip"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
Usage = namedtuple("Usage", "total used free")


def config_json(layers: int = 2) -> dict:
    """In the flat form in which Qwen2.5-VL is published."""
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    rope = {"type": "mrope", "mrope_section": [1, 1, 2]}
    return {
        "model_type": "qwen2_5_vl",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 128,
        "tie_word_embeddings": True,
        "rope_scaling": rope,
        "vision_config": vision,
    }


def base_files(layers: int = 2, seed: int = 0) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    tensors = [{f"t{i}{j}": rng.normal(size=(200, 300)).astype(np.float32) for j in range(2)} for i in range(2)]
    where = {name: shard for shard, part in zip(SHARDS, tensors, strict=True) for name in part}
    files = {shard: save(part, {"format": "pt"}) for shard, part in zip(SHARDS, tensors, strict=True)}
    texts = {
        "config.json": config_json(layers),
        "model.safetensors.index.json": {"weight_map": where},
        "tokenizer.json": {},
        "tokenizer_config.json": {},
        "preprocessor_config.json": {"patch_size": 14},
    }
    return files | {k: json.dumps(v).encode() for k, v in texts.items()} | {"LICENSE": b"for tests\n"}


BASE_FILES = base_files()
CLIP_TENSORS = {"visual.conv1.weight": np.ones((4, 3, 2, 2), np.float32)}
CLIP_WEIGHTS = save(CLIP_TENSORS)
WHOLE = sum(len(content) for content in BASE_FILES.values())


def pin(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with a tiny base and CLIP, a preset `tiny` built on them, and an empty store."""
    shape = {"num_hidden_layers": 2, "hidden_size": 32}
    base = Source(BASE, REVISION, "research only", WHOLE, {n: pin(BASE_FILES[n]) for n in SHARDS}, shape=shape)
    clip_shapes = {name: array.shape for name, array in CLIP_TENSORS.items()}
    pins = {CLIP_FILES[0]: pin(CLIP_WEIGHTS)}
    clip = Source(CLIP, REVISION, "MIT", len(CLIP_WEIGHTS), pins, (CLIP_FILES[0],), tensors=clip_shapes)
    like = preset("qwen-3b")
    tiny = dataclasses.replace(
        like,
        perception=dataclasses.replace(like.perception, model="tiny", pretrained="test"),
        reasoner=dataclasses.replace(like.reasoner, base=BASE, revision=REVISION),
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # another test may have imported the page before
    monkeypatch.setitem(PRESETS, "tiny", tiny)
    monkeypatch.setitem(BASES, BASE, base)
    monkeypatch.setitem(CLIPS, ("tiny", "test"), clip)
    hub = FakeHub(REVISION)
    hub.repositories = {
        BASE: dict(BASE_FILES),
        CLIP: {CLIP_FILES[0]: CLIP_WEIGHTS, "pytorch_model.bin": b"the same again, in another form"},
    }
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SKINCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)
    yield hub
    hub.close()


def base_folder() -> Path:
    return folder_of(BASE, REVISION)


def clip_folder() -> Path:
    return folder_of(CLIP, REVISION)


def in_store() -> set[str]:
    """What the store holds of the base, but for the lock."""
    return {p.name for p in base_folder().parent.glob("*") if p.name != ".lock"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def hub_cache(root: Path, files: dict[str, bytes], revision: str = REVISION) -> Path:
    """A snapshot as the hub's own cache keeps it: links to blobs that are named by their hash."""
    blobs, snapshot = root / "blobs", root / "snapshots" / revision
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for name, content in files.items():
        blob = hashlib.sha256(content).hexdigest() if name in SHARDS else git_sha1(content)
        (blobs / blob).write_bytes(content)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", blob))
    return snapshot


# --- download ---------------------------------------------------------------------------------------------------------


def test_download_puts_both_parts_in_place_and_says_what_they_are(hub: FakeHub) -> None:
    said: list[str] = []
    assert fetch("tiny", progress=said.append) == [base_folder(), clip_folder()]
    assert {n: (base_folder() / n).read_bytes() for n in BASE_FILES} == BASE_FILES
    assert in_store() == {REVISION}
    assert find_base(BASE, REVISION) == base_folder() == find_base(BASE)
    assert find_clip(PRESETS["tiny"].perception) == str(clip_folder() / CLIP_FILES[0])
    text = "\n".join(said)
    assert "Licence: research only" in text and "Licence: MIT" in text and "free" in text
    assert f"{len(BASE_FILES)} of {len(BASE_FILES)} files have their published hash" in text

    note = json.loads((base_folder() / SOURCE_FILE).read_text())
    assert (note["hub_id"], note["revision"], note["unchecked"]) == (BASE, REVISION, [])
    assert note["files"][SHARDS[0]] == dict(zip(("size", "sha256"), pin(BASE_FILES[SHARDS[0]]), strict=True))
    assert set(note) == {"hub_id", "revision", "unchecked", "files"}  # no date, no name of a computer

    asked = len(hub.requests)
    fetch("tiny", progress=said.append)
    assert len(hub.requests) == asked  # what is in place needs no network


def test_download_tells_the_hub_nothing_of_this_computer(hub: FakeHub) -> None:
    fetch("tiny", progress=lambda _: None)
    agents = {headers["user-agent"] for _, headers in hub.requests}
    assert not any("torch" in agent or "agent/" in agent for agent in agents)
    assert not any("authorization" in headers for _, headers in hub.requests)
    assert "pytorch_model.bin" not in hub.downloads()


def test_cut_download_goes_on_where_it_stopped(hub: FakeHub) -> None:
    hub.cut[SHARDS[1]] = 300_000
    with pytest.raises(FetchError, match="run the same command to go on"):
        fetch("tiny", progress=lambda _: None)
    part = part_of(base_folder())
    assert in_store() == {part.name}
    kept = (part / f"{SHARDS[1]}.incomplete").stat().st_size
    assert 250_000 < kept <= 300_000
    with pytest.raises(MissingWeights, match="interrupted; to go on, run `python -m skinclip fetch --preset tiny`"):
        find_base(BASE, REVISION)

    hub.status, before = None, len(hub.requests)
    fetch("tiny", progress=lambda _: None)
    ranges = [headers["range"] for _, headers in hub.requests[before:] if "range" in headers]
    assert ranges == [f"bytes={kept}-"] * 2  # asked of the hub, and of where it sends large files from
    assert sum(hub.served[name] for name in BASE_FILES) < 1.1 * WHOLE
    assert {n: (base_folder() / n).read_bytes() for n in BASE_FILES} == BASE_FILES
    assert in_store() == {REVISION}


def test_short_break_is_ridden_out(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: setattr(hub, "status", None))
    hub.cut[SHARDS[0]] = 300_000
    fetch("tiny", progress=lambda _: None)
    assert in_store() == {REVISION}


@pytest.mark.parametrize("name", [SHARDS[1], "config.json"])
def test_damaged_file_is_named_and_deleted(hub: FakeHub, name: str) -> None:
    hub.damaged.add(name)
    with pytest.raises(FetchError, match=f"{name} of {BASE} is not the published file.*deleted"):
        fetch("tiny", progress=lambda _: None)
    part = part_of(base_folder())
    assert in_store() == {part.name}
    assert not list(part.glob(f"{name}*"))
    hub.damaged.clear()
    hub.requests.clear()
    fetch("tiny", progress=lambda _: None)
    assert name in hub.downloads() and "LICENSE" not in hub.downloads()
    assert in_store() == {REVISION}


def test_hub_that_lists_other_weights_is_refused_before_anything_comes(hub: FakeHub) -> None:
    hub.repositories[BASE] = base_files(seed=1)
    with pytest.raises(FetchError, match=f"{SHARDS[0]} of {BASE} at http.* is not the published file"):
        fetch("tiny", progress=lambda _: None)
    assert not hub.downloads() and not store_dir().exists()


def test_file_name_that_leaves_the_folder_is_refused(hub: FakeHub) -> None:
    hub.repositories[BASE]["../../profile"] = b""
    with pytest.raises(FetchError, match="no safe name"):
        fetch("tiny", progress=lambda _: None)


def test_snapshot_without_a_shard_stays_out_of_the_store(hub: FakeHub) -> None:
    del hub.repositories[BASE][SHARDS[1]]
    with pytest.raises(IncompleteWeights, match=f"{SHARDS[1]} missing"):
        fetch("tiny", progress=lambda _: None)
    assert in_store() == {part_of(base_folder()).name}


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (401, "", FetchError, "hf auth login"),
        (403, "GatedRepo", FetchError, "accept its terms"),
        (404, "RepoNotFound", FetchError, "has no lab/tiny-vl"),
        (404, "RevisionNotFound", WrongRevision, f"has no revision {REVISION}"),
        (503, "", FetchError, "status 503; try again later"),
    ],
)
def test_refusals_of_the_hub_in_words(hub: FakeHub, status: int, code: str, error: type[Exception], words: str) -> None:
    hub.status, hub.error_code = status, code
    with pytest.raises(error, match=words):
        fetch("tiny", progress=lambda _: None)
    assert not store_dir().exists()


def test_hub_that_gives_another_revision_is_refused(hub: FakeHub) -> None:
    hub.revision = OTHER
    with pytest.raises(WrongRevision, match=f"has no revision {REVISION}"):
        fetch("tiny", progress=lambda _: None)


def test_sign_in_page_of_a_network_is_not_taken_for_the_hub(hub: FakeHub) -> None:
    hub.landing_page = True
    with pytest.raises(FetchError, match="does not answer as the hub does"):
        fetch("tiny", progress=lambda _: None)


def test_without_a_network_both_ways_are_told(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="cannot be reached") as unreachable:
        fetch("tiny", progress=lambda _: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE is set") as offline:
        fetch("tiny", progress=lambda _: None)
    for error in (str(unreachable.value), str(offline.value)):
        assert "Connect and run the same command" in error
        assert f"hf download {BASE} --revision {REVISION} --local-dir DIR" in error
        assert "fetch --preset tiny --from DIR --clip CLIP/open_clip_model.safetensors" in error
    assert not store_dir().exists()


def test_too_small_a_disk_is_said_before_the_download(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(FetchError, match=r"has 1.0 kB free, 1.0 MB are needed.*--store DIR"):
        fetch("tiny", progress=lambda _: None)
    assert not hub.downloads() and not store_dir().exists()


def test_disk_that_fills_up_on_the_way(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(origins, "http_get", full)
        with pytest.raises(FetchError, match="is full; make room.*go on"):
            fetch("tiny", progress=lambda _: None)
    assert in_store() == {part_of(base_folder()).name}
    fetch("tiny", progress=lambda _: None)
    assert in_store() == {REVISION}


def test_interrupt_keeps_what_has_come(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    said: list[str] = []
    monkeypatch.setattr(origins, "http_get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", progress=said.append)
    assert "run the same command to go on" in said[-1] and in_store() == {part_of(base_folder()).name}


def test_nothing_comes_without_agreement(hub: FakeHub) -> None:
    with pytest.raises(FetchError, match="nothing was downloaded"):
        fetch("tiny", progress=lambda _: None, agree=lambda: False)
    assert not hub.downloads() and not store_dir().exists()


def test_damaged_folder_is_mended_from_what_is_right_of_it(hub: FakeHub) -> None:
    fetch("tiny", progress=lambda _: None)
    shard = base_folder() / SHARDS[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(IncompleteWeights, match=f"{SHARDS[0]} is cut short.*fetch --preset tiny"):
        find_base(BASE, REVISION)
    hub.requests.clear()
    fetch("tiny", progress=lambda _: None)
    assert hub.downloads() == [SHARDS[0]]
    assert find_base(BASE, REVISION) == base_folder() and in_store() == {REVISION}


def test_second_fetch_waits_its_turn(hub: FakeHub) -> None:
    base_folder().parent.mkdir(parents=True)
    with (
        FileLock(base_folder().parent / ".lock"),
        pytest.raises(FetchError, match="another fetch of lab/tiny-vl is at work"),
    ):
        fetch("tiny", progress=lambda _: None)


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    path = tmp_path / "given.safetensors"
    path.write_bytes(CLIP_WEIGHTS)
    return path


def test_copy_is_checked_and_says_what_could_not_be(hub: FakeHub, tmp_path: Path, clip_file: Path) -> None:
    given = write(tmp_path / "given", BASE_FILES | {"pytorch_model.bin": b"the same in another form"})
    said: list[str] = []
    fetch("tiny", given, said.append, clip=clip_file)
    assert not hub.requests
    assert find_base(BASE, REVISION) == base_folder()
    assert find_clip(PRESETS["tiny"].perception) == str(clip_folder() / CLIP_FILES[0])
    assert not (base_folder() / "pytorch_model.bin").exists()
    assert any(line.startswith("2 of 8 files have their published hash; none is known of LICENSE") for line in said)
    note = json.loads((base_folder() / SOURCE_FILE).read_text())
    assert note["revision"] == REVISION  # told by the weights, which are those of this revision
    assert "config.json" in note["unchecked"] and SHARDS[0] not in note["unchecked"]


def test_snapshot_of_the_hubs_cache_is_copied_as_plain_files(hub: FakeHub, tmp_path: Path, clip_file: Path) -> None:
    snapshot = hub_cache(tmp_path / "cache", BASE_FILES)
    said: list[str] = []
    fetch("tiny", snapshot, said.append, clip=clip_file)
    assert "8 of 8 files have their published hash" in said
    assert not any(p.is_symlink() for p in base_folder().iterdir())
    assert {n: (base_folder() / n).read_bytes() for n in BASE_FILES} == BASE_FILES


def test_notes_of_a_local_download_are_read(hub: FakeHub, tmp_path: Path, clip_file: Path) -> None:
    given = write(tmp_path / "given", BASE_FILES)
    note = given / ".cache" / "huggingface" / "download" / "config.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{REVISION}\n{git_sha1(b'another')}\n0.0\n")
    with pytest.raises(FetchError, match="config.json of lab/tiny-vl is not the published file.*nothing was copied"):
        fetch("tiny", given, lambda _: None, clip=clip_file)
    note.write_text(f"{OTHER}\n{git_sha1(BASE_FILES['config.json'])}\n0.0\n")
    with pytest.raises(WrongRevision, match=f"is revision {OTHER} of lab/tiny-vl, needed is {REVISION}"):
        fetch("tiny", given, lambda _: None, clip=clip_file)
    assert not in_store()


def test_linked_copy_takes_no_room(
    hub: FakeHub, tmp_path: Path, clip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 0))
    given = write(tmp_path / "given", BASE_FILES)
    fetch("tiny", given, lambda _: None, clip=clip_file, link=True)
    assert os.path.samefile(base_folder() / SHARDS[0], given / SHARDS[0])


def test_store_of_another_computer_is_a_copy(hub: FakeHub, tmp_path: Path) -> None:
    fetch("tiny", progress=lambda _: None)
    hub.requests.clear()
    said: list[str] = []
    fetch("tiny", base_folder(), said.append, clip=clip_folder(), home=tmp_path / "other")
    assert not hub.requests and "8 of 8 files have their published hash" in said
    assert check_complete(folder_of(BASE, REVISION, store_dir(tmp_path / "other")))


def spoil_missing(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()


def spoil_short(folder: Path) -> None:
    shard = folder / SHARDS[1]
    shard.write_bytes(shard.read_bytes()[:-1000])


def spoil_byte(folder: Path) -> None:
    shard = folder / SHARDS[1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


def spoil_shape(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config_json(layers=3)))


def spoil_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config_json() | {"model_type": "llama"}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_missing, f"{SHARDS[1]} missing"),
        (spoil_short, f"{SHARDS[1]} is cut short"),
        (spoil_byte, f"{SHARDS[1]} of lab/tiny-vl is not the published file"),
        (spoil_shape, "is not lab/tiny-vl: num_hidden_layers is 3, not 2"),
        (spoil_kind, "is not Qwen2.5-VL: model_type is 'llama'"),
    ],
)
def test_bad_copy_leaves_the_store_as_it_was(hub: FakeHub, tmp_path: Path, clip_file: Path, spoil, words: str) -> None:
    given = write(tmp_path / "given", BASE_FILES)
    spoil(given)
    with pytest.raises(MissingWeights, match=words):
        fetch("tiny", given, lambda _: None, clip=clip_file)
    assert not in_store() and not hub.requests
    with pytest.raises(MissingWeights, match="are not in"):
        find_base(BASE, REVISION)


def test_sibling_is_recognised_by_its_shape(tmp_path: Path) -> None:
    small, large = (BASES[f"Qwen/Qwen2.5-VL-{size}-Instruct"] for size in ("3B", "7B"))
    (tmp_path / "config.json").write_text(json.dumps(config_json() | dict(large.shape)))
    with pytest.raises(MissingWeights, match="is not Qwen/Qwen2.5-VL-3B-Instruct.*shape of Qwen/Qwen2.5-VL-7B-Instru"):
        sources.check_shape(small, tmp_path)
    sources.check_shape(large, tmp_path)


def test_wrong_revision_of_a_snapshot_is_refused(hub: FakeHub, tmp_path: Path, clip_file: Path) -> None:
    snapshot = hub_cache(tmp_path / "cache", BASE_FILES, OTHER)
    with pytest.raises(WrongRevision, match=f"--revision {REVISION} --local-dir DIR"):
        fetch("tiny", snapshot, lambda _: None, clip=clip_file)


def test_clip_of_another_shape_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    given = write(tmp_path / "given", BASE_FILES)
    other = tmp_path / "other.safetensors"
    save_file({"visual.conv1.weight": np.ones((8, 3, 2, 2), np.float32)}, other)
    with pytest.raises(MissingWeights, match="does not hold weights of the shape of lab/tiny-clip"):
        fetch("tiny", given, lambda _: None, clip=other)
    with pytest.raises(FetchError, match="there is no file"):
        fetch("tiny", given, lambda _: None, clip=tmp_path / "nowhere")
    with pytest.raises(FetchError, match="there is no folder"):
        fetch("tiny", tmp_path / "nowhere", lambda _: None, clip=other)
    assert not in_store()


def test_clip_in_the_older_form_is_taken(hub: FakeHub, tmp_path: Path) -> None:
    import torch

    given, old = write(tmp_path / "given", BASE_FILES), tmp_path / "weights.pt"
    torch.save({"state_dict": {f"module.{k}": torch.from_numpy(v) for k, v in CLIP_TENSORS.items()}}, old)
    fetch("tiny", given, lambda _: None, clip=old)
    assert find_clip(PRESETS["tiny"].perception) == str(clip_folder() / CLIP_FILES[1])
    assert json.loads((clip_folder() / SOURCE_FILE).read_text())["revision"] is None  # no hash tells
    old.write_bytes(b"no weights")
    shutil.rmtree(store_dir())
    with pytest.raises(IncompleteWeights, match="cannot be read as plain weights"):
        fetch("tiny", given, lambda _: None, clip=old)


# --- finding ----------------------------------------------------------------------------------------------------------


def test_find_base_says_what_to_run(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingWeights) as missing:
        find_base(BASE, REVISION)
    command = "python -m skinclip fetch --preset tiny"
    assert f"run `{command}`" in str(missing.value) and f"`{command} --from DIR --clip FILE`" in str(missing.value)
    write(folder_of(BASE, OTHER), BASE_FILES)
    with pytest.raises(WrongRevision, match=f"the store holds {OTHER}, not {REVISION}; run `{command}`"):
        find_base(BASE, REVISION)
    with pytest.raises(
        MissingWeights, match="'some/folder' is neither a folder here nor a base that this version knows"
    ):
        find_base("some/folder")


def test_a_preset_on_folders_of_its_own_has_nothing_to_fetch(tmp_path: Path, monkeypatch) -> None:
    like = preset("qwen-3b")
    own = dataclasses.replace(like, reasoner=dataclasses.replace(like.reasoner, base=str(tmp_path), revision=None))
    monkeypatch.setitem(PRESETS, "own", own)
    with pytest.raises(MissingWeights, match="stands on folders of its own: nothing to fetch"):
        fetch("own", progress=print)


def test_find_base_takes_a_folder_as_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "base", BASE_FILES)
    assert find_base(str(folder)) == folder == find_base(str(folder), REVISION)
    (folder / SOURCE_FILE).write_text(json.dumps({"hub_id": BASE, "revision": OTHER}))
    with pytest.raises(WrongRevision, match=f"holds revision {OTHER}, this preset needs {REVISION}"):
        find_base(str(folder), REVISION)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(IncompleteWeights, match=r"tokenizer_config.json missing; copy the whole folder again"):
        find_base(str(folder))


def test_find_clip(hub: FakeHub, tmp_path: Path) -> None:
    assert find_clip(PerceptionConfig()) is None
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(CLIP_WEIGHTS)
    assert find_clip(PerceptionConfig(model="any", pretrained=str(weights))) == str(weights)
    with pytest.raises(MissingWeights, match="downloads none while it loads"):
        find_clip(PerceptionConfig(model="ViT-B-32", pretrained="openai"))
    with pytest.raises(MissingWeights, match="fetch --preset tiny"):
        find_clip(PRESETS["tiny"].perception)
    write(clip_folder(), {CLIP_FILES[0]: CLIP_WEIGHTS[:-1]})
    with pytest.raises(IncompleteWeights, match="is cut short.*fetch --preset tiny"):
        find_clip(PRESETS["tiny"].perception)


def test_perception_downloads_nothing(hub: FakeHub) -> None:
    from skinclip.model.perception import Perception

    with pytest.raises(MissingWeights, match="fetch --preset qwen-3b"):
        Perception(preset("qwen-3b").perception)
    assert not hub.requests


@pytest.mark.parametrize("kind", ["lfs", "garbage", "long", "tensor", "index", "no index", "vocabulary"])
def test_check_complete_names_what_is_wrong(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path, BASE_FILES)
    shard, index = folder / SHARDS[0], folder / "model.safetensors.index.json"
    assert [p.name for p in check_complete(folder)] == list(SHARDS)
    where = json.loads(index.read_text())["weight_map"]
    words = {
        "lfs": "git-lfs pointer",
        "garbage": "not a safetensors file",
        "long": "is damaged",
        "tensor": "lacks 1 tensors.*such as extra",
        "index": "is not a shard index",
        "no index": "model.safetensors.index.json missing",
        "vocabulary": "merges.txt missing",
    }
    if kind == "lfs":
        shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif kind == "garbage":
        shard.write_bytes(bytes(8) + b"nothing")
    elif kind == "long":
        shard.write_bytes(shard.read_bytes() + b"more")
    elif kind == "tensor":
        index.write_text(json.dumps({"weight_map": where | {"extra": SHARDS[0]}}))
    elif kind == "index":
        index.write_text("[]")
    elif kind == "no index":
        index.unlink()
    else:
        (folder / "tokenizer.json").rename(folder / "vocab.json")
    with pytest.raises(IncompleteWeights, match=words[kind]):
        check_complete(folder)


def test_one_file_of_weights_needs_no_index(tmp_path: Path) -> None:
    files = {k: v for k, v in BASE_FILES.items() if k not in SHARDS and k != "model.safetensors.index.json"}
    folder = write(tmp_path, files | {"model.safetensors": BASE_FILES[SHARDS[0]]})
    assert check_complete(folder) == [folder / "model.safetensors"]


# --- identity ---------------------------------------------------------------------------------------------------------


def test_identity_of_a_base(tmp_path: Path) -> None:
    same, again = write(tmp_path / "a", BASE_FILES), write(tmp_path / "b", BASE_FILES)
    note = json.dumps({"hub_id": BASE, "revision": REVISION})
    (same / SOURCE_FILE).write_text(note)
    one, other = base_identity(same), base_identity(again)
    assert (one.hub_id, one.revision, other.hub_id, other.revision) == (BASE, REVISION, None, None)
    assert one.differences(other) is None  # the same bytes, whatever they are called
    assert BaseIdentity.from_json(one.to_json()) == one
    with pytest.raises(ValueError, match="no identity of a base"):
        BaseIdentity.from_json('{"hub_id": null}')

    tuned = base_identity(write(tmp_path / "c", base_files(seed=1)))
    assert re.search(f"made for {BASE} at a+ .*same shape and other weights", str(one.differences(tuned)))
    deeper = base_identity(write(tmp_path / "d", base_files(layers=3)))
    assert "(2 layers, 32 wide" in str(one.differences(deeper)) and "(3 layers, 32 wide" in str(one.differences(deeper))


def test_shape_is_the_same_in_the_published_and_in_the_nested_form(tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLConfig

    flat = write(tmp_path / "flat", {"config.json": json.dumps(config_json()).encode()})
    Qwen2_5_VLConfig.from_pretrained(flat).save_pretrained(tmp_path / "nested")
    nested = json.loads((tmp_path / "nested" / "config.json").read_text())
    assert "hidden_size" not in nested and nested["text_config"]["hidden_size"] == 32
    assert read_shape(flat) == read_shape(tmp_path / "nested")


# --- presets and commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen-3b", "qwen-7b"])
def test_presets_name_published_weights(name: str) -> None:
    import open_clip

    config = preset(name)
    base, clip = sources.sources(name)
    assert (base.hub_id, base.revision) == (config.reasoner.base, config.reasoner.revision)
    for source in (base, clip):
        assert re.fullmatch("[0-9a-f]{40}", source.revision)
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for _, sha256 in source.weights.values())
        assert 0 < source.size - sum(size for size, _ in source.weights.values()) < 2e7  # the rest is text
    taken = open_clip.pretrained.get_pretrained_cfg(config.perception.model, config.perception.pretrained)
    assert taken["hf_hub"] == f"{clip.hub_id}/"
    assert open_clip.get_model_config(config.perception.model).get("quick_gelu", False) == taken["quick_gelu"]


def test_fetch_command(hub: FakeHub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["fetch", "--preset", "tiny"]) == 2
    assert "add --yes to agree to the licences above" in capsys.readouterr().err
    assert not hub.downloads()
    assert cli.main(["fetch", "--preset", "tiny", "--yes", "--store", str(tmp_path / "there")]) == 0
    assert f"SKINCLIP_HOME={tmp_path / 'there'}" in capsys.readouterr().out
    assert check_complete(folder_of(BASE, REVISION, tmp_path / "there" / "models"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "mini"], "the preset 'mini' is embedded: nothing to fetch"),
        (["--preset", "maxi"], "no preset 'maxi'; choose one of"),
        (["--preset", "tiny", "--link"], "--link links copies"),
        (["--preset", "tiny", "--from", "nowhere"], "there is no folder nowhere"),
        (["--preset", "tiny", "--yes"], "status 503; try again later"),
    ],
)
def test_fetch_command_refuses_in_one_line(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    hub.status = 503
    assert cli.main(["fetch", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_preset_without_weights_says_what_to_do(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = sorted((Path(__file__).parents[2] / "assets" / "examples").glob("*.jpg"))[0]
    assert cli.main(["assess", str(photo), "--preset", "qwen-3b"]) == 2
    error = capsys.readouterr().err
    assert "run `python -m skinclip fetch --preset qwen-3b` (7.5 GB, and 1.7 GB for CLIP)" in error
    assert "Then, as the preset 'qwen-3b' has no adapter" in error and "train --preset qwen-3b" in error

    fetch("tiny", progress=lambda _: None)
    capsys.readouterr()
    assert cli.main(["assess", str(photo), "--preset", "tiny"]) == 2
    assert "published weights are in place, but the preset 'tiny' has no adapter" in capsys.readouterr().err

    monkeypatch.setattr("signal.signal", lambda *_: None)
    # it would move this process's temporary files for good
    monkeypatch.setattr("skinclip.core.paths.prepare", lambda: None)
    assert cli.main(["run", "--preset", "qwen-3b"]) == 2
    assert "fetch --preset qwen-3b" in capsys.readouterr().err
