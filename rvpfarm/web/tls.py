"""What a TLS endpoint needs, in the two forms that loops and reactors ask for: 1.2 and later only."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
    from twisted.internet.ssl import CertificateOptions

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class ServerTLS:
    """A server's key and certificate chain, read once: a process may drop the right to read them later."""

    def __init__(self, private_key: str, certificates: str) -> None:
        """
        @param private_key: the file of the private key, PEM.
        @param certificates: the file of the certificate and those that lead to its root, PEM.
        @raise ValueError: they cannot be read or do not belong together.
        """
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        try:
            self.context.load_cert_chain(certificates, private_key)
            self._pem = Path(private_key).read_bytes(), Path(certificates).read_bytes()
        except OSError as problem:
            raise ValueError(
                f"cannot use key {private_key} with certificate {certificates}: {problem}"
            ) from problem

    def options(self) -> CertificateOptions:
        """The same for a reactor's own TLS, which accepts 1.2 and later unless told otherwise."""
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
