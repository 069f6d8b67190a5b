"""Whether the promises of ``--sure`` and ``--sets`` hold: a model is calibrated on half of its validation photos, and
asked about the other half, again and again.

    python -m benchmarks.sure DATA [--model default] [--repeats 10] [--cache FOLDER]

DATA: labelled photos that the model was not trained on; for the default, Tiny ImageNet's validation photos. A promise
is broken in a repeat where the precision that was asked for is above the interval of 95 % (Clopper-Pearson) of the
precision that was found; a coverage, where it is outside on either side. The coverage of sets depends on which photos
calibrated as well: the last column has the repeats within 95 % of what both halves together may give.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections import defaultdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.network_outputs import Outputs, of_data, open_model
from convnext_cli.base.errors import UsageError
from convnext_cli.certainty.calibration import Calibration, MadeFor, fit_calibration
from convnext_cli.certainty.conformal import COVERAGES, KINDS, Kind
from convnext_cli.certainty.intervals import clopper_pearson
from convnext_cli.certainty.temperature import fit_temperature
from convnext_cli.certainty.tree import Tree
from convnext_cli.labels import LabelSet

SURE = (0.8, 0.9, 0.95, 0.99)
LEVELS = ("class", "broader", "none")


def answered(calibration: Calibration, tree: Tree, photos: Outputs, sure: float) -> dict[str, float] | None:
    """Counts of right answers, levels, and groups above the answers; None where so much cannot be promised."""
    try:
        decide = calibration.decider(tree.labels, sure=sure)
    except UsageError:
        return None
    counts: dict[str, float] = defaultdict(float)
    rows_of = {(node.name, node.id): node.rows for chain in tree.chains for node in chain}
    for logits, features, truth in zip(*photos, strict=True):
        answer = decide(logits, features).answer
        assert answer is not None
        counts[answer.level] += 1
        if answer.level != "none":
            assert answer.label is not None
            counts["right"] += truth in rows_of[answer.label, answer.id]
            counts["depth"] += len(answer.above)
    return counts


def covered(
    calibration: Calibration, labels: LabelSet, photos: Outputs, coverage: float, kind: Kind
) -> tuple[int, int]:
    """How many sets have the true label, and how many labels all sets have."""
    decide = calibration.decider(labels, sets=coverage, kind=kind)
    right = size = 0
    for logits, _, truth in zip(*photos, strict=True):
        prediction_set = decide(logits).prediction_set
        assert prediction_set is not None
        right += labels.names[truth] in prediction_set.labels
        size += len(prediction_set.labels)
    return right, size


def expected(calibrating: int, asked: int, coverage: float) -> tuple[float, float]:
    """The middle 95 % of the coverage of split-conformal sets: beta-binomial (arXiv 2107.07511, section 3.2).

    Args:
        calibrating: photos that the quantile rests on.
        asked: photos that the coverage is measured on.
        coverage: the one that was asked for.
    """
    random, rank = np.random.default_rng(0), math.ceil((calibrating + 1) * coverage - 1e-9)
    shares = random.binomial(asked, random.beta(rank, calibrating + 1 - rank, 200_000)) / asked
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--model", default="default")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--cache", type=Path, default=Path("build/outputs"))
    given = parser.parse_args()
    predictor = open_model(given.model)
    labels, tree = predictor.labels, Tree.of(predictor.labels)
    photos = of_data(predictor, given.data, None, 10_000, given.cache)
    halves = []
    for seed in range(given.repeats):
        order = np.random.default_rng(seed).permutation(len(photos.truth))
        first, second = (photos.take(part) for part in np.array_split(order, 2))
        temperature = fit_temperature(first.logits, first.truth)
        nobody = MadeFor("", "", "")
        fitted = fit_calibration(
            *first, labels, temperature=temperature, made_for=nobody, keys=np.arange(len(first.truth))
        )
        halves.append((fitted, second))
    print(f"{date.today()}  {platform.platform()}  numpy {version('numpy')}")
    print(f"{given.repeats} halves of {len(photos.truth):,} photos")
    columns = "precision found, % | lowest to highest | kept in | class, % | broader, % | unknown, % | mean depth"
    print(f"\n| --sure | {columns} |\n| --- |{' ---: |' * 7}")
    for sure in SURE:
        counts = [found for half in halves if (found := answered(half[0], tree, half[1], sure)) is not None]
        refused = given.repeats - len(counts)
        if not counts:
            print(f"| {sure} | refused in all | | | | | | |")
            continue
        totals = [found["class"] + found["broader"] for found in counts]
        shares = [100 * found["right"] / total for found, total in zip(counts, totals, strict=True)]
        kept = sum(
            sure <= clopper_pearson(int(found["right"]), int(total))[1]
            for found, total in zip(counts, totals, strict=True)
        )
        of_all = sum(total + found["none"] for total, found in zip(totals, counts, strict=True))
        parts = [100 * sum(found[level] for found in counts) / of_all for level in LEVELS]
        depth = sum(found["depth"] for found in counts) / sum(totals)
        note = f" ({refused} refused)" if refused else ""
        print(
            f"| {sure} | {np.mean(shares):.2f} | {min(shares):.2f} to {max(shares):.2f} | "
            f"{kept} of {len(counts)}{note} | {' | '.join(f'{part:.1f}' for part in parts)} | {depth:.2f} |",
            flush=True,
        )
    columns = "coverage found, % | lowest to highest | inside the binomial interval | as both halves allow | mean size"
    print(f"\n| sets | {columns} |\n| --- |{' ---: |' * 5}")
    for kind in KINDS:
        for coverage in COVERAGES:
            pairs = [covered(half[0], labels, half[1], coverage, kind) for half in halves]
            number = len(halves[0][1].truth)
            intervals = [clopper_pearson(right, number) for right, _ in pairs]
            shares = [100 * right / number for right, _ in pairs]
            least, most = expected(len(photos.truth) - number, number, coverage)
            usual = sum(100 * least <= share <= 100 * most for share in shares)
            inside = sum(low <= coverage <= high for low, high in intervals)
            print(
                f"| {kind} {coverage} | {np.mean(shares):.2f} | {min(shares):.2f} to {max(shares):.2f} | "
                f"{inside} of {len(pairs)} | {usual} of {len(pairs)} | "
                f"{np.mean([size / number for _, size in pairs]):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
