"""Photos whose class is known: folders, tables, Hugging Face's parquet files, tar shards and zips, as one kind of data.

``open_data`` finds the form and reads what is where; photos are read when they are asked for. ``problems`` says what is
wrong, ``split`` parts what is not split.
"""

from convnext_cli.datasets.labelled import SPLITS, Dataset, LabelledPhoto
from convnext_cli.datasets.open_data import open_data

__all__ = ["SPLITS", "Dataset", "LabelledPhoto", "open_data"]
