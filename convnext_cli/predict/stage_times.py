"""Times: the time that a stream of photos takes, by stage."""

from __future__ import annotations

from dataclasses import dataclass


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

    def _by_stage(self) -> dict[str, float]:
        photo = {"reading": self.read, "decoding": self.decode, "preparing": self.prepare}
        threads = dict.fromkeys(photo, self.workers) | {"reading": max(self.workers, self.readers)}
        return {name: seconds / threads[name] for name, seconds in photo.items()} | {"engine": self.engine}
