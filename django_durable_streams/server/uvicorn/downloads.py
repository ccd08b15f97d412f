"""Responses that a client does not take at once, on connections that answer requests themselves.

A long body is written in pieces, as the client takes them. So a transport never holds much of it, clients that get the
same body share it, and a client that takes one byte after another can be told from one that reads. The answer lasts
until the client has taken it. Does not know how a response is encoded.
"""

from __future__ import annotations

from typing import Any

from ...protocol.errors import ServiceUnavailable
from ...protocol.messages import Response
from ..dispatch import refuse
from ..response_memory import Transfer, memory
from .uploads import UploadConnection

PIECE_BYTES = 256 * 1024
"""Bytes that are written at a time. Pieces of 64 KB cost half as much again for a page of 1 MB."""


class DownloadConnection(UploadConnection):
    """A connection whose client may take its time with an answer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._download: Transfer[bytes] | None = None
        self._written = 0
        """Bytes of the download that the transport has got."""

    def admit_download(self, response: Response) -> Response:
        """Return the response whose body to download: this one, or a refusal if there is no room for it."""
        transfer = self._transfer(response.body)
        try:
            memory.admit(transfer)
        except ServiceUnavailable as error:
            return refuse(error)
        self._download = transfer
        return response

    def start_download(self, data: bytes, written: int) -> None:
        """Write the rest of some data, and end the answer when the client has taken it.

        Args:
            data: the last part of the answer. It may have been admitted before.
            written: bytes of it that are written already.
        """
        if self._download is None:
            self._download = self._transfer(data)
            memory.add(self._download)
        self._written = written
        self._go_on()

    def _transfer(self, data: bytes) -> Transfer[bytes]:
        return Transfer(data, self.loop, self.transport.abort)

    def _end_answer(self) -> None:
        """The answer is written, and the client has taken it or has left."""
        raise NotImplementedError

    def _go_on(self) -> None:
        download = self._download
        if download is None:
            return
        view = memoryview(download.data)
        while self._written < len(view) and not (self.flow.write_paused or self.transport.is_closing()):
            piece = view[self._written : self._written + PIECE_BYTES]
            self._written += len(piece)
            self.transport.write(piece)
        if self.flow.write_paused and not self.transport.is_closing():
            memory.report_progress(download)
        else:
            self._end_download()

    def _end_download(self) -> None:
        download, self._download = self._download, None
        if download is not None:
            memory.remove(download)
            self._end_answer()

    def resume_writing(self) -> None:
        """The client has taken the data."""
        super().resume_writing()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        super().connection_lost(exc)
        self._end_download()
