"""A client of registries: the OCI distribution specification 1.1 over aiohttp.

Credentials go to the registry itself and to the token server that it names, never along a redirect.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from bastide.images.auth import Credentials, Token, challenges, check_realm
from bastide.images.decoding import decode
from bastide.images.digest import digest_of, is_digest
from bastide.images.manifest import DOCUMENT_LIMIT, INDEXES, MANIFESTS, Index, MediaType, make_index, parse
from bastide.images.registries import Endpoint, Registries
from bastide.model.errors import (
    BastideError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthorized,
    Unavailable,
)
from bastide.model.image import Descriptor

ATTEMPTS = 5
"""Tries of a request that fails in a way that may pass."""
FIRST_PAUSE = 0.2
"""Seconds before the second try; each further pause is twice as long."""
TAG_LIMIT = 10_000
"""Tags of a repository that are pulled at one go."""
REFERRER_LIMIT = 100
"""Manifests that may refer to one."""
_REDIRECTS = 5
_STATUS_AGAIN = (408, 429, 500, 502, 503, 504)
_ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30, sock_connect=15, sock_read=60)
_TRANSPORT = (aiohttp.ClientError, TimeoutError, ConnectionError)
_ANSWER_LIMIT = 1 << 20


class RegistryError(BastideError):
    """An error that a registry answered with, by its code (distribution-spec, "Error Codes")."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code = status, code
        words = code.lower().replace("_", " ")
        super().__init__(f"{words}: {message}" if words else message)


class _Again(Exception):
    """The same request may work later; `pause` in seconds, None for our own."""

    def __init__(self, error: BastideError, pause: float | None = None) -> None:
        self.error, self.pause = error, pause


