"""The zoo: its table against the libraries that made the weights, names, and copies on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from convnext_cli import labels, zoo
from convnext_cli.base.errors import ConvNextError, ModelError, OutputError, UsageError
from convnext_cli.model.config import VARIANTS
from convnext_cli.model.preprocessing import CLIP_MEAN, IMAGENET_MEAN, INCEPTION_MEAN
from convnext_cli.zoo import local_files, settings
from convnext_cli.zoo.catalogue import Entry, sha256_prefix
from tests.helpers.paths import ROOT

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def entry(name: str) -> Entry:
    found = zoo.find(name)
    assert found is not None, name
    return found


def put(path: Path, content: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def cached(
    home: Path, repository: str, revision: str = "aaa", file: str = "model.safetensors", main: bool = True
) -> Path:
    """A file in the hub's cache, as huggingface_hub lays it out."""
    folder = home / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
    blob = put(folder / "blobs" / f"blob-of-{revision}")
    link = folder / "snapshots" / revision / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        put(folder / "refs" / "main", revision.encode())
    return link


# The table ------------------------------------------------------------------------------------------------------------


@pytest.mark.peers
def test_all_that_timm_publishes_is_here_with_its_recipe_licence_and_classes() -> None:
    registry = pytest.importorskip("timm.models._registry")
    seen = 0
    for name, cfg in registry._model_pretrained_cfgs.items():
        architecture, _, tag = name.partition(".")
        if registry._model_to_module.get(architecture) != "convnext" or tag in ("", "untrained"):
            continue
        seen += 1
        known = entry(name)
        assert known.name == name
        assert known.config.num_labels == cfg.num_classes, name
        assert known.license == cfg.license, name
        assert known.hub == cfg.hf_hub_id, name
        assert known.preprocessing.size == cfg.input_size[1:], name
        assert known.preprocessing.mean == cfg.mean, name
        assert known.preprocessing.std == cfg.std, name
        assert known.preprocessing.interpolation == cfg.interpolation, name
        assert known.preprocessing.resize == {"center": "shortest", "squash": "squash"}[cfg.crop_mode], name
        assert known.preprocessing.resize_to[0] == math.floor(cfg.input_size[1] / cfg.crop_pct), name
        if known.preprocessing.test_size:
            assert known.preprocessing.test_size == cfg.test_input_size[1:], name
            assert (
                known.preprocessing.test_resize_to == (math.floor(cfg.test_input_size[1] / cfg.test_crop_pct),) * 2
            ), name
        if cfg.url:
            assert known.url.rpartition("/")[2] == cfg.url.rpartition("/")[2], name
    assert seen > 90


@pytest.mark.peers
def test_torchvisions_weights_are_here_with_its_recipe_and_scores() -> None:
    convnext = pytest.importorskip("torchvision.models.convnext")
    for size in ("Tiny", "Small", "Base", "Large"):
        weights = getattr(convnext, f"ConvNeXt_{size}_Weights").IMAGENET1K_V1
        known = entry(str(weights))
        preset = weights.transforms()
        assert known is entry(f"torchvision/convnext_{size.lower()}")
        assert known.url == weights.url
        assert known.num_parameters == weights.meta["num_params"]
        assert known.preprocessing.size == (preset.crop_size[0],) * 2
        assert known.preprocessing.resize_to == (preset.resize_size[0],) * 2
        assert known.preprocessing.interpolation == preset.interpolation.value
        assert known.metrics["imagenet-1k top-1"] == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert known.metrics["imagenet-1k top-5"] == weights.meta["_metrics"]["ImageNet-1K"]["acc@5"]
        assert abs(known.gmacs - weights.meta["_ops"]) < 0.002
        assert weights.url.endswith(f"-{sha256_prefix(known.url)}.pth")


@pytest.mark.peers
def test_open_clips_repositories_lead_to_their_towers() -> None:
    pretrained = pytest.importorskip("open_clip.pretrained")
    repositories = [
        source["hf_hub"].rstrip("/")
        for model in pretrained.list_pretrained_models_by_tag("") or pretrained._PRETRAINED
        if model.startswith("convnext")
        for source in pretrained._PRETRAINED[model].values()
    ]
    assert len(repositories) > 10
    for repository in repositories:
        assert entry(repository).task == "embedding"


