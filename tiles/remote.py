"""Feature stores on URLs, whose file systems have errors of their own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Self

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore

from tiles.errors import StoreMismatch, StoreUnreachable


class UrlStore(FsspecStore):
    """A Zarr store on a URL that fsspec knows.

    That a key is not there is part of the answer. Whatever else keeps an answer from coming
    (credentials, rights, the network), in whatever class of whatever package, is StoreUnreachable.
    """

    @classmethod
    def at(cls, url: str, *, read_only: bool) -> Self:
        """The store at a URL; its listings never come from a cache, because others write to it too.

        Raises:
            StoreMismatch: If fsspec does not know such URLs, or lacks what it needs for them.
        """
        options = {"use_listings_cache": False}
        try:
            return cls.from_url(url, storage_options=options, read_only=read_only)  # type: ignore[return-value]  # its own class
        except ImportError as error:  # such as "Install s3fs to access S3"
            raise StoreMismatch(
                f"Feature store {url}: {error} (expected what fsspec needs for such URLs). Install "
                "it, for S3 by `pip install s3fs`."
            ) from error
        except ValueError as error:
            raise StoreMismatch(
                f"Feature store {url}: {error} (expected a URL that fsspec knows). Correct it."
            ) from error

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a key; None if it is not there."""
        with self._answering():
            return await super().get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether a key is there."""
        with self._answering():
            return await super().exists(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The keys right below a prefix."""
        with self._answering():
            async for key in super().list_dir(prefix):
                yield key

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write a key; what the file system refuses is an OSError, as on a disk."""
        with self._answering(refuses=True):
            await super().set(key, value, byte_range)

    async def delete(self, key: str) -> None:
        """Delete a key, if it is there; see `set`."""
        with self._answering(refuses=True):
            await super().delete(key)

    @contextmanager
    def _answering(self, *, refuses: bool = False) -> Iterator[None]:
        try:
            yield
        except self.allowed_exceptions:
            raise
        except Exception as error:
            is_refusal = isinstance(error, OSError) and not isinstance(
                error, ConnectionError | TimeoutError
            )
            if refuses and is_refusal:
                raise
            raise StoreUnreachable(
                f"Feature store {self.fs.unstrip_protocol(self.path)}: {type(error).__name__}: "
                f"{error} (expected an answer). Check the network and your credentials (for S3 "
                "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; a public bucket "
                "needs none with FSSPEC_S3_ANON=true)."
            ) from error
