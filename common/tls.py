"""TLS of a server, made of PEM files: TLS 1.2 and 1.3, with the ciphers that HTTP/2 allows."""

import ssl
from pathlib import Path
from typing import NoReturn

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; RFC 9113 section 9.2.2 lists those that must not be used. Those of TLS 1.3 are all fit."""


class TlsError(OSError):
    """A file cannot be used; `role` is `certificate`, `key` or `client_ca`, the text says why."""

    def __init__(self, role: str, text: str) -> None:
        super().__init__(text)
        self.role = role


def server_context(certificate: str, key: str, client_authority: str = "") -> ssl.SSLContext:
    """What asyncio's servers take, for HTTP/2; with `client_authority` clients must show a certificate of it.

    Raises TlsError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["h2"])
    for role, path in (("certificate", certificate), ("key", key), ("client_ca", client_authority)):
        if path:
            _check_readable(role, path)
    _load_pair(context, certificate, key)
    if client_authority:
        _load_authority(context, client_authority)
    return context


def _check_readable(role: str, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise TlsError(role, f"cannot read {path}: {error.strerror}") from None


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    # Tried alone first, because OpenSSL's errors do not say which of the two files they are about.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError:
        raise TlsError("certificate", f"{certificate} holds no certificate in PEM form") from None

    def encrypted() -> NoReturn:
        raise TlsError("key", f"{key} is encrypted: a key without a password is wanted")

    try:
        context.load_cert_chain(certificate, key, password=encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError("key", f"{key} is not the key of the certificate in {certificate}") from None
        raise TlsError(
            "key", f"{key} holds no key in PEM form for the certificate in {certificate}"
        ) from None


def _load_authority(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise TlsError("client_ca", f"{path} holds no certificate in PEM form") from None
    context.verify_mode = ssl.CERT_REQUIRED
