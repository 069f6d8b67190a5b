"""The rows of a job as one HTML page, to look at: complete in one file, with small pictures, and no connection.

``page.html`` is the frame, ``page.css`` its style; of its script ``data.js`` holds what is known, ``page.js`` what is
drawn, and ``keys.js`` what people do. All of it is put into the page (``page.py``), which loads nothing.
"""

from convnext_cli.jobs.report.page import Summary, write
from convnext_cli.jobs.report.pictures import small_jpeg

__all__ = ["Summary", "small_jpeg", "write"]