def test_every_entry_is_of_a_known_architecture_and_can_be_fetched() -> None:
    for known in zoo.entries():
        assert known.architecture in VARIANTS
        assert known.name.startswith(f"{known.architecture}.")
        assert known.hub or known.url.startswith("https://")
        assert known.num_parameters > 0
        assert known.gmacs > 0
        assert known.preprocessing.resize_to >= known.preprocessing.size
        if known.labels:
            assert len(labels.load(known.labels)) == known.config.num_labels
            assert known.task == "classification"
        assert all(0 < value < 100 for value in known.metrics.values())


def test_names_are_unique_whatever_their_case_and_dashes() -> None:
    owners: dict[str, set[str]] = {}
    for known in zoo.entries():
        for name in (known.name, *known.aliases, *known.files):
            owners.setdefault(name.casefold().replace("_", "-"), set()).add(known.name)
    assert {name: whose for name, whose in owners.items() if len(whose) > 1} == {}


@pytest.mark.parametrize(
    ("name", "params", "gmacs", "top1"),
    [
        ("convnext_tiny.fb_in1k", 28589128, 4.46, 82.066),
        ("convnext_xxlarge.clip_laion2b_soup_ft_in1k", 846471016, 197.97, 88.622),
        ("convnextv2_huge.fcmae_ft_in22k_in1k_384", 660289640, 337.72, 88.666),
        ("convnext_large_mlp.clip_laion2b_soup_ft_in12k_in1k_320", 200128168, 70.13, 87.970),
        ("convnext_isotropic_base.fb_in1k", 87083752, 16.90, 82.0),
        ("convnext_zepto_rms_ols.ra4_e3600_r224_in1k", 2164232, 0.34, 73.234),
    ],
)
def test_parameters_and_gmacs_are_those_published(name: str, params: int, gmacs: float, top1: float) -> None:
    known = entry(name)
    assert known.num_parameters == params
    assert round(known.gmacs, 2) == gmacs
    assert known.top1 == top1


def test_recipes_of_the_families() -> None:
    assert entry("convnext_xxlarge.clip_laion2b_soup_ft_in1k").preprocessing.mean == CLIP_MEAN
    assert entry("zepto_rms").preprocessing.mean == INCEPTION_MEAN
    assert entry("convnextv2_tiny.fcmae").preprocessing.mean == IMAGENET_MEAN
    squash = entry("convnext_base.fb_in22k_ft_in1k_384").preprocessing
    assert (squash.resize, squash.resize_to) == ("squash", (384, 384))
    tiny = entry("tiny").preprocessing
    assert (tiny.size, tiny.resize_to, tiny.test_size, tiny.test_resize_to) == (
        (224, 224),
        (256, 256),
        (288, 288),
        (288, 288),
    )


def test_a_test_size_that_scores_worse_is_not_offered() -> None:
    known = entry("convnext_tiny.fb_in22k_ft_in1k")
    assert known.preprocessing.test_size is None
    assert known.metrics["imagenet-1k top-1 at 288"] == 78.95


def test_heads() -> None:
    assert entry("convnext_base.clip_laion2b").config.num_labels == 640
    assert entry("convnext_base.clip_laion2b").top1 == 70.78
    assert entry("convnextv2_base.fcmae").config.head_norm == "none"
    assert entry("dinov3_convnext_tiny").task == "features"
    assert entry("convnext_nano.in12k").labels == "imagenet-12k"
    # V1's -22k has 21,841 classes, V2's has 1,000
    assert entry("facebook/convnext-base-224-22k").config.num_labels == 21841
    assert entry("facebook/convnextv2-base-22k-224").config.num_labels == 1000


def test_licences_that_ask_for_something_say_so() -> None:
    for known in zoo.entries():
        asks = known.architecture.startswith("convnextv2") or ".dinov3" in known.name or ".eupe" in known.name
        assert bool(known.terms) == asks, known.name


