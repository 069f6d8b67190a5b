"""The retries of requests to stores."""

from __future__ import annotations

from convnext_cli.base.retry import Patience
from convnext_cli.storage.failures import is_passing

# For reads and listings; and for the first request, where a person waits to learn of a wrong name.
patience = Patience(is_passing)
first_contact = Patience(is_passing, tries=3)
