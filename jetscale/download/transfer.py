"""A published file, brought over HTTP: it goes on where it stopped, and its checksum is compared.

`requests` does proxies, redirects, TLS and time limits. `urllib3` counts failed attempts and says how long
to wait (``Retry-After``, or a growing pause). What is written here is how a broken transfer goes on in its
partial file: of the libraries looked at, none does this after a kill (LOG.md).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ProtocolError
from urllib3.util.retry import Retry

from jetscale.common.files import writing
from jetscale.download.published import DownloadError, Published, size_of

QUIET_SECONDS = 60
"""A server that sends nothing for so long is asked again."""
_BLOCK = 1 << 20
_BUSY = (429, 500, 502, 503, 504)
"""Answers after which a server may be asked again."""
_AGAIN = "run the same command again and it goes on from there"

log = logging.getLogger(__name__)

Report = Callable[[int], None]
"""Called with the bytes of a file that are here."""


class Client:
    """Asks servers, with patience.

    Parameters
    ----------
    retries : attempts that may fail one after another; one that brings a new byte starts the count again
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._session = requests.Session()
        # sizes and ranges are those of the file itself, so the server must not compress it
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": "jetscale"})

    def json(self, url: str) -> Any:
        """The JSON behind a URL.

        Raises
        ------
        DownloadError
            The server does not answer, refuses, or sends something else.
        """
        patience = _Patience(self._retries, url)
        while True:
            try:
                with self._get(url) as response:
                    return _json_of(url, response)
            except _BrokenError as broken:
                patience.wait(broken, "")

    def fetch(self, file: Published, part: Path, report: Report) -> None:
        """Bring all bytes of `file` to `part`, after those that are there already.

        Parameters
        ----------
        file : what is published
        part : partial file; it stays after any failure
        report : called as bytes come

        Raises
        ------
        DownloadError
            The server does not answer, refuses, or announces another file.
        jetscale.common.files.WriteError
            The disk is full, or cannot be written.
        """
        patience, most = _Patience(self._retries, file.url), size_of(part)
        while (have := size_of(part)) != file.size:
            if have > file.size:
                log.warning("%s: %d bytes are more than the %d published; begun anew", part, have, file.size)
                part.unlink()
                continue
            if have > most:
                patience, most = _Patience(self._retries, file.url), have
            try:
                self._go_on(file, part, have, report)
            except _BrokenError as broken:
                kept = f"{size_of(part):,} of {file.size:,} bytes of {file.name} are kept: {_AGAIN}"
                patience.wait(broken, kept)

    def _go_on(self, file: Published, part: Path, have: int, report: Report) -> None:
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._get(file.url, headers) as response:
            start = _start_of(file, response, have)
            if start < have:
                log.warning(
                    "%s: the server sends no part of a file, so its first %d bytes come again", file.url, have
                )
            with writing(part):
                part.parent.mkdir(parents=True, exist_ok=True)
                stream = part.open("r+b" if start else "wb")
            with stream:
                stream.seek(start)
                stream.truncate()
                at = start
                for block in _blocks(response):
                    at += len(block)
                    if at > file.size:
                        raise DownloadError(
                            f"{file.url}: the server sends more than the {file.size:,} bytes published "
                            f"for {file.name}; see that no proxy answers in its place"
                        )
                    with writing(part):
                        stream.write(block)
                        stream.flush()
                    report(at)
        if at < file.size:
            raise _BrokenError(f"the server ended at byte {at:,} of {file.size:,}")

    def _get(self, url: str, headers: dict[str, str] | None = None) -> requests.Response:
        try:
            response = self._session.get(url, headers=headers, stream=True, timeout=QUIET_SECONDS)
        except requests.exceptions.SSLError as error:
            raise DownloadError(
                f"{url}: no secure connection ({_reason(error)}); see the proxy's certificate"
            ) from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _BrokenError(_reason(error)) from error
        except requests.RequestException as error:
            raise DownloadError(
                f"{url}: cannot be fetched ({_reason(error)}); see that host= is right"
            ) from error
        if response.status_code in _BUSY:
            response.close()
            raise _BrokenError(_status(response), response)
        if not response.ok:
            response.close()
            raise DownloadError(
                f"{url}: {_status(response)}; see that host= is right and that its pages open in a browser"
            )
        return response


