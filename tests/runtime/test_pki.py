import contextlib
import ssl
import stat

from steersman.runtime.pki import Authority, Identity, fingerprint

SERVER = Identity(file="api", common_name="kube-apiserver", hosts=("127.0.0.1", "localhost"))


def test_a_certificate_is_kept_until_its_identity_changes(tmp_path):
    authority = Authority(tmp_path)
    authority.ensure()
    first = authority.issue(SERVER).cert.read_bytes()
    assert authority.issue(SERVER).cert.read_bytes() == first
    wider = Identity(file="api", common_name="kube-apiserver", hosts=("127.0.0.1", "10.0.0.1"))
    assert authority.issue(wider).cert.read_bytes() != first


def test_a_certificate_that_cannot_be_read_is_made_anew(tmp_path):
    authority = Authority(tmp_path)
    authority.ensure()
    made = authority.issue(SERVER)
    made.cert.write_bytes(b"\0" * 500)
    authority.issue(SERVER)
    ssl.create_default_context().load_cert_chain(made.cert, made.key)


def test_private_keys_are_readable_by_their_owner_alone(tmp_path):
    authority = Authority(tmp_path)
    authority.ensure()
    authority.issue(SERVER)
    keys = list(tmp_path.glob("*.key"))
    assert len(keys) == 3
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)


def test_both_sides_of_a_handshake_know_each_other(tmp_path):
    authority = Authority(tmp_path)
    authority.ensure()
    server, client = (
        authority.issue(SERVER),
        authority.issue(Identity(file="c", common_name="jane", organizations=("dev",))),
    )
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.ca))
    listening.load_cert_chain(server.cert, server.key)
    listening.verify_mode = ssl.CERT_REQUIRED
    calling = ssl.create_default_context(cafile=str(client.ca))
    calling.load_cert_chain(client.cert, client.key)
    a_in, a_out, b_in, b_out = (ssl.MemoryBIO() for _ in range(4))
    left = calling.wrap_bio(a_in, a_out, server_hostname="127.0.0.1")
    right = listening.wrap_bio(b_in, b_out, server_side=True)
    for _ in range(4):
        for side in (left, right):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            b_in.write(a_out.read())
            a_in.write(b_out.read())
    subject = dict(row[0] for row in right.getpeercert()["subject"])
    assert subject == {"organizationName": "dev", "commonName": "jane"}


def test_the_fingerprint_follows_the_authority(tmp_path):
    one, other = Authority(tmp_path / "1"), Authority(tmp_path / "2")
    one.ensure()
    other.ensure()
    assert fingerprint(one.ca) == fingerprint(Authority(tmp_path / "1").ca) != fingerprint(other.ca)
