import ssl
from pathlib import Path

import pytest

from common.tls import TlsError, server_context
from tests.support.certificates import Authority


def context(*paths: Path) -> ssl.SSLContext:
    return server_context(*map(str, paths))


def test_a_pair(tmp_path: Path) -> None:
    made = context(*Authority(tmp_path).sign("server"))
    assert made.verify_mode is ssl.CERT_NONE
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2


def test_clients_that_must_show_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert context(*authority.sign("server"), authority.path).verify_mode is ssl.CERT_REQUIRED


def test_ciphers_of_tls_1_2_are_ephemeral_and_authenticated(tmp_path: Path) -> None:
    """RFC 9113, section 9.2.2."""
    for cipher in context(*Authority(tmp_path).sign("server")).get_ciphers():
        if cipher["protocol"] == "TLSv1.2":
            assert cipher["name"].startswith("ECDHE-")
            assert cipher["aead"]


@pytest.mark.parametrize("role", ["certificate", "key", "client_ca"])
def test_a_file_that_is_not_there(tmp_path: Path, role: str) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    files = {"certificate": certificate, "key": key, "client_ca": authority.path}
    files[role].unlink()
    with pytest.raises(TlsError, match=rf"^cannot read {files[role]}: No such file or directory$") as caught:
        context(*files.values())
    assert caught.value.role == role


@pytest.mark.parametrize("role", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize(
    "content", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_holds_something_else(tmp_path: Path, role: str, content: str) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    files = {"certificate": certificate, "key": key, "client_ca": authority.path}
    files[role].write_text(content)
    with pytest.raises(TlsError, match=rf"^{files[role]} holds no ") as caught:
        context(*files.values())
    assert caught.value.role == role


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, _ = authority.sign("server")
    _, key = authority.sign("other")
    with pytest.raises(TlsError, match=rf"^{key} is not the key of the certificate in {certificate}$"):
        context(certificate, key)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).sign("server", b"secret")
    with pytest.raises(TlsError, match=rf"^{key} is encrypted: a key without a password is wanted$"):
        context(certificate, key)