def test_the_table_of_licences_in_the_docs_is_that_of_the_zoo() -> None:
    import re
    from fnmatch import fnmatch

    text = (ROOT / "docs" / "models.md").read_text("utf-8").split("| checkpoints | licence | restrictions |")[1]
    table = [line.split("|")[1:4] for line in text.split("\n\n")[0].splitlines()[2:]]
    said: dict[str, list[str]] = {known.name: [] for known in zoo.entries()}
    for who, licences, asks in table:
        patterns = [f"{pattern.rstrip('*')}*" for pattern in re.findall(r"`([^`]+)`", who)]
        for known in zoo.entries():
            if any(fnmatch(known.name.partition(".")[2], pattern) for pattern in patterns):
                said[known.name].append(licences)
                assert known.license in licences.casefold(), known.name
                assert bool(known.terms) == bool(asks.strip()), known.name
    assert [name for name, rows in said.items() if len(rows) != 1] == []
    towers = {known.name for known in zoo.entries() if ".clip_" in known.name and known.license == "mit"}
    assert {
        name for licences in said["convnext_base.clip_laion2b"] for name in re.findall(r"`([^`]+)`", licences)
    } == towers


def test_the_card_tells_what_the_entry_knows() -> None:
    known = entry("tiny")
    card = known.card()
    assert (card.config, card.preprocessing, card.labels) == (known.config, known.preprocessing, "imagenet-1k")
    assert (card.license, card.source) == ("apache-2.0", "https://huggingface.co/timm/convnext_tiny.fb_in1k")
    assert type(card).from_json(card.to_json()) == card


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "tiny",
        "TINY",
        "convnext_tiny",
        "convnext-tiny",
        "convnext-tiny-224",
        "facebook/convnext-tiny-224",
        "timm/convnext_tiny.fb_in1k",
        "hf-hub:timm/convnext_tiny.fb_in1k",
        "https://huggingface.co/facebook/convnext-tiny-224/",
        "convnext_tiny_1k_224_ema.pth",
        "convnext_tiny_1k_224_ema",
        "ConvNeXt_Tiny.fb_in1k",
    ],
)
def test_names_of_the_same_weights(name: str) -> None:
    assert entry(name).name == "convnext_tiny.fb_in1k"


def test_unknown_names_find_nothing() -> None:
    assert zoo.find("resnet50") is None
    assert zoo.find("") is None


@pytest.mark.parametrize("size", ["atto", "femto", "pico", "nano", "tiny", "base", "large", "huge"])
def test_short_names_of_v2(size: str) -> None:
    assert entry(f"v2-{size}").name == f"convnextv2_{size}.fcmae_ft_in1k"


def test_misspelt_names_have_neighbours() -> None:
    near = zoo.nearest("convnxt-tinny")
    assert len(near) == 3
    assert near[0] == "convnext_tiny.fb_in1k"
    assert zoo.nearest("convnextv2-hugge")[0].startswith("convnextv2_huge")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/convnext_tiny_1k_224_ema.pth", "convnext_tiny.fb_in1k"),
        ("x/convnext_tiny-983f1562.pth", "convnext_tiny.tv_in1k"),
        ("x/convnext_nano.in12k.safetensors", "convnext_nano.in12k"),
        ("x/models--timm--convnext_tiny.fb_in1k/snapshots/a1/model.safetensors", "convnext_tiny.fb_in1k"),
        ("x/models--facebook--convnext-base-224-22k/snapshots/a1", "convnext_base.fb_in22k"),
        ("weights/convnext_nano.in12k/model.safetensors", "convnext_nano.in12k"),
        ("clones/convnext-tiny-224/pytorch_model.bin", "convnext_tiny.fb_in1k"),
        ("dinov3_convnext_tiny_pretrain_lvd1689m-21b726bb.pth", "convnext_tiny.dinov3_lvd1689m"),
        ("x/tiny.pth", None),
        ("x/convnext_tiny.pth", None),
        ("convnext-tiny-224/finetuned.safetensors", None),
        ("x/model.safetensors", None),
    ],
)
def test_files_are_known_by_their_publishers_names_alone(path: str, name: str | None) -> None:
    found = zoo.entry_for_file(path)
    assert (found.name if found else None) == name


