"""A certificate authority of the test session's own, and servers that are only reached through it.

The broker of `secure_kafka` has three doors: PLAINTEXT on loopback for the test itself, where
whoever comes is the super user; SECURE (SASL_SSL, SCRAM-SHA-512 or PLAIN); MUTUAL (TLS with a
client certificate, its common name being the principal). Nothing is allowed without an ACL.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cdc.kafka import KafkaConfig
from cdc.local import LocalKafka
from fix_pipeline import Pipeline, wait_until

ADMIN_DEADLINE_S = 20.0
Door = Callable[[str, dict[str, str]], Pipeline]
_A_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key as PEM files; `both` holds the one behind the other."""

    cert: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates that live for a day; its own one is `ca`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        root = x509.BasicConstraints(ca=True, path_length=0)
        signing = _usage(signs=True)
        made = _begun(self._name, self._name, self._key.public_key())
        made = made.add_extension(root, critical=True).add_extension(signing, critical=True)
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def identity(self, name: str, hosts: tuple[str, ...] = ()) -> Identity:
        """Sign a certificate for `name`; with `hosts`, it may serve them, else it is a client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        side = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        made = _begun(_named(name), self._name, key.public_key())
        made = made.add_extension(x509.ExtendedKeyUsage([side]), critical=False)
        made = made.add_extension(_usage(signs=False), critical=True)
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            made = made.add_extension(names, critical=False)
        cert = _pem(made.sign(self._key, hashes.SHA256()))
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return self._written(name, cert, secret)

    def _written(self, name: str, cert: bytes, key: bytes) -> Identity:
        stem = self._folder / f"{name}-{secrets.token_hex(3)}"
        made = Identity(*(stem.with_suffix(s) for s in (".crt", ".key", ".pem")))
        for path, content in ((made.cert, cert), (made.key, key), (made.both, key + cert)):
            path.touch(mode=0o600)
            path.write_bytes(content)
        return made


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _A_DAY)
        .not_valid_after(now + _A_DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give the authority that everything of the session trusts."""
    return Authority(tmp_path_factory.mktemp("ca"), "Tailrace test authority")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "Somebody else's authority")


@dataclass(frozen=True)
class Acl:
    """One thing a user may do."""

    kind: ResourceType
    name: str
    operation: AclOperation
    prefixed: bool = False


PAGE = Path(__file__).parents[1] / "docker" / "acls.md"
ROW = re.compile(r"^\| (\w+) \| ([a-z ]+) \| `([^`]+)` \| ([\w, ]+) \|", re.MULTILINE)
KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
}


def documented(who: str, *, creates: bool) -> list[tuple[str, str, str]]:
    """(resource, name, operation) of each line of the page for `who`."""
    needed, create = PAGE.read_text().split("## Topics made by Tailrace")
    text = needed + create if creates else needed
    return [
        (kind, name, operation.strip())
        for owner, kind, name, operations in ROW.findall(text)
        if owner == who
        for operation in operations.split(",")
    ]


def as_acl(line: tuple[str, str, str], names: Mapping[str, str]) -> Acl:
    """One line of the page, with `names` for its placeholders."""
    kind, name, operation = line
    for what, called in names.items():
        name = name.replace(f"<{what}>", called)
    exact = name.removesuffix("*")
    return Acl(KINDS[kind], exact, OPERATIONS[operation], prefixed=exact != name)


def acls_of(who: str, names: Mapping[str, str], *, creates: bool) -> list[Acl]:
    """All that the page says of `who`."""
    return [as_acl(line, names) for line in documented(who, creates=creates)]


class SecureKafka:
    """The broker, its users, and the `kafka.client` block of each way in."""

    def __init__(self, broker: LocalKafka, authority: Authority) -> None:
        self.broker = broker
        self._authority = authority
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})

    def add_user(self, name: str) -> str:
        """Make a SCRAM user; its password."""
        password = secrets.token_urlsafe(12)
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(name, info, password.encode())
        for future in self.admin.alter_user_scram_credentials([change]).values():
            future.result(ADMIN_DEADLINE_S)
        return password

    def allow(self, user: str, acls: Iterable[Acl]) -> None:
        """Let `user` do exactly `acls` more."""
        made = [self._binding(user, acl) for acl in acls]
        for future in self.admin.create_acls(made).values():
            future.result(ADMIN_DEADLINE_S)
        wait_until(lambda: set(made) <= set(self._acls_of(user)), "the ACLs are in force")

    def _acls_of(self, user: str) -> list[AclBinding]:
        wanted = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{user}",
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        return list(self.admin.describe_acls(wanted).result(ADMIN_DEADLINE_S))

    def allow_everything(self, user: str) -> None:
        """Let `user` do whatever a worker could want."""
        if self._acls_of(user):
            return
        kinds = (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
        self.allow(user, [Acl(kind, "*", AclOperation.ALL) for kind in kinds])

    def _binding(self, user: str, acl: Acl) -> AclBinding:
        exact = ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL
        who, permission = f"User:{user}", AclPermissionType.ALLOW
        return AclBinding(acl.kind, acl.name, exact, who, "*", acl.operation, permission)

    def login(self, user: str, password: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """Give `kafka.client` for SECURE."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": str(self._authority.ca),
        }

    def certificate(self, identity: Identity) -> dict[str, str]:
        """Give `kafka.client` for MUTUAL."""
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self._authority.ca),
            "ssl.certificate.location": str(identity.cert),
            "ssl.key.location": str(identity.key),
        }


PLAIN_USER, PLAIN_PASSWORD = "plain-worker", "plain-secret"


def _settings(identity: Identity, authority: Authority) -> dict[str, Any]:
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(identity.both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN,OAUTHBEARER",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{scram} required;",
        "listener.name.secure.plain.sasl.jaas.config": f"{plain} required "
        f'user_{PLAIN_USER}="{PLAIN_PASSWORD}";',
        "listener.name.secure.oauthbearer.sasl.jaas.config": f"{oauth} required;",
        "listener.name.mutual.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^CN=([^,]+)$/$1/,DEFAULT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": False,
    }


@pytest.fixture(scope="session")
def secure_kafka(authority: Authority) -> Iterator[SecureKafka]:
    """One broker with SASL_SSL, mutual TLS and ACLs for the whole session."""
    identity = authority.identity("broker", ("127.0.0.1",))
    doors = {"SECURE": "SASL_SSL", "MUTUAL": "SSL"}
    with LocalKafka(settings=_settings(identity, authority), listeners=doors) as broker:
        yield SecureKafka(broker, authority)


@pytest.fixture
def door(registry: Any) -> Iterator[Door]:
    """Make pipelines whose every client comes to an address with a `kafka.client` block."""
    made: list[Pipeline] = []

    def opened(address: str, client: dict[str, str]) -> Pipeline:
        pipeline = Pipeline(address, registry.url)
        block = {"bootstrap": address, "registry": registry.url, "client": client}
        pipeline.kafka = KafkaConfig.model_validate(block)
        made.append(pipeline)
        return pipeline

    yield opened
    for pipeline in made:
        pipeline.registry.close()
