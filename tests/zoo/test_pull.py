"""Pulling, end to end against a hub-shaped server on the loopback."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convnext_cli import zoo
from convnext_cli.base.errors import ModelError, NetworkError, OutputError, UsageError
from convnext_cli.zoo import fetch, http_client, record
from convnext_cli.zoo import pull as puller
from convnext_cli.zoo import remove as remover
from convnext_cli.zoo.catalogue import Entry
from tests.helpers.fake_hub import COMMIT, NAME, REPOSITORY, WEIGHTS, Hub


@pytest.fixture
def place(home: Path) -> Path:
    return home / "weights" / NAME


def entry(name: str = NAME) -> Entry:
    found = zoo.find(name)
    assert found is not None
    return found


def published(hub: Hub, content: bytes = WEIGHTS, *, prefix: str | None = None) -> Entry:
    """A checkpoint that lies on its publisher's own server, its checksum in the file's name."""
    prefix = hashlib.sha256(content).hexdigest()[:8] if prefix is None else prefix
    file = f"convnext_tiny-{prefix}.pth" if prefix else "convnext_tiny_1k.pth"
    hub.plain[file] = content
    return dataclasses.replace(entry("convnext_tiny.tv_in1k"), url=f"{hub.url}/{file}", files=(file,))


def left(place: Path) -> list[str]:
    """What is in a model's folder, the lock aside."""
    return sorted(p.name for p in place.iterdir() if p.name != ".lock") if place.is_dir() else []


