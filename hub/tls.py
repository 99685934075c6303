"""The TLS context of the listening socket."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from pathlib import Path

from hub.settings import TlsSettings

_MARK = "-----BEGIN"


class TlsError(Exception):
    """The certificate or key cannot be used; the text is a sentence that names the setting."""


def server_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """Make the context, or ``None`` when TLS is off; raises ``TlsError``."""
    if not settings.enabled:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    certificate = _pem(settings.cert_pem, "http_server.tls.cert_pem")
    key = _pem(settings.key_pem.reveal(), "http_server.tls.key_pem")
    # The ssl module reads files only; what was given as text is there for as long as that takes, for this user alone.
    handle, name = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(key.rstrip() + b"\n" + certificate)
        context.load_cert_chain(name, password=_no_password)
    except ssl.SSLError as error:
        raise TlsError(
            "http_server.tls.cert_pem and http_server.tls.key_pem are not a certificate and its key"
            f" ({error.reason or 'unreadable'})."
        ) from None
    except ValueError:
        raise TlsError("http_server.tls.key_pem is encrypted; give a key without a pass phrase.") from None
    finally:
        os.unlink(name)
    return context


def _no_password() -> str:
    raise ValueError("a pass phrase is asked for")


def _pem(value: str, setting: str) -> bytes:
    """PEM text as it is, in base64, or in a file."""
    if _MARK in value:
        return value.encode()
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if _MARK.encode() in decoded:
        return decoded
    try:
        content = Path(value).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no path"
        raise TlsError(f"{setting} is neither PEM text nor a file that can be read ({reason}).") from None
    if _MARK.encode() not in content:
        raise TlsError(f"{setting} names a file that holds no PEM text.")
    return content
