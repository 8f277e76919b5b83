"""Authentication by token and by certificate, and headers that responses must or must not have."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from model_name.serving.assembly import TOKEN_ENV
from model_name.serving.rest.listener import Listener
from model_name.serving.runtime.tls import TlsConfig
from tests.support.server_processes import free_ports
from tests.support.sockets import connect, seconds_until_closed

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

NAME = "regression"
PREDICT, INFER = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
OPEN = ["/metrics", "/v2/health/live", "/v2/health/ready", f"/v1/models/{NAME}", f"/v2/models/{NAME}/ready"]
GUARDED = [
    *[("GET", path) for path in ("/", "/openapi.json", "/v1/models", "/v2", f"/v2/models/{NAME}", "/nowhere")],
    ("GET", f"/v2/models/{NAME}/versions/7"),
    *[("POST", path) for path in (PREDICT, INFER, f"/v1/models/{NAME}:explain", "/v1/models/other:predict")],
    ("POST", f"/v2/models/{NAME}/versions/7/infer"),
    ("POST", f"/v2/repository/models/{NAME}/unload"),
    ("PUT", PREDICT),
    ("OPTIONS", INFER),
]
SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
OPEN_CALLS = {
    "ServerLive": pb.ServerLiveRequest(),
    "ServerReady": pb.ServerReadyRequest(),
    "ModelReady": pb.ModelReadyRequest(name=NAME),
}
GUARDED_CALLS = {
    "ServerMetadata": pb.ServerMetadataRequest(),
    "ModelMetadata": pb.ModelMetadataRequest(name=NAME),
    "ModelInfer": pb.ModelInferRequest(model_name=NAME),
    "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name=NAME),
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name=NAME),
}

Code = grpc.StatusCode


def call(channel: grpc.Channel, method: str, request: Any, **metadata: str) -> tuple[Code, str, tuple[str, ...]]:
    """Call a method; return the status, the reason and the metadata of the response."""
    stub = getattr(GRPCInferenceServiceStub(channel), method)
    try:
        _, done = stub.with_call(request, timeout=30, metadata=[*metadata.items()])
    except grpc.RpcError as err:
        return err.code(), err.details(), tuple(map(str, [*err.initial_metadata(), *err.trailing_metadata()]))
    return Code.OK, "", tuple(map(str, [*done.initial_metadata(), *done.trailing_metadata()]))


@pytest.fixture(scope="module")
def token_server(bundles: dict[str, Bundle], start_server: StartServer, serving_env: dict[str, str]) -> Server:
    """Start a server that requires a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serving_env, TOKEN_ENV, "s3cret")
        return start_server(bundles[NAME].directory, NAME).wait()


# The token


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_metrics_need_no_token(token_server: Server, path: str) -> None:
    assert token_server.client.get(path).status_code == 200


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param({}, id="none"),
        pytest.param({"authorization": "Bearer wrong"}, id="a wrong token"),
        pytest.param({"authorization": "Basic s3cret"}, id="another scheme"),
        pytest.param({"authorization": "Bearer s3cret2"}, id="a longer token"),
        pytest.param({"authorization": "Bearer s3cre"}, id="a shorter token"),
        pytest.param({"authorization": "Bearer"}, id="the scheme alone"),
        pytest.param({"authorization": b"Bearer s\xf63cret"}, id="a token that is not ASCII"),
        pytest.param({"x-authorization": "Bearer s3cret"}, id="in another header"),
    ],
)
@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_other_routes_are_refused_without_the_token(
    token_server: Server, method: str, path: str, credentials: dict[str, str | bytes]
) -> None:
    response = token_server.client.request(
        method, path, headers=credentials, content=b"{}" if method == "POST" else None
    )
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json() == {"error": "this server wants a token: Authorization: Bearer TOKEN"}
    assert response.headers.items() >= SECURITY.items()


