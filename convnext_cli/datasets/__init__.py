"""Photos whose class is known: folders, tables, Hugging Face's parquet files, tar shards and zips, as one kind of data.

``open_data`` detects the form and reads the list of photos; their bytes are read when they are used. ``problems`` finds
problems, ``split`` splits data that has no splits.
"""

from convnext_cli.datasets.labelled import SPLITS, Dataset, LabelledPhoto
from convnext_cli.datasets.open_data import open_data

__all__ = ["SPLITS", "Dataset", "LabelledPhoto", "open_data"]