class _BrokenError(Exception):
    """An attempt that failed and may be made again; with the answer, which may say when."""

    def __init__(self, reason: str, response: requests.Response | None = None) -> None:
        super().__init__(reason)
        self.response = response


class _Patience:
    """Waits between attempts, and ends when too many failed one after another."""

    def __init__(self, retries: int, url: str) -> None:
        self._url, self._retries = url, retries
        self._policy = Retry(retries, backoff_factor=1, backoff_max=60, status_forcelist=_BUSY)

    def wait(self, broken: _BrokenError, kept: str) -> None:
        """Wait before the next attempt.

        Parameters
        ----------
        broken : why the last one failed
        kept : what is here so far, for the error

        Raises
        ------
        DownloadError
            It was the last one.
        """
        try:
            self._policy = self._policy.increment("GET", self._url, error=ProtocolError(str(broken)))
        except MaxRetryError:
            raise DownloadError(
                f"{self._url}: cannot be fetched ({broken}), {self._retries + 1} attempts in a row; "
                + (kept or "see that the server answers, and run the same command again")
            ) from broken
        seconds = self._asked(broken.response) or self._policy.get_backoff_time()
        log.warning("%s: %s; asked again in %.3g s", self._url, broken, seconds)
        time.sleep(seconds)

    def _asked(self, response: requests.Response | None) -> float | None:
        """Seconds that the server asks to wait, None if it does not say."""
        try:
            return None if response is None else self._policy.get_retry_after(response.raw)
        except InvalidHeader:
            return None


def _json_of(url: str, response: requests.Response) -> Any:
    try:
        return response.json()
    except requests.exceptions.JSONDecodeError as error:
        kind = response.headers.get("Content-Type", "unnamed content")
        raise DownloadError(
            f"{url}: the server answers with {kind} instead of JSON; see that host= is right, and that no "
            "proxy or login page answers in its place"
        ) from error
    except requests.RequestException as error:
        raise _BrokenError(_reason(error)) from error


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes; ``iter_content`` would drop up to a block of what came before a cut."""
    try:
        while block := response.raw.read1(_BLOCK, decode_content=False):
            yield block
    except HTTPError as error:
        raise _BrokenError(_reason(error)) from error


def _start_of(file: Published, response: requests.Response, have: int) -> int:
    """Where in the file the body of an answer begins.

    Raises
    ------
    DownloadError
        It is not this file: a page, another size, or another part of it.
    """
    kind = response.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip() == "text/html":
        raise DownloadError(
            f"{file.url}: the server answers with a page (text/html) instead of {file.name}; open it "
            "in a browser: a proxy, a login or a notice of the host may be in the way"
        )
    start, announced = 0, response.headers.get("Content-Length")
    if response.status_code == 206:
        asked = response.headers.get("Content-Range", "none")
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", asked)
        if not found or int(found[1]) != have or int(found[2]) != file.size - 1:
            raise DownloadError(
                f"{file.url}: bytes {have}-{file.size - 1}/{file.size} of {file.name} were asked, the server "
                f"sends Content-Range {asked}; remove the partial file and run the same command again"
            )
        start = have
    if announced is not None and int(announced) != file.size - start:
        raise DownloadError(
            f"{file.url}: the server announces {int(announced):,} bytes, {file.size - start:,} are left "
            f"of the {file.size:,} published for {file.name}; the file there is truncated or another one: "
            "try again later, or tell the host"
        )
    return start


def _status(response: requests.Response) -> str:
    return f"HTTP {response.status_code} {response.reason or ''}".strip()


def _reason(error: Exception) -> str:
    """The innermost cause of an error of requests, whose own text repeats every layer."""
    cause: BaseException = error
    while (deeper := getattr(cause, "reason", None) or cause.__context__) and isinstance(
        deeper, BaseException
    ):
        cause = deeper
    text = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {text[0] if text else 'no message'}"