@pytest.mark.parametrize("credentials", ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret"])
def test_a_valid_token_is_accepted(token_server: Server, rows: list[Row], credentials: str) -> None:
    headers = {"authorization": credentials}
    assert token_server.client.post(PREDICT, json={"instances": rows}, headers=headers).status_code == 200
    for path in ("/", "/openapi.json", "/v1/models", f"/v2/models/{NAME}"):
        assert token_server.client.get(path, headers=headers).status_code == 200


def test_grpc_requires_the_token(token_server: Server) -> None:
    with grpc.insecure_channel(token_server.grpc_url) as channel:
        for method, request in OPEN_CALLS.items():
            assert call(channel, method, request)[0] == Code.OK
        for method, request in GUARDED_CALLS.items():
            assert call(channel, method, request)[0] == Code.UNAUTHENTICATED
            assert call(channel, method, request, authorization="Bearer wrong")[0] == Code.UNAUTHENTICATED
            code = call(channel, method, request, authorization="Bearer s3cret")[0]
            assert code == {"ModelInfer": Code.INVALID_ARGUMENT}.get(
                method, Code.UNIMPLEMENTED if "Repository" in method else Code.OK
            )


def test_reflection_requires_the_token(token_server: Server) -> None:
    with grpc.insecure_channel(token_server.grpc_url) as channel:
        describe = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as caught:
            list(describe(iter([b""]), timeout=30))
    assert caught.value.code() == Code.UNAUTHENTICATED


# Headers of responses


def test_no_response_echoes_a_header_and_all_have_security_headers(servers: dict[str, Server]) -> None:
    server = servers[NAME]
    headers = {"x-secret": "geheim", "cookie": "geheim=1", "host": "geheim.example", "user-agent": "geheim"}
    slashes = [(method, f"{path}/") for method, path in GUARDED if path != "/"]
    for method, path in [*GUARDED, *slashes, *[("GET", path) for path in OPEN], ("GET", "//v1//models"), ("HEAD", "/")]:
        for body in (b"{}", b"\xff"):
            response = server.client.request(method, path, headers=headers, content=body)
            assert response.status_code < 500 or response.status_code == 501, (method, path)
            assert "geheim" not in str(response.headers) + response.text, (method, path)
            assert response.headers.items() >= SECURITY.items(), (method, path)
            assert "server" not in response.headers
            if response.status_code >= 400:
                assert [*response.json()] == ["error"], (method, path)


def test_grpc_echoes_no_metadata(servers: dict[str, Server]) -> None:
    with grpc.insecure_channel(servers[NAME].grpc_url) as channel:
        for method, request in (OPEN_CALLS | GUARDED_CALLS).items():
            assert "geheim" not in str(call(channel, method, request, **{"x-secret": "geheim"}))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param(f"/v2/models/{NAME}/versions/7", 200, id="the served version"),
        pytest.param(f"/v2/models/{NAME}/versions/7/ready", 200, id="readiness of the served version"),
        pytest.param(f"/v2/models/{NAME}/versions/8", 404, id="another version"),
        pytest.param(f"/v2/models/{NAME}/versions/8/ready", 404, id="the readiness of another version"),
        pytest.param("/v2/models/other/versions/7", 404, id="another model"),
        pytest.param("/v3/models", 404, id="another protocol"),
        pytest.param("/v1/models/", 404, id="a trailing slash"),
        pytest.param("/docs", 404, id="no pages of a framework"),
    ],
)
def test_a_path_has_its_status(servers: dict[str, Server], path: str, status: int) -> None:
    response = servers[NAME].client.get(path)
    assert response.status_code == status
    assert status == 200 or response.json()["error"]


# The repository


