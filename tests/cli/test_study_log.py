"""`study verify --log`, `anchor`, `backup` and `restore`, as they are typed."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from skinclip.cli.main import main
from skinclip.study.coordinator import Coordinator
from skinclip.study.session.keys import key_path
from skinclip.study.session.session_service import Study
from tests.study import tiny


def run(*words: object) -> int:
    return main(["study", *map(str, words)])


@pytest.fixture
def receipts(study_folder: Path, tmp_path: Path) -> Path:
    """A folder of readers' receipts; the study has two readers, has answers, and is closed and exported."""
    folder = tmp_path / "receipts"
    folder.mkdir()
    with Study.open(study_folder) as study:
        for reader in study.enrol(2, "Here"):
            token = study.sign_in(reader.code)
            for _ in tiny.session(study, token, lambda view: view.kind == "after"):
                pass
            (folder / f"{reader.reader}.txt").write_text(f"# by {reader.reader}\n{study.receipt(token)}\n")
        desk = Coordinator(study)
        desk.close("a test")
        (folder / "closing.txt").write_text(desk.receipt())
        desk.export(tmp_path / "export")
    return folder


def key_of(folder: Path) -> Path:
    return key_path(folder, json.loads((folder / "frozen.json").read_text()))


# -- an exported log


def test_an_export_is_verified_with_the_key_and_a_folder_of_receipts(
    receipts: Path, study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "export" / "events.jsonl"
    for more in (("--key", key_of(study_folder)), (), (study_folder,)):
        assert run("verify", *more, "--log", log, "--receipts", receipts) == 0
        told = capsys.readouterr().out
        assert "3 receipts: nothing was changed" in told
        assert ("not what the events say" in told) is (more == ())


def test_a_changed_export_is_told(
    receipts: Path, study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "export" / "events.jsonl"
    lines = log.read_text().splitlines()
    key = key_of(study_folder)
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join(lines[:-1]))
    assert run("verify", "--log", cut, "--key", key) == 0  # whole in itself
    assert run("verify", "--log", cut, "--receipts", receipts) == 1
    assert "its end was cut off" in capsys.readouterr().out
    cut.write_text("\n".join(lines[:3] + lines[4:]))
    assert run("verify", "--log", cut) == 1
    assert "removed from the log" in capsys.readouterr().out
    changed = json.loads(lines[-1])
    cut.write_text("\n".join([*lines[:-1], json.dumps({**changed, "at": "2026-01-01T00:00:00.000Z"})]))
    assert run("verify", "--log", cut, "--key", key) == 1
    assert "was changed after it was stored" in capsys.readouterr().out
    assert run("verify", "--log", tmp_path / "none.jsonl") == 2
    assert run("verify") == 2


# -- clocks


def test_a_clock_that_was_set_back_is_flagged_and_leaves_no_negative_time(
    study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    with Study.open(study_folder, clock=lambda: now) as study:
        token = study.sign_in(study.enrol(1, "Here")[0].code)
        for _ in tiny.session(study, token, lambda view: view.kind == "after" and view.title.startswith("Photo")):
            now += timedelta(seconds=20)
        now -= timedelta(minutes=5)
        view = study.view(token)
        study.submit(token, view.step, tiny.answers(view), "q")
        desk = Coordinator(study)
        desk.close("a test")
        assert [warning.kind for warning in desk.audit().warnings] == ["clock"] and not desk.verify()
        times = desk.tables().cases[["server_seconds_before", "server_seconds_after"]]
        assert not (times < 0).any().any()
        desk.export(tmp_path / "export")
    assert run("verify", study_folder) == 0
    assert "the server's clock was set back" in capsys.readouterr().out


# -- anchors and time stamps


class Authority(BaseHTTPRequestHandler):
    """A time-stamp authority made with openssl."""

    folder: Path

    def do_POST(self) -> None:
        query, reply = self.folder / "asked.tsq", self.folder / "reply.tsr"
        query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        call = ["openssl", "ts", "-reply", "-queryfile", query, "-out", reply, "-config", self.folder / "ts.cnf"]
        subprocess.run(call, check=True, cwd=self.folder, capture_output=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply.read_bytes())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[str]:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    folder = tmp_path / "authority"
    folder.mkdir()
    (folder / "ts.cnf").write_text(
        "[tsa]\ndefault_tsa = one\n[one]\nserial = serial\nsigner_cert = cert.pem\nsigner_key = key.pem\n"
        "signer_digest = sha256\ndefault_policy = 1.2.3.4.1\ndigests = sha256\naccuracy = secs:1\n"
        "[req]\ndistinguished_name = name\nx509_extensions = ext\nprompt = no\n[name]\nCN = A test\n"
        "[ext]\nextendedKeyUsage = critical,timeStamping\n"
    )
    (folder / "serial").write_text("01\n")
    call = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-config",
        "ts.cnf",
        "-days",
        "2",
    ]
    subprocess.run(call, check=True, cwd=folder, capture_output=True)
    handler = type("Handler", (Authority,), {"folder": folder})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_end_of_the_log_is_kept_elsewhere_and_stamped(
    study_folder: Path, tmp_path: Path, authority: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    assert run("enrol", study_folder) == 0
    assert run("anchor", study_folder, "--out", kept / "heads.txt", "--tsa", authority) == 0
    assert run("enrol", study_folder) == 0
    assert run("anchor", study_folder, "--out", kept / "heads.txt") == 0
    assert len((kept / "heads.txt").read_text().splitlines()) == 2 and len(list(kept.glob("*.tsr"))) == 1
    assert run("verify", study_folder, "--receipts", kept) == 0
    assert run("anchor", study_folder, "--out", kept / "heads.txt", "--tsa", "ftp://nobody") == 2
    other = tmp_path / "other"
    shutil.copytree(study_folder, other, ignore=shutil.ignore_patterns("store*", "anchors*"))
    assert run("enrol", other) == 0  # begun anew, with another log
    capsys.readouterr()
    assert run("verify", other, "--receipts", kept) == 1
    told = capsys.readouterr().out
    assert "the time stamp heads-3.tsr is of another log" in told and "was given for" in told


# -- backup and restore


def test_a_backup_holds_everything_but_the_key_and_brings_a_lost_study_back(
    study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Study.open(study_folder) as study:
        code = study.enrol(1, "Here")[0].code
        token = study.sign_in(code)
        study.submit(token, "s001", {"consent": True}, "q1")
        # while it is conducted, and with answers in the write-ahead log alone
        assert run("backup", study_folder, "--out", tmp_path / "study.backup") == 0
        held = study.store.head(study.name).sequence
    with zipfile.ZipFile(tmp_path / "study.backup") as archive:
        names = set(archive.namelist())
        assert {"store.sqlite", "frozen.json", "truth.sealed", "anchors.jsonl", "backup.json"} <= names
        assert not [name for name in names if "key" in name or name.endswith(("-wal", "-shm"))]
        assert key_of(study_folder).read_text().strip().encode() not in b"".join(map(archive.read, names))
    assert run("backup", study_folder, "--out", tmp_path / "study.backup") == 2
    shutil.rmtree(study_folder)
    assert run("restore", tmp_path / "study.backup", "--out", study_folder, "--reason", "a broken disk") == 0
    assert f"{held} events" in capsys.readouterr().out
    with Study.open(study_folder) as study:
        assert Coordinator(study).verify() == [] and study.view(study.sign_in(code)).done == 1
        (event,) = study.store.events(study.name, kinds=["restored"])
        assert (event.payload or {})["reason"] == "a broken disk"


def test_what_a_backup_does_not_hold_is_told_for_good(
    study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("enrol", study_folder) == 0
    assert run("backup", study_folder, "--out", tmp_path / "study.backup") == 0
    assert run("enrol", study_folder) == 0
    capsys.readouterr()
    assert run("restore", tmp_path / "study.backup", "--out", study_folder) == 0
    told = capsys.readouterr().out
    assert "1 later events are not in this backup and are lost" in told and "kept as" in told
    assert run("verify", study_folder) == 0
    assert "events 4 to 4 were lost when a backup was restored" in capsys.readouterr().out
    assert run("enrol", study_folder) == 0 and run("verify", study_folder) == 0


def test_a_backup_that_was_changed_or_is_of_another_key_restores_nothing(
    study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.backup"
    assert run("enrol", study_folder) == 0 and run("backup", study_folder, "--out", path) == 0
    changed = tmp_path / "changed.backup"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name) + (b" " if name == "protocol.yaml" else b""))
    assert run("restore", changed, "--out", tmp_path / "new") == 2
    assert "protocol.yaml was changed after the backup was made" in capsys.readouterr().err
    (tmp_path / "none.backup").write_bytes(path.read_bytes()[:5000])
    assert run("restore", tmp_path / "none.backup", "--out", tmp_path / "new") == 2
    other = tmp_path / "other.key"
    other.write_text(hashlib.sha256(b"another").hexdigest())
    other.chmod(0o600)
    assert run("restore", path, "--out", tmp_path / "new", "--key", other) == 2
    assert "another key" in capsys.readouterr().err and not (tmp_path / "new").exists()
    key = key_of(study_folder)
    shutil.copy(key, tmp_path / "carried.key")
    monkeypatch.setenv("SKINCLIP_STUDY_KEYS", str(tmp_path / "another computer"))
    assert run("restore", path, "--out", tmp_path / "new", "--key", tmp_path / "carried.key") == 0
    assert run("verify", tmp_path / "new") == 0


def test_a_database_that_is_locked_for_good_is_told_within_ten_seconds(
    study_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("enrol", study_folder) == 0
    holding = sqlite3.connect(study_folder / "store.sqlite", isolation_level=None)
    holding.execute("BEGIN IMMEDIATE")
    began = datetime.now(UTC)
    assert run("enrol", study_folder) == 2
    assert datetime.now(UTC) - began < timedelta(seconds=10)
    assert "another program has held the database" in capsys.readouterr().err
    holding.close()
    assert run("enrol", study_folder) == 0