# Copies on this machine -----------------------------------------------------------------------------------------------


def test_nothing_is_found_on_a_fresh_machine(home: Path) -> None:
    assert local_files.find(entry("tiny")) == []
    with pytest.raises(ModelError) as error:
        zoo.resolve("tiny")
    assert error.value.exit_status == 3
    assert error.value.hint == "convnext models pull convnext_tiny.fb_in1k"


def test_a_copy_in_the_hub_cache_is_used_where_it_lies(home: Path) -> None:
    link = cached(home, "timm/convnext_tiny.fb_in1k")
    assert zoo.resolve("tiny") == link
    assert zoo.entry_for_file(link) is entry("tiny")


def test_main_goes_before_other_revisions(home: Path) -> None:
    main = cached(home, "timm/convnext_tiny.fb_in1k", "aaa")
    other = cached(home, "timm/convnext_tiny.fb_in1k", "bbb", main=False)
    os.utime(main.parent, (1, 1))
    assert local_files.find(entry("tiny")) == [main, other]


def test_a_repository_that_is_named_goes_before_others(home: Path) -> None:
    timm, facebook = cached(home, "timm/convnext_tiny.fb_in1k"), cached(home, "facebook/convnext-tiny-224")
    assert zoo.resolve("tiny") == timm
    assert zoo.resolve("facebook/convnext-tiny-224") == facebook


def test_torch_hubs_files_are_used(home: Path) -> None:
    file = put(home / "torch" / "hub" / "checkpoints" / "convnext_tiny-983f1562.pth")
    assert zoo.resolve("convnext_tiny.tv_in1k") == file
    with pytest.raises(ModelError):
        zoo.resolve("convnext_tiny.fb_in1k")


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_variables_of_huggingface_hub(
    variable: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    folder = tmp_path / below / "models--timm--convnext_nano.in12k" / "snapshots" / "abc"
    file = put(folder / "pytorch_model.bin")
    assert zoo.resolve("convnext_nano.in12k") == file


def test_the_users_own_folder_goes_first(home: Path) -> None:
    cached(home, "timm/convnext_tiny.fb_in1k")
    file = put(home / "weights" / "convnext_tiny.fb_in1k" / "model.safetensors")
    assert zoo.resolve("tiny") == file


def test_models_of_the_users_own_have_names_too(home: Path) -> None:
    file = put(home / "weights" / "flowers.safetensors")
    folder = put(home / "weights" / "birds" / "model.safetensors").parent
    assert zoo.resolve("flowers") == file
    assert zoo.resolve("birds") == folder


def test_shards_in_the_hub_cache_are_used_when_all_are_here(home: Path) -> None:
    index = cached(home, "timm/convnext_tiny.fb_in1k", file="model.safetensors.index.json")
    index.write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    put(index.parent / "model-00001-of-00002.safetensors")
    with pytest.raises(ModelError):
        zoo.resolve("tiny")
    put(index.parent / "model-00002-of-00002.safetensors")
    assert zoo.resolve("tiny") == index
    assert zoo.entry_for_file(index) is entry("tiny")


@pytest.mark.parametrize("name", ["timm/myself_finetuned", "hf-hub:timm/myself_finetuned"])
def test_any_cached_repository_has_its_name(name: str, home: Path) -> None:
    file = cached(home, "timm/myself_finetuned")
    assert zoo.resolve(name) == file


def test_a_cached_repository_with_weights_of_another_name(home: Path) -> None:
    file = cached(home, "me/flowers", file="best.pth")
    assert zoo.resolve("me/flowers") == file.parent


def test_training_checkpoints_of_timm_are_weights(home: Path, tmp_path: Path) -> None:
    put(tmp_path / "run" / "checkpoint.pth.tar")
    assert zoo.resolve(tmp_path / "run") == tmp_path / "run"


@pytest.mark.parametrize("content", [LFS, b""])
def test_pointers_and_empty_files_are_no_weights(content: bytes, home: Path) -> None:
    put(home / "weights" / "convnext_tiny.fb_in1k" / "model.safetensors", content)
    with pytest.raises(ModelError):
        zoo.resolve("tiny")


def test_unfinished_downloads_are_no_weights(home: Path) -> None:
    folder = home / "hf" / "hub" / "models--timm--convnext_tiny.fb_in1k"
    put(folder / "blobs" / "abc.incomplete")
    (folder / "snapshots" / "aaa").mkdir(parents=True)
    (folder / "snapshots" / "aaa" / "model.safetensors").symlink_to(folder / "blobs" / "abc")
    put(home / "weights" / "convnext_tiny.fb_in1k" / ".model.safetensors.0123.part")
    assert local_files.find(entry("tiny")) == []


# Resolving ------------------------------------------------------------------------------------------------------------


def test_default_is_the_bundled_model_whatever_was_chosen(home: Path) -> None:
    settings.use("tiny")
    bundled = local_files.bundled()
    assert bundled is not None
    assert zoo.resolve("default") == bundled
    assert zoo.default_model() == "tiny"


def test_a_path_goes_before_a_name(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(home, "timm/convnext_tiny.fb_in1k")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert zoo.resolve("tiny") != Path("tiny"), "a folder of something else is no model"
    put(tmp_path / "tiny" / "model.safetensors")
    assert zoo.resolve("tiny") == Path("tiny")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("convnxt_tinny", "convnext_tiny.fb_in1k"),
        ("./nothing.pth", "check the path"),
        ("nothing.safetensors", "check the path"),
        ("~nobody-of-this-name/x", "check the path"),
        ("a\0b", "nearest"),
        ("x" * 5000, "nearest"),
    ],
)
def test_what_cannot_be_resolved_is_explained(name: str, says: str, home: Path) -> None:
    with pytest.raises(ModelError) as error:
        zoo.resolve(name)
    assert says in str(error.value.hint)


