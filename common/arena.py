"""Shared memory without a name: memfds, made by a frontend, mapped by workers.

The owner creates a segment, seals its size (a shrunk mapping would be a SIGBUS later), and preallocates memory before
it is used (a hole in a full system would be one too): all of it at once, or a growing part from the front, past
which the owner lends nothing. A worker maps it from the descriptor that it was handed, and checks the seals. Nothing
is named, so nothing outlives its last user, however that one ends.
"""

import fcntl
import mmap
import os

import numpy as np

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class ForeignSegmentError(Exception):
    """A descriptor that was handed over is not a sealed segment."""


class Segment:
    """A mapped segment; `buffer` is its memory. Close it once no view into `buffer` is left."""

    def __init__(self, descriptor: int, size: int, *, populate: bool) -> None:
        self.descriptor = descriptor
        self.size = size
        self.backed = size
        """Bytes from the front whose memory is there for certain."""
        flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0)
        self.buffer = mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        # numpy's constructor lets go of the buffer that it is given at once, and an array over the mapping itself
        # would not keep it from being unmapped. frombuffer holds on, and so do arrays over its array.
        self._bytes: np.ndarray | None = np.frombuffer(self.buffer, np.uint8)
        self._address = _address(self._bytes)

    @classmethod
    def create(cls, size: int, backed: int | None = None) -> "Segment":
        """A new segment of `size` bytes, whose memory is there for the first `backed` of them (None: for all).

        Raises OSError (ENOMEM, ENOSPC) when it cannot be had.
        """
        descriptor = os.memfd_create("ie_serving", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            os.posix_fallocate(descriptor, 0, size if backed is None else backed)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            segment = cls(descriptor, size, populate=backed is None)
        except BaseException:
            os.close(descriptor)
            raise
        segment.backed = size if backed is None else backed
        return segment

    def back(self, end: int) -> None:
        """Have memory for the first `end` bytes at least. Raises OSError, changing nothing, when there is none."""
        if end > self.backed:
            os.posix_fallocate(self.descriptor, self.backed, end - self.backed)
            self.backed = end

    @classmethod
    def attach(cls, descriptor: int) -> "Segment":
        """Map a segment that another process made; takes the descriptor over.

        Raises ForeignSegmentError for a descriptor that is not sealed as `create` seals.
        """
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
                raise ForeignSegmentError("the segment's size is not sealed")
            return cls(descriptor, os.fstat(descriptor).st_size, populate=False)
        except (OSError, ValueError) as error:
            os.close(descriptor)
            raise ForeignSegmentError(f"not a segment of shared memory: {error}") from error
        except BaseException:
            os.close(descriptor)
            raise

    def contains(self, offset: int, length: int) -> bool:
        """Whether `length` bytes at `offset` lie within the segment."""
        return offset >= 0 and length >= 0 and offset + length <= self.size

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array over part of the segment. Raises ValueError or TypeError when it lies outside."""
        assert self._bytes is not None, "a closed segment is looked into by nobody"
        view: np.ndarray = np.ndarray(shape, dtype, self._bytes, offset)
        return view

    def find(self, array: np.ndarray) -> int | None:
        """Where the array, which is C-contiguous, begins; None when it is not of this memory."""
        offset = _address(array) - self._address
        return offset if self.contains(offset, array.nbytes) else None

    def close(self) -> None:
        """Unmap and close. Raises BufferError while a view is alive; then it can be tried again."""
        self._bytes = None
        self.buffer.close()
        os.close(self.descriptor)


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
