"""Files that are published with a checksum: reading them, and fetching what is not there."""

import hashlib
import http.client
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kempe_nb.data.cache import FOLDER_VARIABLE, workshop
from kempe_nb.data.errors import DataError
from kempe_nb.data.torchvision_import import import_torchvision

# urllib waits for ever by default: a firewall that drops packets would look like a hung notebook.
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
    # Published checksums are MD5: good against damage, which is what they are used for here.
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
    download_url = import_torchvision().datasets.utils.download_url
    timeout = socket.getdefaulttimeout()
    try:
        # torchvision's downloader takes no timeout of its own.
        socket.setdefaulttimeout(NETWORK_TIMEOUT_SECONDS)
        # A fresh temporary folder each time: download_url would take what an earlier, broken
        # attempt left there for the finished file.
        with workshop(folder) as temporary:
            partial = temporary / file.name
            download_url(address, temporary, filename=file.name)
            if (found := _md5(partial.read_bytes())) != file.md5:
                return f"md5 expected {file.md5}, found {found}, the download was discarded"
            os.replace(partial, folder / file.name)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        socket.setdefaulttimeout(timeout)
    return None
