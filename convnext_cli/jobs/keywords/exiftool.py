"""exiftool, the program that knows where each format keeps its XMP: one process for all photos.

It is asked for a packet, and given another to put in its place, as a whole. A photo comes to it as a link in a folder
of ours, and leaves as a new file there: no name is ever taken for an option, and the photo itself is never written to.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from threading import Timer
from typing import IO

from convnext_cli.base.errors import UnavailableError
from convnext_cli.jobs.keywords.packet import alike
from convnext_cli.jobs.keywords.rdf import MetadataError
from convnext_cli.photos.formats import sniff

# No settings of the user's; names as they are; errors alone.
_OPTIONS = ["-config", "", "-stay_open", "True", "-@", "-", "-common_args", "-charset", "filename=utf8", "-q", "-q"]
_END = b"\n-stay_open\nFalse\n"
# exiftool looks at the suffix too, and refuses a JPEG that is called .png; raw files it tells apart by nothing else.
_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "heic": ".heic", "avif": ".avif"}


class ExifTool:
    """The running program; a context manager.

    seconds: the most that one photo may take. Raises UnavailableError when there is none that runs.
    """

    def __init__(self, program: str = "exiftool", *, seconds: float = 300.0) -> None:
        hint = "apt install libimage-exiftool-perl, or brew install exiftool; --xmp sidecar needs no other program"
        path = shutil.which(program)
        if path is None:
            raise UnavailableError("writing keywords into photos needs exiftool", hint)
        self._command = [path, *_OPTIONS]
        self._seconds = seconds
        self._temporary = TemporaryDirectory(prefix="convnext-")
        self._folder = Path(self._temporary.name)
        self._errors = self._folder / "errors"
        self._processes: list[Popen[bytes]] = []
        try:
            self._version = self._run("-ver")[0].decode().strip()
        except (MetadataError, OSError) as error:
            self.close()
            raise UnavailableError(f"{path} does not run: {error}", hint) from error

    def __enter__(self) -> ExifTool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the program, and remove what it left."""
        self._end()
        self._temporary.cleanup()

    def read(self, file: str | Path) -> bytes | None:
        """The XMP packet of a photo, byte for byte, or None. Raises MetadataError when it cannot be read."""
        # -a: where there are several packets all come, and not one that would then take the place of all
        packet, problem = self._run("-b", "-a", "-XMP", self._linked(file))
        if b":HasExtendedXMP" in packet or packet.count(b"</rdf:RDF>") > 1:
            problem = "its XMP is in several parts; a sidecar can hold the keywords"
        if problem:
            raise MetadataError(problem)
        return packet or None

    def write(self, file: str | Path, packet: bytes | None) -> Path:
        """A copy of a photo with this packet in the place of its own; it lasts until the next call.

        Raises MetadataError when exiftool cannot write the format, or did not write what it was given, and OSError
        when there is no room for the copy.
        """
        # no suffix for the copy: some releases (12.57) refuse a new.webp, though they write WebP
        link, new, written = self._linked(file), self._folder / "new", self._folder / "packet"
        new.unlink(missing_ok=True)
        written.write_bytes(packet or b"")
        _, problem = self._run("-o", str(new), "-XMP=" if packet is None else f"-XMP<={written}", link)
        if problem or not new.exists():
            if shutil.disk_usage(self._folder).free < Path(file).stat().st_size:
                raise OSError(errno.ENOSPC, f"no space for a copy in {self._folder.parent}")
            raise MetadataError(problem or f"exiftool {self._version} cannot write this kind of file")
        if not alike(self.read(new) or b"", packet or b""):
            raise MetadataError("exiftool did not write the keywords as they were given")
        return new

    def _linked(self, file: str | Path) -> str:
        """A name for a photo that says nothing but its format."""
        if os.name == "nt":  # not everyone may make links there, and no name has line breaks
            return str(file)
        with Path(file).open("rb") as stream:
            form = sniff(stream.read(4096))
        suffix = _SUFFIXES.get(form or "", Path(file).suffix)
        link = self._folder / f"photo{suffix if suffix.isascii() and suffix[1:].isalnum() else ''}"
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        return str(link)

    def _run(self, *arguments: str) -> tuple[bytes, str]:
        """Its output and its complaints. Raises MetadataError when it ended by itself, or took too long."""
        if not self._processes or self._processes[0].poll() is not None:
            self._start()
        tool = self._processes[0]
        number = secrets.randbelow(10**15)  # which no photo can know, so that it marks the end of the output
        end = b"{ready%d}" % number
        printed = bytearray()
        watch = Timer(self._seconds, tool.kill)
        watch.start()
        try:
            self._input.write(b"".join(os.fsencode(line) + b"\n" for line in (*arguments, f"-execute{number}")))
            self._input.flush()
            assert tool.stdout is not None
            while not printed[-64:].rstrip().endswith(end):
                block = os.read(tool.stdout.fileno(), 1 << 20)
                if not block:
                    raise BrokenPipeError
                printed += block
        except BaseException as error:
            late = watch.finished.is_set()
            self._end()  # or what it has yet to say would be taken for its next answer
            if not isinstance(error, BrokenPipeError):
                raise
            took = f"exiftool took longer than {self._seconds:g} s over it"
            raise MetadataError(took if late else "exiftool broke off") from error
        finally:
            watch.cancel()
        output = self._errors.read_text(errors="replace")
        os.truncate(self._errors, 0)
        problem = next((line for line in output.splitlines() if line.startswith("Error: ")), "")
        reason = problem.removeprefix("Error: ").removesuffix(f" - {arguments[-1]}")
        return bytes(printed[: printed.rindex(end)]), reason and f"exiftool: {reason}"

    def _start(self) -> None:
        self._end()
        source: IO[bytes] | int = PIPE
        if os.name != "nt":
            # exiftool waits on when its input ends, and for ever where we were killed: so cat ends it in our place
            cat = Popen(["sh", "-c", 'cat; printf "$0"', _END], stdin=PIPE, stdout=PIPE)
            assert cat.stdin is not None and cat.stdout is not None
            source, self._input = cat.stdout, cat.stdin
            self._processes = [cat]
        with self._errors.open("ab") as errors:
            tool = Popen(self._command, stdin=source, stdout=PIPE, stderr=errors)
        self._processes.insert(0, tool)
        if isinstance(source, int):
            assert tool.stdin is not None
            self._input = tool.stdin
        else:
            source.close()

    def _end(self) -> None:
        """End the processes, whatever they are at."""
        if self._processes:
            with suppress(OSError):
                self._input.write(_END)
                self._input.close()
        for process in self._processes:
            try:
                process.wait(5)
            except TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._processes = []
