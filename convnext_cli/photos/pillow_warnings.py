"""Silences Pillow's warnings and logs in our own processes."""

from __future__ import annotations


def quiet_pillow() -> None:
    """Silence Pillow in this process: it warns of damaged EXIF and of large photos, and logs what it cannot read.

    Decoding handles all of these cases. Filters and handlers belong to the whole process, so only commands
    and the processes that they start call this; programs that import the package keep theirs.
    """
    import logging
    import warnings

    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    logger = logging.getLogger("PIL")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
