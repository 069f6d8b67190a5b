"""Times: the time that a stream of photos takes, by stage."""

from __future__ import annotations

from dataclasses import dataclass

# The share of the time of preparing that torch's kernel saves, at least (benchmarks/label.py, 12 megapixels).
_CLOSE_SAVES = 0.5
_LOADING = 2.0  # seconds that torch takes to load


@dataclass
class Times:
    """Seconds spent in each stage, added over all threads; seconds from first to last (``wall``); counts of photos."""

    read: float = 0.0
    decode: float = 0.0
    prepare: float = 0.0
    engine: float = 0.0
    wall: float = 0.0
    photos: int = 0
    failed: int = 0
    unknown: int = 0
    workers: int = 1
    readers: int = 1  # more than ``workers`` for photos behind URLs

    def add(self, seconds: tuple[float, ...]) -> None:
        """Count a photo, with the seconds that it took to read, decode and prepare it, as far as it got."""
        self.photos += 1
        read, decode, prepare = (*seconds, 0.0, 0.0, 0.0)[:3]
        self.read += read
        self.decode += decode
        self.prepare += prepare

    def limiting(self) -> str:
        """The stage that limits the speed: the one with the most wall time, when its threads run in parallel."""
        wall = self._by_stage()
        return max(wall, key=lambda name: wall[name])

    def shares(self) -> str:
        """The share of each stage in the total time: "decoding 40 %, engine 55 % …"."""
        wall = self._by_stage()
        total = sum(wall.values()) or 1.0
        return ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in wall.items())

    def close_would_save(self, seconds: float) -> float:
        """The share of a job's time that ``--pixels close`` would have saved, judged by the time of exact preparing.

        Args:
            seconds: that the job took.
        """
        wall = self._by_stage()
        share = _CLOSE_SAVES * wall["preparing"] / (sum(wall.values()) or 1.0)
        return max(0.0, share - _LOADING / max(seconds, _LOADING))

    def photos_share(self) -> float:
        """The share of this time that photos took, rather than the engine."""
        wall = self._by_stage()
        return 1 - wall["engine"] / (sum(wall.values()) or 1.0)

    def _by_stage(self) -> dict[str, float]:
        photo = {"reading": self.read, "decoding": self.decode, "preparing": self.prepare}
        threads = dict.fromkeys(photo, self.workers) | {"reading": max(self.workers, self.readers)}
        return {name: seconds / threads[name] for name, seconds in photo.items()} | {"engine": self.engine}
