"""from_pretrained, save_pretrained and the calls of transformers' ConvNext page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from convnext_cli import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    ConvNextModel,
    checkpoints,
)
from convnext_cli.base.errors import ConvNextError, ModelError
from convnext_cli.checkpoints import canonical
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig as ShapeConfig
from convnext_cli.model.preprocessing import Preprocessing
from tests.helpers.checkpoints import V1, V2, canonical_file, draw, same, save
from tests.helpers.photos import picture

ODD = V1.replace(stem="overlap", stem_width=4, kernel_sizes=(7, 5, 5, 3))


@pytest.mark.parametrize("config", [V1, V2, ODD, V1.replace(num_labels=0)], ids=["V1", "V2", "odd", "features"])
def test_save_pretrained_comes_back_exactly(config: ShapeConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConvNextForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    again = ConvNextForImageClassification.from_pretrained(tmp_path)
    x = torch.randn(1, 3, 64, 64)
    assert again.config == config
    assert again.notes == []
    assert same(again.state_dict(), model.state_dict())
    torch.testing.assert_close(again(x).logits, model(x).logits)
    assert (tmp_path / "config.json").exists() == (config is not ODD)
    body = ConvNextModel.from_pretrained(tmp_path)
    assert body(x).pooler_output.shape == (1, 24)
    assert same(body.state_dict(), {n: t for n, t in model.state_dict().items() if not n.startswith("head.")})


def test_a_body_alone_is_saved_without_its_head(tmp_path: Path) -> None:
    ConvNextModel(V1).save_pretrained(tmp_path)
    card = checkpoints.load(tmp_path, verify=True).card
    assert (card.task, card.config.num_labels) == ("features", 0)


INSECTS = {0: "ant", 1: "bee", 2: "cat", 3: "dog", 4: "eel"}


def test_a_replaced_head_is_saved_as_it_is(tmp_path: Path) -> None:
    checkpoints.save(canonical_file(tmp_path)[0], tmp_path / "old" / "model.safetensors")
    model = ConvNextForImageClassification.from_pretrained(tmp_path / "old")
    assert model.config.id2label == INSECTS
    model.head = torch.nn.Linear(24, 3, bias=False)
    model.save_pretrained(tmp_path / "new")
    again = ConvNextForImageClassification.from_pretrained(tmp_path / "new")
    assert (again.config.num_labels, again.config.head_bias) == (3, False)
    assert again.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert again.card and (again.card.labels, again.card.metrics) == (None, {})
    assert same(again.state_dict(), model.state_dict())
    model.head = torch.nn.Linear(24, 5)
    model.save_pretrained(tmp_path / "same")
    assert ConvNextForImageClassification.from_pretrained(tmp_path / "same").config.id2label == INSECTS


@pytest.mark.parametrize("head", [torch.nn.Linear(12, 5), torch.nn.Sequential(torch.nn.Linear(24, 5))])
def test_a_network_that_is_none_is_not_written(head: torch.nn.Module, tmp_path: Path) -> None:
    model = ConvNextForImageClassification(V1)
    model.head = head  # type: ignore[assignment]
    with pytest.raises(ModelError, match="no longer matches its config"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_number_of_classes_gets_a_new_head(tmp_path: Path) -> None:
    _, path = canonical_file(tmp_path)
    with pytest.raises(ModelError, match="has 5 classes, not 3") as error:
        ConvNextForImageClassification.from_pretrained(path, num_labels=3)
    assert "ignore_mismatched_sizes" in str(error.value.hint)
    model = ConvNextForImageClassification.from_pretrained(path, num_labels=3, ignore_mismatched_sizes=True)
    assert model(torch.randn(1, 3, 32, 32)).logits.shape == (1, 3)
    assert 0.01 < float(model.head.weight.std()) < 0.03 and not model.head.bias.any()
    assert model.card and model.card.labels is None
    assert any("new" in note for note in model.notes)
    old = ConvNextForImageClassification.from_pretrained(path)
    assert torch.equal(model.norm.weight, old.norm.weight)
    model.save_pretrained(tmp_path / "new")
    assert ConvNextForImageClassification.from_pretrained(tmp_path / "new").config.num_labels == 3


def test_other_names_and_a_head_where_there_was_none(tmp_path: Path) -> None:
    _, path = canonical_file(tmp_path)
    names = {0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}
    renamed = ConvNextForImageClassification.from_pretrained(path, id2label=names)
    assert renamed.config.id2label == names and renamed.config.label2id["c"] == 2
    body = save(draw(V1.replace(num_labels=0)), tmp_path / "body.pth")
    model = ConvNextForImageClassification.from_pretrained(body, label2id={"no": 0, "yes": 1})
    assert model.config.id2label == {0: "no", 1: "yes"}
    for wrong in ({"num_labels": 3, "id2label": {0: "a"}}, {"id2label": {0: "a"}, "label2id": {"b": 0}}):
        with pytest.raises(ValueError, match=r"num_labels|contradict"):
            ConvNextForImageClassification.from_pretrained(path, **wrong)  # type: ignore[arg-type]


def test_dtype_has_two_names_and_words(tmp_path: Path) -> None:
    path = save({name: tensor.half() for name, tensor in draw(V1).items()}, tmp_path / "w.safetensors")
    for options, dtype in (
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "float64"}, torch.float64),
        ({"torch_dtype": "auto"}, torch.float16),
        ({}, torch.float32),
    ):
        model = ConvNextForImageClassification.from_pretrained(path, **options)  # type: ignore[arg-type]
        assert {t.dtype for t in model.state_dict().values()} == {dtype}
    for wrong in ("float33", torch.int8, "nn"):
        with pytest.raises(ValueError, match="dtype must be"):
            ConvNextForImageClassification.from_pretrained(path, dtype=wrong)


# The calls of transformers' page --------------------------------------------------------------------------------------


def test_config_takes_transformers_words() -> None:
    config = ConvNextConfig(
        num_stages=4, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1}, out_features=["stage4"],
        hidden_act="gelu_new", problem_type="multi_label_classification",
    )  # fmt: skip
    assert (config.num_labels, config.num_stages, config.hidden_act) == (2, 4, "gelu_tanh")
    assert (config.id2label[1], config.label2id["no"], config.out_features) == ("yes", 0, ["stage4"])
    assert config == ConvNextConfig(num_labels=2, hidden_act="gelu_tanh") != ConvNextConfig()
    assert hash(config) == hash(config.shape())
    assert config.replace(drop_path_rate=0.1).id2label == config.id2label
    assert config.replace(num_labels=3).id2label[2] == "LABEL_2"
    assert ConvNextConfig(id2label={0: "LABEL_0", 1: "LABEL_1"}).num_labels == 2
    model = ConvNextForImageClassification(config.replace(depths=(1, 1, 1, 1), hidden_sizes=(8,) * 4))
    assert model.config.id2label == config.id2label


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_stages": 3},
        {"num_labels": 3, "id2label": {0: "a"}},
        {"id2label": {0: "a"}, "label2id": {"b": 0}},
        {"id2label": {0: "a", 2: "b"}},
        {"problem_type": "guessing"},
    ],
    ids=str,
)
def test_config_refuses_contradictions(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"num_stages|num_labels|contradict|numbers|problem_type"):
        ConvNextConfig(**wrong)


@pytest.mark.parametrize("config", [V1, V2, V1.replace(num_labels=0)], ids=["V1", "V2", "features"])
def test_config_alone_is_saved_and_read(config: ShapeConfig, tmp_path: Path) -> None:
    names = {i: f"kind {i}" for i in range(config.num_labels)} or None
    ours = ConvNextConfig(**config.to_dict(), id2label=names)
    ours.save_pretrained(tmp_path)
    for place in (tmp_path, tmp_path / "config.json"):
        again = ConvNextConfig.from_pretrained(place)
        assert again == ours and again.id2label == ours.id2label
    ConvNextForImageClassification(ODD).save_pretrained(tmp_path / "odd")
    assert ConvNextConfig.from_pretrained(tmp_path / "odd") == ODD
    with pytest.raises(ModelError, match="transformers has no network"):
        ConvNextConfig(**ODD.to_dict()).save_pretrained(tmp_path)
    with pytest.raises(ModelError):
        ConvNextConfig.from_pretrained(tmp_path / "nowhere")


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    ConvNextForImageClassification(ConvNextConfig(**V1.to_dict(), id2label=INSECTS)).save_pretrained(tmp_path)
    processor = ConvNextImageProcessor.from_pretrained(tmp_path)
    model = ConvNextForImageClassification.from_pretrained(tmp_path, torch_dtype=torch.float32)
    inputs = processor(images=picture(300, 200), return_tensors="pt").to(model.norm.weight.device)
    with torch.no_grad():
        outputs = model(**inputs)
    predicted = outputs.logits.argmax(-1).item()
    assert model.config.id2label[predicted] in INSECTS.values()
    assert torch.equal(outputs[0], outputs["logits"])
    assert model.config.problem_type is None


@pytest.mark.peers
def test_transformers_reads_the_whole_folder(tmp_path: Path) -> None:
    import transformers

    config = ConvNextConfig(**V1.to_dict(), id2label=INSECTS, problem_type="multi_label_classification")
    ours = ConvNextForImageClassification(config).eval()
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.id2label == INSECTS
    assert theirs.config.problem_type == "multi_label_classification"
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    photo = picture(300, 200)
    with torch.inference_mode():
        found = ours(ConvNextImageProcessor.from_pretrained(tmp_path)(photo, return_tensors="pt").pixel_values).logits
        expected = theirs(**processor(photo, return_tensors="pt")).logits
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    theirs.config.save_pretrained(tmp_path / "config")
    again = ConvNextConfig.from_pretrained(tmp_path / "config")
    assert again == config and again.id2label == INSECTS and again.problem_type == config.problem_type


@pytest.mark.peers
@pytest.mark.parametrize("config", [V1, V2, V1.replace(num_labels=0)], ids=["V1", "V2", "features"])
def test_transformers_reads_what_save_pretrained_wrote(config: ShapeConfig, tmp_path: Path) -> None:
    import transformers

    model = ConvNextForImageClassification(config).eval()
    model.load_state_dict(draw(config))
    model.save_pretrained(tmp_path)
    auto = transformers.AutoModelForImageClassification if config.num_labels else transformers.AutoModel
    theirs = auto.from_pretrained(tmp_path).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        ours, output = model(x).logits, theirs(x)
    expected = output.logits if config.num_labels else output.pooler_output
    assert float((ours - expected).abs().max()) <= 2e-5 * float(expected.max() - expected.min())


def test_a_name_that_is_not_here_says_how_to_get_it(home: Path) -> None:
    with pytest.raises(ConvNextError) as error:
        ConvNextForImageClassification.from_pretrained("facebook/convnext-tiny-224")
    assert "pull" in str(error.value.hint)


@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification", "single_label_classification"])
@pytest.mark.parametrize("rows", [1, 5])
def test_the_loss_is_transformers(problem: Any, rows: int) -> None:
    from transformers.loss.loss_utils import ForSequenceClassificationLoss

    torch.manual_seed(0)
    config = ConvNextConfig(**V1.replace(num_labels=rows).to_dict(), problem_type=problem)
    network, x = ConvNextForImageClassification(config).eval(), torch.randn(3, 3, 32, 32)
    indices = torch.zeros(3, dtype=torch.long)
    given = [indices, indices[:, None]] if problem == "single_label_classification" else [torch.rand(3, rows)]
    for labels in given:
        found = network(x, labels=labels)
        torch.testing.assert_close(found.loss, ForSequenceClassificationLoss(labels, found.logits, config))
    if rows == 1 and problem != "single_label_classification":
        torch.testing.assert_close(network(x, labels=given[0][:, 0]).loss, found.loss)
        with pytest.raises(ValueError, match="do not fit"):
            network(x, labels=torch.rand(2))


def test_json_of_another_network_does_not_stay(tmp_path: Path) -> None:
    ConvNextForImageClassification(V1).save_pretrained(tmp_path)
    (tmp_path / "notes.json").write_text("{}")
    model = ConvNextForImageClassification(ODD)
    model.card = model.config.card().replace(preprocessing=Preprocessing(resize="longest"))
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "notes.json"]
    assert ConvNextForImageClassification.from_pretrained(tmp_path).config == ODD


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_the_card_says_is_of_its_tensors_alone(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in draw(V1).items()}
    card = Card(V1, name="ants", description="of ants", metrics={"top-1": 80.0}, temperature=1.5, license="mit")
    canonical.write(tmp_path / "old.safetensors", tensors, card.replace(sha256=canonical.fingerprint(tensors)))
    model = ConvNextForImageClassification.from_pretrained(tmp_path / "old.safetensors")
    model.save_pretrained(tmp_path / "same")
    kept = checkpoints.read_card(tmp_path / "same")
    assert (kept.name, kept.description, kept.metrics, kept.temperature) == ("ants", "of ants", {"top-1": 80.0}, 1.5)
    with torch.no_grad():
        model.head.bias += 1e-3
    model.save_pretrained(tmp_path / "trained")
    new = checkpoints.load(tmp_path / "trained", verify=True).card
    assert (new.name, new.description, new.metrics, new.temperature) == ("trained", "", {}, None)
    assert new.license == "mit"


def test_replace_takes_other_names() -> None:
    config = ConvNextConfig(**V1.to_dict(), id2label=INSECTS)
    names = {0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}
    assert config.replace(id2label=names).id2label == names
    assert config.replace(label2id={"no": 0, "yes": 1}).id2label == {0: "no", 1: "yes"}
    with pytest.raises(ValueError, match="num_labels"):
        config.replace(num_labels=3, id2label=names)
