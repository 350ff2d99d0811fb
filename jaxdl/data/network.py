"""Whether a server answers, found out within seconds; and downloads that resume."""

import contextlib
import hashlib
import http.client
import io
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from jaxdl.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 3.0
"""Seconds to wait for an answer."""

Progress = Callable[[int, int | None], None]
"""Told of a download, again and again: bytes so far and, if known, in all."""

_STALLED = 30.0  # seconds without a byte
_ATTEMPTS = 3
_BLOCK = 1 << 20


def unreachable(url: str, patience: float = PATIENCE) -> str | None:
    """Asks for the headers of a URL, through the proxies that the environment names.

    Returns:
      None where it can be fetched, else why not, in a few words.
    """
    answer: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            # Not urlopen, which for ever keeps the proxies of its first call.
            opener = urllib.request.build_opener()
            opener.open(request, timeout=patience).close()
            answer.append(None)
        except urllib.error.URLError as error:
            answer.append(_reason(error))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answer.append(_reason(error))

    # In a thread, because looking up a name heeds no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience + 0.5)
    return answer[0] if answer else f"no answer within {patience:g} s"


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return getattr(error.reason, "strerror", None) or str(error.reason)
    return str(error) or type(error).__name__


def download(
    url: str, path: Path, sha256: str, progress: Progress | None = None
) -> None:
    """Fetches a file and verifies it; whole or not at all.

    What an interruption leaves lies beside it as {name}.part, and is not fetched again
    by the next call. Of several processes one fetches it and the others wait.

    Args:
      url: where it is; HTTP or HTTPS.
      path: where it goes; folders on the way are made. If it is there, that is that.
      sha256: hexadecimal digits that its SHA-256 begins with.
      progress: called after each megabyte.

    Raises:
      InputError: the server cannot be reached or breaks off, the file has another
        digest, or the place cannot be written.
    """
    if path.exists():
        return
    if (reason := unreachable(url)) is not None:
        raise InputError(f"{url} cannot be reached: {reason}")
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab+") as file:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():  # another process was first
                part.unlink(missing_ok=True)
                return
            _complete(url, file, sha256, progress or (lambda done, total: None))
            part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _complete(
    url: str, file: io.BufferedRandom, sha256: str, progress: Progress
) -> None:
    """Makes the open file the one with that digest."""
    resumed = file.seek(0, os.SEEK_END) > 0
    for left in reversed(range(_ATTEMPTS)):
        try:
            _fetch(url, file, progress)
        except (http.client.HTTPException, _BrokenError) as error:
            if left:
                continue
            raise InputError(
                f"the download of {url} broke off: {_reason(error)}; "
                f"{file.seek(0, os.SEEK_END)} bytes are kept, and the same command "
                "goes on from there"
            ) from error
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest.startswith(sha256):
            return
        file.truncate(0)  # not deleted, since others may wait for it
        if not resumed:
            raise InputError(
                f"{url} is not the file that its name says: its SHA-256 begins with "
                f"{digest[: len(sha256)]}, not {sha256}"
            )
        resumed = False  # the fault may lie in what was there before
    raise InputError(f"the download of {url} failed {_ATTEMPTS} times; try again")


class _BrokenError(Exception):
    """The connection, not the disk, is at fault."""


def _fetch(url: str, file: io.BufferedRandom, progress: Progress) -> None:
    """Appends what the file lacks, or begins anew where the server cannot resume."""
    done = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url)
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = urllib.request.build_opener().open(request, timeout=_STALLED)
    except OSError as error:
        status = getattr(error, "code", None)
        if status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to fetch; the digest will tell
        raise _BrokenError(_reason(error)) from error
    with answer:
        begins = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if done and not (answer.status == http.HTTPStatus.PARTIAL_CONTENT and begins):
            file.truncate(0)
            done = 0
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        while True:
            try:
                block = answer.read(_BLOCK)
            except OSError as error:
                raise _BrokenError(_reason(error)) from error
            if not block:
                break
            file.write(block)
            done += len(block)
            progress(done, total)
    file.flush()
    if total is not None and done < total:
        raise _BrokenError(f"{done} of {total} bytes came")
