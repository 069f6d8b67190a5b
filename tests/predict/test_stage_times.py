"""What a job says about its time."""

from __future__ import annotations

import pytest

from convnext_cli.predict.stage_times import Times


def test_the_saving_of_close_is_judged_by_the_time_of_preparing() -> None:
    times = Times(decode=40.0, prepare=80.0, engine=20.0, workers=2)  # on two threads: 20, 40 and 20 seconds
    assert times.photos_share() == pytest.approx(0.75)
    assert times.close_would_save(80.0) == pytest.approx(0.5 * 40 / 80 - 2 / 80)
    assert times.close_would_save(4.0) == 0.0  # loading torch would have cost more
    assert Times().close_would_save(0.0) == 0.0
