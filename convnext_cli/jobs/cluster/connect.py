"""Connecting to a cluster, and what it says when that fails."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from convnext_cli import __version__
from convnext_cli.base.errors import ConvNextError, NetworkError, UnavailableError, UsageError
from convnext_cli.jobs.cluster.resources import Node, Shape, shape_of
from convnext_cli.jobs.cluster.run import cause_of
from convnext_cli.jobs.cluster.stages import Described, Opener, described
from convnext_cli.jobs.view import View
from convnext_cli.predict.preprocess import Preprocessor
from convnext_cli.storage.addresses import scrub

T = TypeVar("T")
log = logging.getLogger(__name__)


def check(address: str) -> None:
    """Raises UsageError when this is not the address of a cluster, and UnavailableError without Ray."""
    if address != "auto" and not re.match(r"ray://[^/\s]", address):
        raise UsageError(
            f"'{scrub(address)}' is not a cluster", "--cluster auto, or the address of one: ray://HOST:10001"
        )
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise UnavailableError("--cluster needs Ray", "pip install 'convnext-cli[ray]'")


@contextmanager
def connected(address: str, threads: int | None = None) -> Iterator[str | None]:
    """Be connected to a cluster; yields its dashboard's address.

    address: ``auto`` for the one that RAY_ADDRESS names or this machine belongs to, and where there is none one of this
    machine alone, with ``threads`` processors; or ``ray://HOST:PORT``. Raises NetworkError when it is not reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A client does not look for a token by itself. A driver in a cluster must not want one where the cluster has none:
    # the cluster could not reach it, and would take it for dead.
    if address != "auto" and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    import ray.data

    begins = address == "auto" and not _is_running()
    try:
        context = _connect(
            partial(
                ray.init,
                address=None if address == "auto" else address,
                num_cpus=threads if begins else None,
                include_dashboard=True if begins else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        )
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise NetworkError(
            scrub(f"no cluster answers at {address}: {_said(error)}"),
            "`ray status` shows its state; its head node is ray://HOST:10001, and may require the token that "
            "ray get-auth-token prints there (RAY_AUTH_TOKEN)",
        ) from error
    _quiet()
    try:
        yield getattr(context, "dashboard_url", None) or None
    finally:
        ray.shutdown()


def _connect(init: Callable[[], object]) -> object:
    """Connect, and try again if the head did not start this driver's server: the fork in which Ray does so can hang."""
    import ray

    with warnings.catch_warnings(), _asked_to_stop_as_before():
        warnings.simplefilter("ignore")
        try:
            return init()
        except (ConnectionError, RuntimeError) as error:
            if "client server failed" not in str(error):
                raise
            log.info("connecting again: %s", error)
            ray.shutdown()
            return init()


@contextmanager
def _asked_to_stop_as_before() -> Iterator[None]:
    """Take back what Ray does at SIGTERM: it ends the process with status 15 and no word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _said(error: Exception) -> str:
    """Its first line; where that only announces a traceback of the other side, also its last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines) == 1 or not lines[0].endswith(":") else f"{lines[0]} {lines[-1].strip()}"


def _has_token() -> bool:
    """Whether there is one of those that Ray looks for."""
    token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(token) or (Path.home() / ".ray" / "auth_token").is_file()


def _is_running() -> bool:
    """Whether there is a cluster that this machine belongs to, or that the environment names."""
    if os.environ.get("RAY_ADDRESS"):
        return True
    from ray._private import services

    addresses: Callable[[], set[str]] = services.find_gcs_addresses  # as ray.init does
    return bool(addresses())


def _quiet() -> None:
    """Have Ray Data draw no bars of its own, and log into its files alone."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.enable_rich_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL)
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.CRITICAL)


def nodes() -> list[Node]:
    """The nodes of the cluster, as ``shape_of`` takes them."""
    import ray

    list_nodes: Callable[[], list[Node]] = ray.nodes
    return list_nodes()


def shape(*, gpu: bool | None, threads: int | None) -> Shape:
    """The shape of the cluster as it is now. Raises what ``shape_of`` raises."""
    return shape_of(nodes(), gpu=gpu, threads=threads)


@dataclass(frozen=True)
class Opened:
    """The facts about the predictor that a node opens.

    Args:
        described: what decides its rows, as ``stages.described`` returns it.
        view: what its rows show.
        preprocessor: how it makes tensors.
        notes: for the user.
    """

    described: Described
    view: View
    preprocessor: Preprocessor
    notes: list[str]


def looked_at(opener: Opener, shape: Shape) -> Opened:
    """Open the predictor on one node.

    Raises what opening raises there, and UsageError when that node has another release.
    """

    def look() -> tuple[str, Opened]:
        import convnext_cli  # of that node: a name of this module would be sent there with its value

        predictor = opener(shape.threads)
        try:
            preprocessor = replace(predictor.preprocessor, workers=1, kernel_from=0)
            facts = Opened(described(predictor), View.of(predictor), preprocessor, list(predictor.engine.notes))
            return convnext_cli.__version__, facts
        finally:
            predictor.engine.close()

    release, facts = on_a_node(look, shape)
    if release != __version__:
        raise UsageError(
            f"the cluster has convnext {release}, and this is {__version__}", "install the same release on both"
        )
    return facts


def on_a_node(work: Callable[[], T], shape: Shape) -> T:
    """What ``work`` gives on a node that has what a network needs. Raises ConvNextError."""
    import ray
    from ray.exceptions import RayError

    run: Any = ray.remote(num_cpus=shape.cpus, num_gpus=shape.gpus)(_call)
    try:
        return ray.get(run.remote(work))  # type: ignore[no-any-return]
    except RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise cause_of(error) or _broken(lines[-1]) from error


def _call(work: Callable[[], T]) -> T:
    return work()


def _broken(reason: str) -> ConvNextError:
    if "No module named" in reason:
        return UnavailableError(f"on the cluster: {reason}", "install convnext-cli on every node, in the same release")
    return NetworkError(f"the cluster could not open the model: {reason}", "look at its dashboard")
