"""Files that are published with a checksum: reading them, and fetching what is not there."""

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kempe_nb.data.cache import FOLDER_VARIABLE, workshop
from kempe_nb.data.errors import DataError

# A firewall that drops packets must not look like a hung notebook.
NETWORK_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Published:
    """One file of a published data set."""

    name: str
    md5: str
    addresses: tuple[str, ...]


def read_file(path: Path, md5: str | None) -> bytes:
    """Return the content of the file at `path`, refusing it if it has another checksum."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if md5:
        require_md5(data, md5, str(path), path)
    return data


def require_md5(data: bytes, expected: str, where: str, path: Path) -> None:
    """Refuse `data`, found at `where` in the file at `path`, if it has another checksum."""
    if (found := _md5(data)) != expected:
        raise DataError(
            f"{where} is damaged or incomplete: md5 expected {expected}, found {found}. "
            f"Delete {path} and fetch it again."
        )


def _md5(data: bytes) -> str:
    # Published checksums are MD5: good against damage, and no other file can be made for one.
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def fetch(files: Sequence[Published], folder: Path, may_download: bool, instead: str = "") -> None:
    """Bring every one of `files` into `folder`, or raise a DataError that says how to go on.

    What `instead` adds is said where nothing may be downloaded: which other files would do.
    """
    names = ", ".join(file.name for file in files)
    if not may_download:
        raise DataError(f"{folder} lacks {names}{instead}; with folder= nothing is downloaded.")
    _require_writable(folder)
    for file in files:
        problems = []
        for address in file.addresses:
            problem = _download(address, file, folder)
            if problem is None:
                break
            problems.append(f"{address}: {problem}")
        else:
            raise DataError(
                f"{file.name} could not be downloaded ({'; '.join(problems)}). Put "
                f"{names} into {folder} by hand, or go on offline with "
                'load("digits"), which needs no download.'
            )


def _require_writable(folder: Path) -> None:
    try:
        with workshop(folder):
            pass
    except OSError as error:
        raise DataError(
            f"Nothing can be stored in the folder {folder} ({error}). Set the environment "
            f"variable {FOLDER_VARIABLE} to a folder that can be written."
        ) from error


def _download(address: str, file: Published, folder: Path) -> str | None:
    """Try one address; return None, or why there still is no file of this name in `folder`."""
    # Only now: most readers have their data, or take sets that need no download.
    import pooch
    from urllib3.exceptions import HTTPError

    thread = threading.get_ident()

    def is_not_ours(record: logging.LogRecord) -> bool:
        return record.thread != thread

    # What a cell says on standard error counts as a fault when a lesson is executed. A filter, not
    # a level: whatever else uses pooch at the same time is still heard.
    logger = pooch.get_logger()
    logger.addFilter(is_not_ours)
    try:
        # Pooch writes to a temporary file, and moves it only if the checksum fits.
        pooch.retrieve(address, f"md5:{file.md5}", file.name, folder, downloader=_copy)
    except (OSError, ValueError, HTTPError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        logger.removeFilter(is_not_ours)
    return None


def _copy(address: str, temporary: str, _: None) -> None:
    """Write what stands at an address into a file, byte by byte as it comes."""
    import requests

    # Pooch made this file for its owner alone, but others may read from the same folder: a new one
    # has the usual rights.
    os.remove(temporary)
    # Unasked, requests would let a server pack what it sends.
    unpacked = {"Accept-Encoding": "identity"}
    answer = requests.get(address, headers=unpacked, stream=True, timeout=NETWORK_TIMEOUT_SECONDS)
    with answer, open(temporary, "wb") as partial:
        answer.raise_for_status()
        # Not what requests makes of it: some servers call a .gz packed on the way, and unpacked it
        # would have another checksum.
        shutil.copyfileobj(answer.raw, partial)