class Connection:
    """Sessions to registries; a context manager, one for each pull or push."""

    def __init__(self, registries: Registries) -> None:
        self.registries = registries
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None
        self.schemes: dict[str, str] = {}

    async def __aenter__(self) -> Connection:
        self._session = aiohttp.ClientSession(
            timeout=_TIMEOUT,
            auto_decompress=False,
            trust_env=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 20,
            headers={"User-Agent": "bastide", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session."""
        assert self._session is not None
        return self._session

    def tls(self, host: str, insecure: bool) -> ssl.SSLContext:
        """The TLS context for a host, made once."""
        key = (host, insecure)
        if key not in self._contexts:
            self._contexts[key] = self.registries.tls(*key)
        return self._contexts[key]


class Repository:
    """One repository on one server."""

    def __init__(self, connection: Connection, endpoint: Endpoint, credentials: Credentials | None) -> None:
        self.endpoint = endpoint
        self._connection = connection
        self._credentials = credentials.unpacked() if credentials else None
        self._authorization = ""
        if credentials and credentials.registrytoken:
            self._authorization = f"Bearer {credentials.registrytoken}"
        self._refused = False

    # -- requests ------------------------------------------------------------------------------

    def _base(self) -> URL:
        scheme = self._connection.schemes.get(self.endpoint.address, "https")
        return URL(f"{scheme}://{self.endpoint.address}")

    def url(self, rest: str) -> URL:
        """The URL of something in the repository or, with a slash before it, of the server.

        It is made anew for each try: the first one finds out whether the server speaks TLS.
        """
        path = rest if rest.startswith("/") else f"/v2/{self.endpoint.repository}/{rest}"
        return URL(f"{self._base()}{path}", encoded=True)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL | str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Callable[[], Any] | None = None,
        scope: str = "pull",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response below 400, redirects followed. `data` makes the body anew for each try.

        Raises RegistryError, Unauthorized, PermissionDenied, Unavailable.
        """
        attempt = 0
        while True:
            try:
                response = await self._try(method, url, dict(headers or {}), data, scope)
                break
            except _Again as again:
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise again.error from again.__cause__
                await asyncio.sleep(again.pause if again.pause is not None else FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            yield response
        finally:
            response.release() if response.content.at_eof() else response.close()

    async def _try(
        self, method: str, url: URL | str, headers: dict[str, str], data: Callable[[], Any] | None, scope: str
    ) -> aiohttp.ClientResponse:
        for turn in range(3):
            target = url if isinstance(url, URL) else self.url(url)
            response = await self._follow(method, target, headers, data)
            same = response.url.origin() == self._base().origin()
            if response.status == 401 and same and turn < 2 and await self._authorize(response, scope):
                continue
            if response.status >= 400:
                raise await self._failure(response)
            return response
        raise AssertionError("unreachable")

    async def _follow(
        self, method: str, url: URL, headers: dict[str, str], data: Callable[[], Any] | None
    ) -> aiohttp.ClientResponse:
        """Send, and follow redirects by hand: what goes to another server goes without credentials."""
        for _ in range(_REDIRECTS + 1):
            own = dict(headers)
            if self._authorization and url.origin() == self._base().origin():
                own["Authorization"] = self._authorization
            response = await self._send(method, url, own, data)
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            url = response.url
            following = url.join(URL(location, encoded=True))
            if following.scheme not in ("http", "https") or (url.scheme == "https" and following.scheme == "http"):
                raise PermissionDenied(
                    f"registry {self.endpoint.host} redirects away from TLS, to {following}: refused"
                )
            url = following
        raise Unavailable(f"registry {self.endpoint.host} redirects without end")

    async def _send(
        self, method: str, url: URL, headers: dict[str, str], data: Callable[[], Any] | None
    ) -> aiohttp.ClientResponse:
        session, host = self._connection.session, self.endpoint.address
        insecure = self.endpoint.insecure and url.host == URL(f"//{host}").host
        context = self._connection.tls(_host_port(url), insecure) if url.scheme == "https" else False
        try:
            response = await session.request(
                method, url, headers=headers, data=data() if data else None, allow_redirects=False, ssl=context
            )
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unavailable(
                f"certificate of registry {host} is not trusted: {error.certificate_error}; "
                f"put its authority's certificate into /etc/containers/certs.d/{host}/ca.crt"
            ) from error
        except _TRANSPORT as error:
            if insecure and url.scheme == "https" and self._connection.schemes.get(host) is None:
                # As Docker does with registries that are insecure: TLS first, then plain HTTP.
                self._connection.schemes[host] = "http"
                return await self._send(method, url.with_scheme("http").with_port(url.explicit_port), headers, data)
            raise _Again(Unavailable(f"registry {host} does not answer: {describe(error)}")) from error
        self._connection.schemes.setdefault(host, url.scheme)
        return response

    async def _failure(self, response: aiohttp.ClientResponse) -> Exception:
        """What a status of 400 or above means."""
        error: BastideError = await _registry_error(response)
        if response.status in _STATUS_AGAIN:
            wait = response.headers.get("Retry-After", "")
            if response.status == 429:
                error = ResourceExhausted(f"registry {self.endpoint.host} limits the rate of requests: {error}")
            else:
                error = Unavailable(f"registry {self.endpoint.host} is not able to answer: {error}")
            return _Again(error, min(float(wait), 30.0) if wait.isdigit() else None)
        return error

    # -- credentials ---------------------------------------------------------------------------

    async def _authorize(self, response: aiohttp.ClientResponse, scope: str) -> bool:
        """Answer a 401; whether it is worth to try again. Raises Unauthorized, PermissionDenied."""
        found = challenges(response.headers.getall("WWW-Authenticate", []))
        await _drain(response)
        before = self._authorization
        for challenge in found:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                self._authorization = "Bearer " + await self._token(challenge.parameters, scope)
                return self._authorization != before
            if challenge.scheme == "basic" and self._credentials and self._credentials.username:
                if before == self._credentials.basic():
                    raise Unauthorized(f"registry {self.endpoint.host} refused the user name or the password")
                self._authorization = self._credentials.basic()
                return True
        return False

    async def _token(self, parameters: dict[str, str], scope: str) -> str:
        plain = self._base().scheme == "http"
        realm = check_realm(parameters["realm"], self.endpoint.address, plain=plain)
        own = f"repository:{self.endpoint.repository}:{scope}"
        # A push asks for both rights at once: its requests share one token, whichever of them got it.
        wanted = parameters.get("scope") or own if scope == "pull" else own
        fields = {"scope": wanted, "client_id": "bastide"}
        if service := parameters.get("service"):
            fields["service"] = service
        credentials, headers = self._credentials, {}
        url = URL(realm)
        context = (
            self._connection.tls(_host_port(url), self.endpoint.insecure and url.host == self._base().host)
            if url.scheme == "https"
            else False
        )
        session = self._connection.session
        try:
            if credentials and credentials.identitytoken:
                form = {"grant_type": "refresh_token", "refresh_token": credentials.identitytoken, **fields}
                request = session.post(url, data=form, ssl=context, allow_redirects=False)
            else:
                if credentials and credentials.username:
                    headers["Authorization"] = credentials.basic()
                    fields["account"] = credentials.username
                request = session.get(url.update_query(fields), headers=headers, ssl=context, allow_redirects=False)
            async with request as response:
                body = await _limited(response, _ANSWER_LIMIT)
                if response.status in (401, 403) and credentials:
                    raise Unauthorized(f"registry {self.endpoint.host} refused the user name or the password")
                if response.status >= 300:
                    raise _parsed_error(response.status, body)
                return decode(body, Token, f"token server {url.host} gave no valid answer").value
        except _TRANSPORT as error:
            raise _Again(Unavailable(f"token server {url.host} does not answer: {describe(error)}")) from error

    async def ping(self) -> None:
        """Whether the server takes the credentials. Raises Unauthorized, Unavailable."""
        async with self.request("GET", "/v2/"):
            pass

    # -- content -------------------------------------------------------------------------------

    async def manifest(self, tag_or_digest: str) -> tuple[bytes, str]:
        """A manifest or index, checked against a digest, and its Content-Type. Raises NotFound, InvalidArgument."""
        headers = {"Accept": _ACCEPT}
        async with self.request("GET", f"manifests/{tag_or_digest}", headers=headers) as response:
            data = await _limited(response, DOCUMENT_LIMIT)
            if is_digest(tag_or_digest) and digest_of(data) != tag_or_digest:
                raise InvalidArgument(
                    f"manifest verification failed for digest {tag_or_digest}: {digest_of(data)} came instead"
                )
            named = response.headers.get("Docker-Content-Digest", "")
            if is_digest(named) and named != digest_of(data):
                raise InvalidArgument(
                    f"registry {self.endpoint.host} says that {tag_or_digest} is {named}, but {digest_of(data)} came"
                )
            return data, response.headers.get("Content-Type", "")

    async def tags(self) -> list[str]:
        """Every tag of the repository, at most `TAG_LIMIT`. Raises RegistryError, InvalidArgument."""
        found: list[str] = []
        url: URL | str = "tags/list?n=1000"
        while len(found) <= TAG_LIMIT:
            async with self.request("GET", url) as response:
                data = await _limited(response, DOCUMENT_LIMIT)
                link = response.links.get("next")
                following = link.get("url") if link is not None else None
            found += decode(data, _Tags, f"registry {self.endpoint.host} gave no valid list of tags").tags or []
            if following is None:
                return found
            url = URL(str(following), encoded=True)
            if url.origin() != self._base().origin():
                break
        raise InvalidArgument(f"registry {self.endpoint.host} lists more than {TAG_LIMIT} tags")

    async def blob(self, digest: str, size: int, offset: int = 0) -> AsyncIterator[bytes]:
        """A blob's bytes from `offset` on. A broken connection is taken up where it broke.

        Neither the digest nor the size is checked here. Raises NotFound, Unavailable.
        """
        failures = 0
        while True:
            before = offset
            try:
                async for chunk in self._blob_part(digest, offset):
                    offset += len(chunk)
                    yield chunk
                    if offset > size:
                        return
                if offset >= size:
                    return
                error: Exception = Unavailable("the connection ended early")
            except _TRANSPORT as failure:
                error = failure
            failures = 1 if offset > before else failures + 1
            if failures >= ATTEMPTS:
                raise Unavailable(
                    f"registry {self.endpoint.host} does not deliver {digest}: {describe(error)}"
                ) from error
            await asyncio.sleep(FIRST_PAUSE * 2 ** (failures - 1))

    async def _blob_part(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self.request("GET", f"blobs/{digest}", headers=headers) as response:
            skip = offset
            if response.status == 206:
                begin = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
                if begin != str(offset):
                    raise Unavailable(f"registry {self.endpoint.host} gave another range than {offset}-")
                skip = 0
            async for chunk in response.content.iter_any():
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:] if skip else chunk
                skip = 0

    # -- push ----------------------------------------------------------------------------------

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository surely has a blob; a registry that cannot be asked has it not."""
        try:
            async with self.request("HEAD", f"blobs/{digest}", scope="pull,push"):
                return True
        except RegistryError as error:
            if error.status in (404, 405):
                return False
            raise

    async def upload(
        self, digest: str, size: int, chunks: Callable[[], AsyncIterator[bytes]], origin: str = ""
    ) -> bool:
        """Bring a blob there, or have it mounted from the repository `origin`; False when it was mounted.

        A broken upload begins again. Raises RegistryError, Unavailable.
        """
        query = f"?mount={digest}&from={origin}" if origin else ""
        failures = 0
        while True:
            async with self.request("POST", f"blobs/uploads/{query}", scope="pull,push") as response:
                if response.status == 201:
                    return False
                place = self._place(response)
            try:
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
                async with self.request("PATCH", place, headers=headers, data=chunks, scope="pull,push") as response:
                    place = self._place(response)
                async with self.request("PUT", place.update_query(digest=digest), scope="pull,push"):
                    return True
            except RegistryError as error:
                # An upload that the registry lost half-way begins anew.
                failures += 1
                if error.status != 404 or failures >= ATTEMPTS:
                    raise
                query = ""

    def _place(self, response: aiohttp.ClientResponse) -> URL:
        location = response.headers.get("Location")
        if not location:
            raise Unavailable(f"registry {self.endpoint.host} named no place for an upload")
        place = response.url.join(URL(location, encoded=True))
        if place.origin() != self._base().origin() and place.scheme != "https":
            raise PermissionDenied(f"registry {self.endpoint.host} wants an upload to go to {place.origin()}: refused")
        return place

    async def put_manifest(self, tag_or_digest: str, data: bytes, media_type: str) -> bool:
        """Write a manifest or index; whether the registry noted what it refers to. Raises RegistryError."""
        async with self.request(
            "PUT",
            f"manifests/{tag_or_digest}",
            headers={"Content-Type": media_type},
            data=lambda: data,
            scope="pull,push",
        ) as response:
            return "OCI-Subject" in response.headers

    # -- referrers -----------------------------------------------------------------------------

    async def referrers(self, digest: str) -> list[Descriptor]:
        """The manifests that refer to `digest`, at most `REFERRER_LIMIT`. Raises RegistryError, InvalidArgument.

        A registry without that call keeps them under a tag (distribution-spec, "Referrers Tag Schema").
        """
        found: list[Descriptor] = []
        url: URL | str = f"referrers/{digest}"
        while len(found) <= REFERRER_LIMIT:
            try:
                async with self.request("GET", url, headers={"Accept": MediaType.OCI_INDEX}) as response:
                    data = await _limited(response, DOCUMENT_LIMIT)
                    link = response.links.get("next")
            except RegistryError as error:
                if error.status != 404 or found:
                    raise
                return await self._tagged_referrers(digest)
            found += self._listed(data, digest)
            if link is None and len(found) <= REFERRER_LIMIT:
                return found
            if link is None:
                break
            url = URL(str(link.get("url")), encoded=True)
            if url.origin() != self._base().origin():
                break
        raise InvalidArgument(f"registry {self.endpoint.host} names more than {REFERRER_LIMIT} referrers of {digest}")

    def _listed(self, data: bytes, digest: str) -> list[Descriptor]:
        index = parse(data)
        if not isinstance(index, Index):
            raise InvalidArgument(f"registry {self.endpoint.host} gave no valid list of the referrers of {digest}")
        return index.manifests

    async def _tagged_referrers(self, digest: str) -> list[Descriptor]:
        try:
            data, _ = await self.manifest(digest.replace(":", "-"))
        except RegistryError as error:
            if error.status == 404:
                return []
            raise
        return self._listed(data, digest)

    async def tag_referrer(self, digest: str, referrer: Descriptor) -> None:
        """Note a referrer under the tag that stands in for the call, where `put_manifest` said that nobody did."""
        known = await self._tagged_referrers(digest)
        if referrer.digest not in {entry.digest for entry in known}:
            await self.put_manifest(digest.replace(":", "-"), make_index([*known, referrer]), MediaType.OCI_INDEX)


async def fetch(registries: Registries, url: URL, headers: Mapping[str, str], limit: int = DOCUMENT_LIMIT) -> bytes:
    """A small document from an HTTPS server that is no registry. Raises NotFound, Unavailable, InvalidArgument."""
    async with Connection(registries) as connection:
        try:
            context = connection.tls(_host_port(url), False)
            async with connection.session.get(url, headers=headers, ssl=context, allow_redirects=False) as response:
                if response.status == 404:
                    raise NotFound(f"{url.host} has no {url.path}")
                if response.status != 200:
                    raise Unavailable(f"{url.host} answered with HTTP status {response.status}")
                return await _limited(response, limit)
        except _TRANSPORT as error:
            raise Unavailable(f"{url.host} does not answer: {describe(error)}") from error


def _host_port(url: URL) -> str:
    return f"{url.host}:{url.port}" if url.explicit_port else str(url.host)


def describe(error: BaseException) -> str:
    """A transport error in few words."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error.strerror or error.os_error)
    return str(error) or type(error).__name__


async def _limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    data = bytearray()
    try:
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > limit:
                raise InvalidArgument(f"{response.url.host} answered with more than {limit} bytes")
    except _TRANSPORT as error:
        raise Unavailable(f"registry {response.url.host} does not answer: {describe(error)}") from error
    return bytes(data)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a short body, so that the connection can be used again."""
    try:
        await _limited(response, 64 << 10)
    except BastideError:
        response.close()


class _Tags(msgspec.Struct, frozen=True):
    tags: list[str] | None = None


class _Reported(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct, frozen=True):
    errors: list[_Reported] = []


async def _registry_error(response: aiohttp.ClientResponse) -> RegistryError:
    try:
        body = await _limited(response, 64 << 10)
    except BastideError:
        body = b""
    return _parsed_error(response.status, body)


def _parsed_error(status: int, body: bytes) -> RegistryError:
    codes = {401: "UNAUTHORIZED", 403: "DENIED"}
    try:
        found = decode(body, _Errors, "").errors
    except InvalidArgument:
        found = []
    first = found[0] if found else _Reported(codes.get(status, ""), "")
    message = "".join(sign for sign in first.message if sign.isprintable())[:300]
    return RegistryError(status, first.code[:50] or codes.get(status, ""), message or f"HTTP status {status}")