def test_an_enabled_model_repository_unloads_and_loads(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    server = start_server(bundles[NAME].directory, NAME, "--model_repository", "true").wait()
    body = {"instances": rows}
    expected = server.client.post(PREDICT, json=body).json()
    with grpc.insecure_channel(server.grpc_url) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING

        def by_rest(change: str) -> None:
            response = server.client.post(f"/v2/repository/models/{NAME}/{change}")
            assert (response.status_code, response.json()) == (200, {"name": NAME, change: True})

        def by_grpc(change: str) -> None:
            name = f"RepositoryModel{change.capitalize()}"
            assert call(channel, name, getattr(pb, f"{name}Request")(model_name=NAME))[0] == Code.OK

        for unload, load in ((by_rest, by_grpc), (by_grpc, by_rest)):
            # When the model is unloaded, then requests are refused and probes fail
            unload("unload")
            refused = server.client.post(PREDICT, json=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json() == {"error": f"{NAME} was unloaded; load it to have it answer"}
            assert call(channel, "ModelInfer", GUARDED_CALLS["ModelInfer"])[0] == Code.UNAVAILABLE
            for path in ("/v2/health/ready", f"/v1/models/{NAME}", f"/v2/models/{NAME}/ready"):
                assert server.client.get(path).status_code == 503
            assert server.client.get("/v2/health/live").status_code == 200
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert server.client.post("/v2/repository/index").json()[0]["state"] == "UNAVAILABLE"
            assert server.client.post("/v2/repository/index", json={"ready": True}).json() == []
            # When the model is loaded, then it predicts as before
            load("load")
            assert server.client.post(PREDICT, json=body).json() == expected
            assert server.client.get("/v2/health/ready").status_code == 200
            assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        for change in ("load", "unload"):
            assert server.client.post(f"/v2/repository/models/other/{change}").status_code == 404
            name = f"RepositoryModel{change.capitalize()}"
            assert call(channel, name, getattr(pb, f"{name}Request")(model_name="other"))[0] == Code.NOT_FOUND
        watched.cancel()


# Pages


@pytest.mark.parametrize(
    ("credentials", "status", "parts", "missing"),
    [
        pytest.param({}, 200, ['id="token"', "<form"], ["district", "1.2.3"], id="a browser without a token"),
        pytest.param({"authorization": "Bearer wrong"}, 401, ["wants a token"], ["<form"], id="a wrong token"),
        pytest.param({"authorization": "Bearer s3cret"}, 200, ['id="token"', "district", "1.2.3"], [], id="the token"),
    ],
)
def test_the_page_opens_without_a_token_and_shows_the_model_with_it(
    token_server: Server, credentials: dict[str, str], status: int, parts: list[str], missing: list[str]
) -> None:
    response = token_server.client.get("/", headers={"accept": "text/html,*/*;q=0.8"} | credentials)
    assert response.status_code == status
    assert [part for part in parts if part not in response.text] == []
    assert [part for part in missing if part in response.text] == []
    assert response.headers.items() >= SECURITY.items()
    if status == 200:
        nonce = re.search(r"script-src 'nonce-([^']+)'", response.headers["content-security-policy"])
        assert nonce
        assert f'<script nonce="{nonce[1]}">' in response.text


def test_swagger_ui_opens_without_a_token_and_sends_it(
    bundles: dict[str, Bundle], start_server: StartServer, serving_env: dict[str, str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serving_env, TOKEN_ENV, "s3cret")
        server = start_server(bundles[NAME].directory, NAME, "--enable_docs_url", "true").wait()
    response = server.client.get("/docs")
    assert response.status_code == 200
    assert "requestInterceptor" in response.text
    assert "district" not in response.text
    assert server.client.get("/openapi.json").status_code == 401


# Swagger UI


def test_swagger_ui_is_shown_where_it_is_enabled(bundles: dict[str, Bundle], start_server: StartServer) -> None:
    server = start_server(bundles[NAME].directory, NAME, "--enable_docs_url", "true").wait()
    response = server.client.get("/docs")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "url: '/openapi.json'" in response.text
    assert response.headers.items() >= SECURITY.items()


# Certificates


class Authority:
    """Certificate authority."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, is_authority=True)
        self.file = self._write(f"{name}.pem", self.certificate)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Issue a certificate; return its file and that of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._write(f"{self.name}-{name}.pem", self._sign(name, key, is_authority=False))
        private = self.directory / f"{self.name}-{name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        file = self.directory / name
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return file


@pytest.fixture(scope="module")
def make_authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Authority]:
    """Return a factory of certificate authorities."""
    directory = tmp_path_factory.mktemp("certificates")
    return lambda name: Authority(directory, name)


@pytest.fixture(scope="module")
def authority(make_authority: Callable[[str], Authority]) -> Authority:
    """Make the authority that the server and its clients trust."""
    return make_authority("ours")


@pytest.fixture(scope="module")
def mtls_server(bundles: dict[str, Bundle], start_server: StartServer, authority: Authority) -> Server:
    """Start a server that requires client certificates."""
    certificate, key = authority.issue("server")
    files = ["--ssl_certfile", str(certificate), "--ssl_keyfile", str(key), "--ssl_client_ca", str(authority.file)]
    server = start_server(bundles[NAME].directory, NAME, *files, "--header_seconds", "1")
    own = authority.issue("tester")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(*own)
    server.client = httpx.Client(base_url=f"https://127.0.0.1:{server.http_port}", verify=context, timeout=60)
    return server.wait()


@contextmanager
def secure_channel(server: Server, authority: Authority, pair: tuple[Path, Path] | None) -> Iterator[grpc.Channel]:
    """Open a channel with or without a client certificate."""
    certificate, key = (file.read_bytes() for file in pair) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), key, certificate)
    with grpc.secure_channel(
        f"localhost:{server.grpc_port}", credentials, [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        yield channel


def test_a_client_with_a_certificate_is_accepted(mtls_server: Server, authority: Authority, rows: list[Row]) -> None:
    assert mtls_server.client.post(PREDICT, json={"instances": rows}).status_code == 200
    with secure_channel(mtls_server, authority, authority.issue("client")) as channel:
        assert call(channel, "ModelMetadata", GUARDED_CALLS["ModelMetadata"])[0] == Code.OK


@pytest.mark.parametrize("issuer", [None, "theirs"], ids=["without", "of another authority"])
def test_a_client_without_a_valid_certificate_is_refused(
    mtls_server: Server, authority: Authority, make_authority: Callable[[str], Authority], issuer: str | None
) -> None:
    pair = None if issuer is None else make_authority(issuer).issue("client")
    context = ssl.create_default_context(cafile=str(authority.file))
    if pair:
        context.load_cert_chain(*pair)
    with (
        httpx.Client(base_url=f"https://127.0.0.1:{mtls_server.http_port}", verify=context) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/v2/health/live")
    with secure_channel(mtls_server, authority, pair) as channel:
        assert call(channel, "ServerLive", OPEN_CALLS["ServerLive"])[0] == Code.UNAVAILABLE


def test_a_replaced_certificate_is_reloaded(
    bundles: dict[str, Bundle], start_server: StartServer, authority: Authority
) -> None:
    # given
    certificate, key = authority.issue("rotated")
    server = start_server(bundles[NAME].directory, NAME, "--ssl_certfile", str(certificate), "--ssl_keyfile", str(key))
    context = ssl.create_default_context(cafile=str(authority.file))
    server.client = httpx.Client(base_url=f"https://127.0.0.1:{server.http_port}", verify=context, timeout=60)
    server.wait()
    with secure_channel(server, authority, None) as channel:
        assert call(channel, "ServerLive", OPEN_CALLS["ServerLive"])[0] == Code.OK
        before = served_certificates(server)
        assert before == {certificate.read_text(encoding="ascii")}
        # when a key without its certificate is written first
        new_certificate, new_key = authority.issue("next")
        new_key.replace(key)
        wait_for_log(server, "the TLS certificate is not reloaded: ")
        assert served_certificates(server) == before
        # and then a file that is no certificate
        (new_certificate.parent / "broken.pem").write_text("broken", encoding="ascii")
        (new_certificate.parent / "broken.pem").replace(certificate)
        wait_for_log(server, "the TLS certificate is not reloaded: ", times=2)
        assert served_certificates(server) == before
        new_certificate.replace(certificate)
        wait_for_log(server, "the TLS certificate is reloaded")
        # then new connections of both protocols get it, and open ones are kept
        assert served_certificates(server) == {certificate.read_text(encoding="ascii")} != before
        assert server.client.get("/v2/health/live").status_code == 200
        assert call(channel, "ServerLive", OPEN_CALLS["ServerLive"])[0] == Code.OK


def test_a_replaced_authority_of_clients_is_reloaded(
    bundles: dict[str, Bundle], start_server: StartServer, make_authority: Callable[[str], Authority]
) -> None:
    # given a server that trusts the clients of one authority
    old, new = make_authority("old"), make_authority("new")
    trusted = old.directory / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    certificate, key = old.issue("server")
    files = [
        "--ssl_certfile",
        str(certificate),
        "--ssl_keyfile",
        str(key),
        "--ssl_client_ca",
        str(trusted),
        "--drain_seconds",
        "0",
    ]
    server = start_server(bundles[NAME].directory, NAME, *files)
    clients = {authority.name: authority.issue("client") for authority in (old, new)}

    def accepted() -> dict[str, tuple[bool, bool]]:
        return {
            name: (is_accepted_by_rest(server, old, pair), is_accepted_by_grpc(server, old, pair))
            for name, pair in clients.items()
        }

    server.client = httpx.Client(
        base_url=f"https://127.0.0.1:{server.http_port}", verify=client_context(old, clients["old"])
    )
    server.wait()
    assert accepted() == {"old": (True, True), "new": (False, False)}
    # when
    new.file.replace(trusted)
    wait_for_log(server, "the TLS certificate is reloaded")
    # then
    assert accepted() == {"old": (False, False), "new": (True, True)}


def client_context(authority: Authority, pair: tuple[Path, Path]) -> ssl.SSLContext:
    """Make the TLS configuration of a client with a certificate that trusts the servers of an authority."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(*pair)
    return context


def is_accepted_by_rest(server: Server, authority: Authority, pair: tuple[Path, Path]) -> bool:
    """Return whether a new connection with a client certificate is accepted."""
    try:
        httpx.get(f"https://127.0.0.1:{server.http_port}/v2/health/live", verify=client_context(authority, pair))
    except httpx.TransportError:
        return False
    return True


def is_accepted_by_grpc(server: Server, authority: Authority, pair: tuple[Path, Path]) -> bool:
    """Return whether a new connection with a client certificate is accepted."""
    with secure_channel(server, authority, pair) as channel:
        return call(channel, "ServerLive", OPEN_CALLS["ServerLive"])[0] == Code.OK


def served_certificates(server: Server) -> set[str]:
    """Return the certificates that new connections of REST and gRPC get."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])  # which gRPC requires
    certificates = set()
    for port in (server.http_port, server.grpc_port):
        with connect(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as secured:
            certificates.add(ssl.DER_cert_to_PEM_cert(secured.getpeercert(binary_form=True) or b""))
    return certificates


def wait_for_log(server: Server, text: str, times: int = 1) -> None:
    """Wait until a server has logged a text a number of times."""
    deadline = time.monotonic() + 20
    while server.output().count(text) < times:
        assert time.monotonic() < deadline, f"not logged: {text}"
        time.sleep(0.05)


def test_a_client_in_plain_text_is_refused(mtls_server: Server) -> None:
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{mtls_server.http_port}") as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/v2/health/live")
    with grpc.insecure_channel(mtls_server.grpc_url) as channel:
        assert call(channel, "ServerLive", OPEN_CALLS["ServerLive"])[0] == Code.UNAVAILABLE


def test_a_missing_handshake_times_out(mtls_server: Server) -> None:
    with connect(mtls_server.http_port) as connection:
        assert seconds_until_closed(connection) < 6


def test_servers_survive_invalid_clients(mtls_server: Server, token_server: Server) -> None:
    for server in (mtls_server, token_server):
        assert server.client.get("/v2/health/live").json() == {"live": True}
        assert "Traceback" not in server.output()


class GreetingProtocol(asyncio.Protocol):
    """Protocol that sends a greeting after the handshake, and closes the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


def test_a_client_that_is_silent_in_its_handshake_delays_no_other_at_the_shutdown(authority: Authority) -> None:
    async def scenario() -> bytes:
        [port] = free_ports(1)
        listener = Listener("127.0.0.1", port, 16)
        await listener.start(GreetingProtocol, TlsConfig(*authority.issue("drained")).ssl_context(), 60)
        # Given connections that only the kernel has accepted, of which the first is silent
        silent, other = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
        # when
        draining = asyncio.create_task(listener.drain())
        other.setblocking(False)  # noqa: FBT003  its only argument
        context = ssl.create_default_context(cafile=str(authority.file))
        reader, writer = await asyncio.open_connection(sock=other, ssl=context, server_hostname="localhost")
        # then
        greeting = await reader.read()
        assert not draining.done()
        silent.close()
        writer.close()
        await draining
        return greeting

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == b"hello"