def test_a_model_arrives_whole_with_what_belongs_to_it(hub: Hub, place: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = puller.pull(entry(), progress=lambda *step: told.append(step))
    assert path == place / "model.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert left(place) == ["config.json", "model.safetensors", "pulled.json"]
    assert zoo.resolve(NAME) == path
    assert told[-1] == ("model.safetensors", len(WEIGHTS), len(WEIGHTS))


def test_the_record_says_what_came_from_where(hub: Hub, place: Path) -> None:
    puller.pull(entry())
    noted = json.loads((place / "pulled.json").read_text())
    assert (noted["name"], noted["license"]) == (NAME, "apache-2.0")
    assert noted["files"]["model.safetensors"] == {
        "mtime": (place / "model.safetensors").stat().st_mtime_ns,
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "size": len(WEIGHTS),
        "checked": "whole",
        "source": f"{hub.url}/{REPOSITORY}/resolve/{COMMIT}/model.safetensors",
    }
    assert noted["files"]["config.json"]["checked"] == "whole"


def test_what_is_here_is_not_fetched_again(hub: Hub) -> None:
    first = puller.pull(entry())
    hub.log.clear()
    assert puller.pull(entry()) == first
    assert puller.pull(entry(), offline=True) == first
    assert hub.log == []


def test_a_cut_connection_is_resumed_at_the_byte(hub: Hub) -> None:
    hub.cut = [33, 1_000_000, 5]  # the config is smaller than the first cut
    path = puller.pull(entry())
    assert path.read_bytes() == WEIGHTS
    assert hub.gets("storage/" + REPOSITORY + "/model.safetensors") == ["", "bytes=1000000-", "bytes=1000005-"]


def test_a_pull_that_gave_up_goes_on_when_it_is_run_again(hub: Hub, place: Path) -> None:
    hub.cut = [33, 1_000_000, 0, 0, 0, 0]
    with pytest.raises(NetworkError) as error:
        puller.pull(entry())
    assert error.value.exit_status == 5
    assert "run the same command again" in str(error.value.hint)
    assert not (place / "model.safetensors").exists()
    assert zoo.local_files.find(entry()) == []
    hub.log.clear()
    assert puller.pull(entry()).read_bytes() == WEIGHTS
    assert hub.gets("model.safetensors")[-1] == "bytes=1000000-"
    assert left(place) == ["config.json", "model.safetensors", "pulled.json"]


def test_a_server_that_ignores_ranges_is_asked_for_all_of_it(hub: Hub) -> None:
    hub.ranges, hub.cut = False, [33, 1_000_000]
    assert puller.pull(entry()).read_bytes() == WEIGHTS


def test_a_server_that_always_cuts_and_ignores_ranges_is_given_up(hub: Hub) -> None:
    hub.ranges, hub.cut = False, [33] + [1_000_000] * 50
    with pytest.raises(NetworkError, match="cut after 1,000,000 of 3,000,000"):
        puller.pull(entry())
    assert len(hub.cut) > 40


def test_a_new_version_is_never_glued_to_an_old_part(hub: Hub, place: Path) -> None:
    hub.cut = [33, 1_000_000, 0, 0, 0, 0]
    with pytest.raises(NetworkError):
        puller.pull(entry())
    newer = bytes(reversed(WEIGHTS))
    hub.add(REPOSITORY, "model.safetensors", newer, large=True)
    assert puller.pull(entry()).read_bytes() == newer
    assert left(place) == ["config.json", "model.safetensors", "pulled.json"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int, hub: Hub) -> None:
    hub.statuses = [status, status]
    assert puller.pull(entry()).read_bytes() == WEIGHTS


def test_a_wrong_checksum_is_refused_and_nothing_stays(hub: Hub, place: Path) -> None:
    del hub.files[f"{REPOSITORY}/config.json"]
    hub.lie = True
    with pytest.raises(NetworkError, match="arrived damaged"):
        puller.pull(entry())
    assert not place.exists()
    assert zoo.local_files.find(entry()) == []


def test_a_small_file_is_checked_too(hub: Hub, place: Path) -> None:
    hub.large.clear()
    hub.lie = True
    with pytest.raises(NetworkError, match=r"config\.json arrived damaged"):
        puller.pull(entry())
    assert not place.exists()


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add(REPOSITORY)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    puller.pull(entry())
    for _, path, _, token in hub.log:
        assert token == ("" if path.startswith("storage/") else "Bearer hf_good"), path


def test_a_gated_model_says_where_to_accept_its_terms(hub: Hub, place: Path) -> None:
    hub.gated.add(REPOSITORY)
    with pytest.raises(NetworkError, match="gated") as error:
        puller.pull(entry())
    assert f"https://huggingface.co/{REPOSITORY}" in str(error.value.hint)
    assert "HF_TOKEN" in str(error.value.hint)
    assert not place.exists()


def test_a_repository_that_is_not_there_names_the_publishers_file(hub: Hub) -> None:
    hub.files.clear()
    with pytest.raises(NetworkError, match="no public repository") as error:
        puller.pull(entry())
    assert "--origin" in str(error.value.hint)
    assert len(hub.log) == 1, "asking again does not help"


def test_older_weights_are_taken_when_there_are_no_newer(hub: Hub) -> None:
    hub.files = {f"{REPOSITORY}/pytorch_model.bin": WEIGHTS}
    assert puller.pull(entry()).name == "pytorch_model.bin"


def test_a_repository_without_weights(hub: Hub) -> None:
    del hub.files[f"{REPOSITORY}/model.safetensors"]
    with pytest.raises(NetworkError, match="has no weights"):
        puller.pull(entry())


def test_a_publishers_own_file_is_checked_by_its_name(hub: Hub) -> None:
    known = published(hub)
    path = puller.pull(known)
    assert path.read_bytes() == WEIGHTS
    assert path.name == known.files[0]
    noted = record.read(path.parent)
    assert noted is not None
    assert noted["files"][path.name]["checked"] == "start"


def test_a_publishers_file_of_another_checksum_is_refused(hub: Hub, home: Path) -> None:
    with pytest.raises(NetworkError, match="should be deadbeef"):
        puller.pull(published(hub, prefix="deadbeef"))
    assert not (home / "weights" / "convnext_tiny.tv_in1k").exists()


def test_a_publishers_file_without_checksum_is_noted_as_unchecked(hub: Hub) -> None:
    path = puller.pull(published(hub, prefix=""))
    noted = record.read(path.parent)
    assert noted is not None
    assert noted["files"][path.name]["checked"] == "none"


def test_a_server_that_answers_no_head_request(hub: Hub) -> None:
    hub.head, hub.cut = False, [1_000_000]
    assert puller.pull(published(hub)).read_bytes() == WEIGHTS


def test_a_publishers_file_is_resumed(hub: Hub) -> None:
    hub.cut = [1_000_000]
    known = published(hub, prefix="")
    assert puller.pull(known).read_bytes() == WEIGHTS
    assert hub.gets(known.files[0]) == ["", "bytes=1000000-"]


def test_origin_takes_the_publishers_file_instead_of_the_hubs(hub: Hub) -> None:
    known = dataclasses.replace(published(hub), name=NAME, hub=REPOSITORY)
    assert puller.pull(known, origin=True).name == known.files[0]
    with pytest.raises(NetworkError, match="offers no file"):
        puller.pull(dataclasses.replace(entry(), url=""), origin=True)


def test_a_missing_file_is_told_at_once(hub: Hub) -> None:
    known = dataclasses.replace(published(hub), url=f"{hub.url}/gone.pth")
    with pytest.raises(NetworkError, match="404"):
        puller.pull(known)
    assert len(hub.log) == 1


def test_nobody_listens(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match=r"refused|cannot fetch"):
        puller.pull(entry())


def test_a_proxy_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    monkeypatch.setenv("http_proxy", hub.url)
    assert puller.pull(entry()).read_bytes() == WEIGHTS


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", ""])
def test_offline_forbids(variable: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(NetworkError, match="forbidden"):
        puller.pull(entry(), offline=not variable)
    assert hub.log == []


def test_two_pulls_of_one_model_do_not_mix(hub: Hub, place: Path) -> None:
    from filelock import FileLock

    place.mkdir(parents=True)
    with FileLock(place / ".lock"), pytest.raises(OutputError, match="another process"):
        puller.pull(entry())


FULL = """
import resource, sys
from convnext_cli import zoo
from convnext_cli.cli import run
from convnext_cli.zoo import fetch
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
sys.exit(run(["models", "pull", "convnext_tiny.fb_in1k"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
def test_a_full_disk_keeps_what_came_and_goes_on_after_room_was_made(hub: Hub, place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=False)
    assert done.returncode == 74, done.stderr
    assert "the disk is full: 2,000,000 bytes of the download are kept" in done.stderr
    assert not (place / "model.safetensors").exists()
    hub.log.clear()
    assert puller.pull(entry()).read_bytes() == WEIGHTS
    assert hub.gets("model.safetensors")[-1] == "bytes=2000000-"


def test_too_little_room_is_told_before_the_first_byte(hub: Hub, place: Path) -> None:
    remote = fetch.Remote(f"{hub.url}/x", size=1 << 60, version="v")
    with pytest.raises(OutputError, match="MB free"):
        fetch.download(remote, place / "x", limit=1 << 61)
    assert hub.log == []


def test_a_folder_that_cannot_be_made(hub: Hub, home: Path) -> None:
    (home / "weights").write_text("a file")
    with pytest.raises(OutputError) as error:
        puller.pull(entry())
    assert error.value.exit_status == 74


def test_remove_deletes_what_was_pulled_and_nothing_else(hub: Hub, place: Path) -> None:
    puller.pull(entry())
    (place / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"notes\.txt"):
        remover.remove(NAME)
    (place / "notes.txt").unlink()
    assert remover.remove(NAME) == [place]
    assert not place.exists()
    assert remover.remove(NAME) == []


def test_remove_waits_for_no_pull_and_disturbs_none(hub: Hub, place: Path) -> None:
    from filelock import FileLock

    path = puller.pull(entry())
    with FileLock(place / ".lock"), pytest.raises(OutputError, match="another process"):
        remover.remove(NAME)
    assert path.is_file()


def test_the_publishers_file_takes_the_place_of_the_hubs(hub: Hub, place: Path) -> None:
    puller.pull(entry())
    file = "convnext_tiny_1k_224_ema.pth"
    hub.plain[file] = bytes(reversed(WEIGHTS))
    known = dataclasses.replace(entry(), url=f"{hub.url}/{file}")
    path = puller.pull(known, origin=True)
    assert zoo.resolve(NAME) == path == place / file
    assert left(place) == [file, "pulled.json"]
    assert puller.pull(known) == path


def test_the_file_that_was_pulled_goes_before_others_beside_it(hub: Hub, place: Path) -> None:
    path = puller.pull(published(hub))
    (path.parent / "model.safetensors").write_bytes(b"something else")
    assert zoo.resolve("convnext_tiny.tv_in1k") == path


def test_a_damaged_file_is_fetched_again(hub: Hub, place: Path) -> None:
    path = puller.pull(entry())
    path.write_bytes(WEIGHTS[:-1] + b"x")
    os.utime(path, ns=(0, 0))
    with pytest.raises(NetworkError, match="cannot be fetched again"):
        puller.pull(entry(), offline=True)
    assert puller.pull(entry()).read_bytes() == WEIGHTS


def test_a_file_that_was_only_touched_is_kept(hub: Hub) -> None:
    path = puller.pull(entry())
    os.utime(path, ns=(0, 0))
    hub.log.clear()
    assert puller.pull(entry()) == path
    assert hub.log == []


def test_force_mends_what_only_its_checksum_tells(hub: Hub, place: Path) -> None:
    path = puller.pull(entry())
    written = path.stat().st_mtime_ns
    path.write_bytes(WEIGHTS[:-1] + b"x")
    os.utime(path, ns=(written, written))
    assert puller.pull(entry()).read_bytes() != WEIGHTS
    hub.log.clear()
    assert puller.pull(entry(), force=True).read_bytes() == WEIGHTS
    assert hub.gets("model.safetensors"), "the weights came anew"
    hub.log.clear()
    puller.pull(entry(), force=True)
    assert hub.gets("model.safetensors") == [], "what is as published is not fetched again"


def test_a_record_that_is_damaged_counts_as_none(hub: Hub, place: Path) -> None:
    puller.pull(entry())
    for damage in ("{", "[]", '{"files": {}}', '{"files": {"model.safetensors": {"size": 1}}}'):
        (place / "pulled.json").write_text(damage)
        assert record.complete(place) is None
    hub.log.clear()
    assert puller.pull(entry()) == record.complete(place)
    assert hub.gets("model.safetensors") == [], "the weights are as published, and stay"


def test_weights_that_were_changed_are_fetched_anew(hub: Hub, place: Path) -> None:
    path = puller.pull(entry())
    path.write_bytes(WEIGHTS[:-1] + b"x")
    (place / "pulled.json").unlink()
    assert puller.pull(entry()).read_bytes() == WEIGHTS


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    import urllib.request
    from email.message import Message

    request = urllib.request.Request("https://a.invalid/x", headers={"Authorization": "Bearer t"})
    handler = http_client._Redirects(stay=False)
    with pytest.raises(http_client.BadAnswerError, match="from https to http"):
        handler.redirect_request(request, None, 302, "", Message(), "http://a.invalid/x")
    elsewhere = handler.redirect_request(request, None, 302, "", Message(), "https://b.invalid/x")
    assert elsewhere is not None
    assert not elsewhere.has_header("Authorization")
    same = handler.redirect_request(request, None, 307, "", Message(), "https://a.invalid/y")
    assert same is not None
    assert same.has_header("Authorization")


def test_a_missing_model_is_pulled_after_its_licence_was_accepted(hub: Hub, place: Path) -> None:
    asked: list[str] = []
    path = puller.pull_missing(NAME, agree=lambda checkpoint: asked.append(checkpoint.name))
    assert path == place / "model.safetensors" == zoo.resolve(NAME)
    assert asked == [NAME]
    hub.log.clear()
    assert puller.pull_missing(NAME, agree=lambda checkpoint: asked.append(checkpoint.name)) == path
    assert (asked, hub.log) == ([NAME], [])


def test_nothing_is_pulled_when_the_licence_is_declined(hub: Hub, place: Path) -> None:
    def decline(checkpoint: Entry) -> None:
        raise UsageError(f"the terms of {checkpoint.name} were declined")

    with pytest.raises(UsageError, match="declined"):
        puller.pull_missing(NAME, agree=decline)
    assert (hub.log, left(place)) == ([], [])
    with pytest.raises(NetworkError, match="forbidden"):  # nobody is asked about what cannot be fetched
        puller.pull_missing(NAME, agree=decline, offline=True)
    with pytest.raises(ModelError, match="convnext_tyni"):
        puller.pull_missing("convnext_tyni", agree=decline)
