"""TLS that lets clients in whose certificate does not verify, so that they can be told so in an answer.

Python's `ssl` ends the handshake instead, and OpenSSL's callback that decides is not to be had through it: it is set
here on the context's own `SSL_CTX`. Where that cannot be reached (an OpenSSL that is linked statically, a Python
whose objects are laid out otherwise), such handshakes end as before.

Source: SSL_CTX_set_verify(3), SSL_get_verify_result(3), SSL_CTX_set_client_CA_list(3)
"""

from __future__ import annotations

import ctypes
import ssl
import tempfile
from functools import cache
from typing import Any

_V_OK, _ENCODING_DER = 0, 2
_SET_SESSION_CACHE_MODE, _SESSION_CACHE_OFF = 44, 0
#: a CPython object that wraps one of OpenSSL's begins with this, then comes the pointer
_HEAD_BYTES = object.__basicsize__
_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)


@cache
def _library() -> Any:
    """OpenSSL as Python's `ssl` uses it; None where its functions cannot be reached."""
    try:
        import _ssl

        library = ctypes.CDLL(_ssl.__file__)
        library.SSL_load_client_CA_file.restype = ctypes.c_void_p
        library.SSL_get_verify_result.restype = ctypes.c_long
        library.SSL_get_SSL_CTX.restype = ctypes.c_void_p
        library.SSL_CTX_ctrl.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
        library.SSL_CTX_ctrl.restype = ctypes.c_long
        for name in ("SSL_CTX_set_verify", "SSL_CTX_set_client_CA_list", "ERR_clear_error"):
            getattr(library, name).restype = None
    except (AttributeError, OSError):
        return None
    return library if _fits(library) else None


@cache
def _go_on() -> Any:
    """What OpenSSL asks of each certificate: whether to go on, whatever is wrong with it; kept as long as contexts are.

    What it has noted of a signature that is none is thrown away: it would take that for the handshake's failure later.
    """
    library = _library()

    def answer(good: int, _store: int) -> int:
        if not good:
            library.ERR_clear_error()
        return 1

    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)(answer)


def _fits(library: Any) -> bool:
    """Whether OpenSSL's objects are where they are looked for in Python's; nothing is called with what is not one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    connection: Any = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)._sslobj  # type: ignore[attr-defined]
    # a connection has a reference to its socket, OpenSSL's connection, and a reference to its context
    behind = ctypes.c_void_p.from_address(id(connection) + _HEAD_BYTES + 2 * _POINTER_BYTES)
    return behind.value == id(context) and library.SSL_get_SSL_CTX(_in(connection)) == _of(context).value


def _of(context: ssl.SSLContext) -> ctypes.c_void_p:
    return ctypes.c_void_p.from_address(id(context) + _HEAD_BYTES)


def _in(connection: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p.from_address(id(connection) + _HEAD_BYTES + _POINTER_BYTES)


def admit_strangers(context: ssl.SSLContext, authorities: bytes) -> None:
    """Asks clients for certificates of these authorities, and lets in also those who show another one.

    No session is resumed: what was verified is not part of one, and making tickets is a third of a handshake.

    Args:
        context: of a server.
        authorities: PEM; their names are told to clients, of whom some show no other certificates then.
    """
    context.load_verify_locations(cadata=authorities.decode("ascii"))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # they need not be roots, as of Go
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    library = _library()
    if library is None:
        return
    wrapped = _of(context)
    with tempfile.NamedTemporaryFile() as file:
        file.write(authorities)
        file.flush()
        names = ctypes.c_void_p(library.SSL_load_client_CA_file(file.name.encode()))
        library.SSL_CTX_set_client_CA_list(wrapped, names)
    library.SSL_CTX_ctrl(wrapped, _SET_SESSION_CACHE_MODE, _SESSION_CACHE_OFF, None)
    library.SSL_CTX_set_verify(wrapped, int(ssl.CERT_OPTIONAL), _go_on())


def root_of(tls: Any) -> bytes | None:
    """The authority that a client's certificate goes back to, as DER; None of one that has not been verified here.

    Args:
        tls: the `ssl.SSLObject` of a connection whose client has shown a certificate.
    """
    library, connection = _library(), tls._sslobj
    # without the library it has verified: there would be no connection
    if library is not None and library.SSL_get_verify_result(_in(connection)) != _V_OK:
        return None
    chain = connection.get_verified_chain()
    return chain[-1].public_bytes(_ENCODING_DER) if chain else None