def test_a_folder_without_weights_is_explained(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights in"):
        zoo.resolve(tmp_path)


def test_a_licence_is_said_with_the_pull_line(home: Path) -> None:
    with pytest.raises(ModelError) as error:
        zoo.resolve("v2-tiny")
    assert "non-commercial" in str(error.value.hint)


# Settings -------------------------------------------------------------------------------------------------------------


def test_settings_keep_what_they_do_not_know(home: Path) -> None:
    put(home / "config.toml", b'colour = "blue"\n')
    settings.use("tiny")
    assert settings.read() == {"colour": "blue", "model": "tiny"}
    settings.use("default")
    assert settings.read() == {"colour": "blue"}
    assert zoo.default_model() == "default"


@pytest.mark.parametrize("content", [b"model = ", b"\xff", b"model = 3"])
def test_broken_settings_are_named(content: bytes, home: Path) -> None:
    put(home / "config.toml", content)
    with pytest.raises(UsageError, match=r"config\.toml"):
        zoo.default_model()


def test_settings_that_cannot_be_written(home: Path) -> None:
    (home / "config.toml").mkdir()
    with pytest.raises(ConvNextError) as error:
        settings.use("tiny")
    assert isinstance(error.value, OutputError | UsageError)


def test_folders_are_platformdirs_without_convnext_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVNEXT_HOME", raising=False)
    found = zoo.folders()
    assert len({found.weights, found.cache, found.config}) == 3
    assert found.weights.name == "weights"
    assert all("convnext" in path.parts for path in (found.weights, found.cache, found.config))


def test_no_name_means_the_users_default(home: Path, tmp_path: Path) -> None:
    assert zoo.resolve() == zoo.resolve("default")
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    settings.use(str(tmp_path / "mine.safetensors"))
    assert zoo.resolve() == zoo.resolve(None) == tmp_path / "mine.safetensors"
