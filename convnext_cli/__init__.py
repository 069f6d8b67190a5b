"""Label photos with any ConvNeXt weights.

The public names are loaded when they are first used (PEP 562), so that importing the package, and with it
``convnext --help``, costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "ConvNextConfig": "huggingface.pretrained",
    "ConvNextModel": "huggingface.pretrained",
    "ConvNextForImageClassification": "huggingface.pretrained",
    "ConvNextImageProcessor": "huggingface.image_processor",
    "ConvNextFeatureExtractor": "huggingface.image_processor",
    "classify": "predict.classify",
    "ClassifyRequest": "predict.classify",
    "open_classification": "predict.classify",
    "explain": "explanation.explain",
    "ExplainRequest": "explanation.request",
    "ExplainResult": "explanation.explain",
    "open_explanations": "explanation.explain",
    "evaluate": "evaluation.evaluate",
    "EvaluateRequest": "evaluation.request",
    "EvaluateResult": "evaluation.evaluate",
    "calibrate": "evaluation.calibrate",
    "CalibrateRequest": "evaluation.calibrate",
    "CalibrateResult": "evaluation.calibrate",
    "bench": "benchmarking.bench",
    "BenchRequest": "benchmarking.bench",
    "BenchResult": "benchmarking.bench",
    "convert": "checkpoints.convert",
    "ConvertRequest": "checkpoints.convert",
    "ConvertResult": "checkpoints.convert",
    "export": "runtimes.exporting.export",
    "ExportRequest": "runtimes.exporting.export",
    "ExportResult": "runtimes.exporting.export",
    "prepare": "runtimes.prepare",
    "PrepareRequest": "runtimes.prepare",
    "PrepareResult": "runtimes.prepare",
    "label": "jobs.label",
    "LabelRequest": "jobs.request",
    "LabelResult": "jobs.listener",
    "LabelListener": "jobs.listener",
    "ClusterOptions": "jobs.request",
    "SortRequest": "jobs.actions.request",
    "KeywordsRequest": "jobs.keywords.request",
    "PhotoSelection": "photos.selection",
    "train": "training.train",
    "TrainRequest": "training.request",
    "TrainResult": "training.train",
    "TrainListener": "training.listener",
    "SettingsChanges": "training.settings_changes",
    "PredictorOptions": "predict.options",
    "ModelOptions": "predict.options",
    "Scoring": "predict.options",
    "Decoding": "predict.options",
    "PreprocessingChanges": "model.preprocessing_changes",
    "Listener": "base.listener",
    "Row": "predict.rows",
    "Prediction": "predict.rows",
}
__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from convnext_cli.base.listener import Listener as Listener
    from convnext_cli.benchmarking.bench import BenchRequest as BenchRequest
    from convnext_cli.benchmarking.bench import BenchResult as BenchResult
    from convnext_cli.benchmarking.bench import bench as bench
    from convnext_cli.checkpoints.convert import ConvertRequest as ConvertRequest
    from convnext_cli.checkpoints.convert import ConvertResult as ConvertResult
    from convnext_cli.checkpoints.convert import convert as convert
    from convnext_cli.evaluation.calibrate import CalibrateRequest as CalibrateRequest
    from convnext_cli.evaluation.calibrate import CalibrateResult as CalibrateResult
    from convnext_cli.evaluation.calibrate import calibrate as calibrate
    from convnext_cli.evaluation.evaluate import EvaluateResult as EvaluateResult
    from convnext_cli.evaluation.evaluate import evaluate as evaluate
    from convnext_cli.evaluation.request import EvaluateRequest as EvaluateRequest
    from convnext_cli.explanation.explain import ExplainResult as ExplainResult
    from convnext_cli.explanation.explain import explain as explain
    from convnext_cli.explanation.explain import open_explanations as open_explanations
    from convnext_cli.explanation.request import ExplainRequest as ExplainRequest
    from convnext_cli.huggingface.image_processor import ConvNextFeatureExtractor as ConvNextFeatureExtractor
    from convnext_cli.huggingface.image_processor import ConvNextImageProcessor as ConvNextImageProcessor
    from convnext_cli.huggingface.pretrained import ConvNextConfig as ConvNextConfig
    from convnext_cli.huggingface.pretrained import ConvNextForImageClassification as ConvNextForImageClassification
    from convnext_cli.huggingface.pretrained import ConvNextModel as ConvNextModel
    from convnext_cli.jobs.actions.request import SortRequest as SortRequest
    from convnext_cli.jobs.keywords.request import KeywordsRequest as KeywordsRequest
    from convnext_cli.jobs.label import label as label
    from convnext_cli.jobs.listener import LabelListener as LabelListener
    from convnext_cli.jobs.listener import LabelResult as LabelResult
    from convnext_cli.jobs.request import ClusterOptions as ClusterOptions
    from convnext_cli.jobs.request import LabelRequest as LabelRequest
    from convnext_cli.model.preprocessing_changes import PreprocessingChanges as PreprocessingChanges
    from convnext_cli.photos.selection import PhotoSelection as PhotoSelection
    from convnext_cli.predict.classify import ClassifyRequest as ClassifyRequest
    from convnext_cli.predict.classify import classify as classify
    from convnext_cli.predict.classify import open_classification as open_classification
    from convnext_cli.predict.options import Decoding as Decoding
    from convnext_cli.predict.options import ModelOptions as ModelOptions
    from convnext_cli.predict.options import PredictorOptions as PredictorOptions
    from convnext_cli.predict.options import Scoring as Scoring
    from convnext_cli.predict.rows import Prediction as Prediction
    from convnext_cli.predict.rows import Row as Row
    from convnext_cli.runtimes.exporting.export import ExportRequest as ExportRequest
    from convnext_cli.runtimes.exporting.export import ExportResult as ExportResult
    from convnext_cli.runtimes.exporting.export import export as export
    from convnext_cli.runtimes.prepare import PrepareRequest as PrepareRequest
    from convnext_cli.runtimes.prepare import PrepareResult as PrepareResult
    from convnext_cli.runtimes.prepare import prepare as prepare
    from convnext_cli.training.listener import TrainListener as TrainListener
    from convnext_cli.training.request import TrainRequest as TrainRequest
    from convnext_cli.training.settings_changes import SettingsChanges as SettingsChanges
    from convnext_cli.training.train import TrainResult as TrainResult
    from convnext_cli.training.train import train as train


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"convnext_cli.{_HOME[name]}"), name)
    raise AttributeError(f"module 'convnext_cli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
