"""What a TLS endpoint needs, in the two forms that loops and reactors ask for: 1.2 and later only."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
    from twisted.internet.ssl import CertificateOptions

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def _no_passphrase() -> str:
    """
    @raise ValueError: always; OpenSSL would ask at a terminal and have everybody wait.
    """
    raise ValueError("the key is encrypted, and nobody is there to type its passphrase")


class ServerTLS:
    """A server's key and certificate chain, read now and whenever L{reload} is called.

    A process may drop the right to read them after the first time.

    @ivar context: for the loop's own transports; another one after each L{reload}, so asked for each time.
    @ivar expires: when the certificate does, in seconds since 1970.
    """

    def __init__(self, private_key: str, certificates: str) -> None:
        """
        @param private_key: the file of the private key, PEM.
        @param certificates: the file of the certificate and those that lead to its root, PEM.
        @raise ValueError: they cannot be read or do not belong together.
        """
        self._private_key, self._certificates = private_key, certificates
        self.context = self._read()
        self._options: CertificateOptions | None = None

    def reload(self) -> None:
        """Read both files again, for handshakes from now on; connections that are open go on as they are.

        @raise ValueError: they cannot be read or do not belong together; the old ones stay.
        """
        # A context that is in use takes a certificate and then fails on its key: so a new one is made.
        self.context = self._read()
        if self._options is not None:
            self._options = self._make_options()

    def options(self) -> CertificateOptions:
        """The same for a reactor's own TLS, which accepts 1.2 and later unless told otherwise."""

        def choose(connection: Any) -> None:  # Any: pyOpenSSL's connections need not be imported here
            assert self._options is not None
            connection.set_context(self._options.getContext())

        self._options = first = self._make_options()
        first.getContext().set_tlsext_servername_callback(choose)
        return first

    def _read(self) -> ssl.SSLContext:
        """A context with what the files hold now."""
        from cryptography.x509 import load_pem_x509_certificates

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificates, self._private_key, _no_passphrase)
            pem = Path(self._private_key).read_bytes(), Path(self._certificates).read_bytes()
            own = load_pem_x509_certificates(pem[1])[0]
        except (OSError, ValueError) as problem:
            raise ValueError(
                f"cannot use key {self._private_key} with certificate {self._certificates}: {problem}"
            ) from problem
        self._pem, self.expires = pem, own.not_valid_after_utc.timestamp()
        return context

    def _make_options(self) -> CertificateOptions:
        from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate

        key, chain = self._pem
        first, *others = [Certificate.loadPEM(block) for block in _BLOCK.findall(chain)]
        own = PrivateCertificate.loadPEM(first.dumpPEM() + b"\n" + key)
        return CertificateOptions(
            privateKey=own.privateKey.original,
            certificate=own.original,
            extraCertChain=[other.original for other in others],
        )


class ClientTLS:
    """Whom a client believes: the platform's roots, or the certificates of one file."""

    def __init__(self, name: str, trust_roots: str = "") -> None:
        """
        @param name: the name that the server's certificate must bear.
        @param trust_roots: a file of certificates to trust instead of the platform's, PEM; may be empty.
        @raise ValueError: the file cannot be read.
        """
        self.name = name
        self._roots = b""
        try:
            self.context = ssl.create_default_context(cafile=trust_roots or None)
            if trust_roots:
                self._roots = Path(trust_roots).read_bytes()
        except OSError as problem:
            raise ValueError(f"cannot use the certificates of {trust_roots}: {problem}") from problem
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])

    def options(self) -> IOpenSSLClientConnectionCreator:
        """The same for a reactor's own TLS."""
        from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

        roots = None
        if self._roots:
            roots = trustRootFromCertificates(
                [Certificate.loadPEM(block) for block in _BLOCK.findall(self._roots)]
            )
        return optionsForClientTLS(self.name, trustRoot=roots)
