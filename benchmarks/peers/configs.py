"""Configurations of the peers: one worker each, tokens verified, hashed on the user, bounded load, statistics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ISSUER: Final = "fanfold"


def upstream(port_of_each: Sequence[int], folder: str, body_bytes: int) -> str:
    """Nginx as all slots: each answers with its port, the user it was told of, and padding up to ``body_bytes``."""
    shown = '{"slot":"$server_port","user":"$http_x_user_id","pad":"'
    padding = "x" * (body_bytes - 60)
    return _nginx_file(
        folder,
        f"""
        keepalive_requests 100000000;
        server {{
            {" ".join(f"listen 127.0.0.1:{port};" for port in port_of_each)}
            location / {{
                default_type application/json;
                add_header x-slot $server_port;
                add_header x-seen-identity "$http_x_user_id $http_x_fanfold_identity";
                return 200 '{shown}{padding}"}}';
            }}
        }}""",
    )


def nginx(port: int, slots: Sequence[int], folder: str) -> str:
    """Nginx as a proxy: consistent hash on the token, which it does not verify."""
    servers = " ".join(f"server 127.0.0.1:{slot};" for slot in slots)
    return _nginx_file(
        folder,
        f"""
        upstream feed {{ hash $http_authorization consistent; {servers} keepalive 256; keepalive_requests 100000000; }}
        keepalive_requests 100000000;
        server {{
            listen 127.0.0.1:{port};
            location = /status {{ stub_status; }}
            location / {{
                proxy_pass http://feed;
                proxy_http_version 1.1;
                proxy_set_header Connection "";
                proxy_set_header X-Request-Id $request_id;
                proxy_set_header X-Forwarded-For $remote_addr;
                proxy_next_upstream error timeout;
                add_header x-request-id $request_id;
            }}
        }}""",
    )


def _nginx_file(folder: str, http: str) -> str:
    paths = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
    worker_processes 1;
    daemon off;
    pid {folder}/pid;
    error_log stderr warn;
    events {{ worker_connections 4096; }}
    http {{
        access_log off;
        {paths}
        {http}
    }}
    """


def haproxy(port: int, statistics: int, slots: Sequence[int], secret: str) -> str:
    """HAProxy: HS256, the quickest of the signatures it knows, verified on each request, and the token's end."""
    servers = "\n".join(f"    server s{slot} 127.0.0.1:{slot} check inter 5s" for slot in slots)
    return f"""
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 1s
    timeout client 75s
    timeout server 10s
    timeout http-request 10s
    option forwardfor
    option redispatch
    retries 2
    retry-on conn-failure
frontend entry
    bind 127.0.0.1:{port}
    unique-id-format %{{+X}}o%ci%cp%Ts%rt%pid
    unique-id-header X-Request-Id
    http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')
    http-request set-var(txn.iss) http_auth_bearer,jwt_payload_query('$.iss')
    http-request set-var(txn.exp) http_auth_bearer,jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str HS256 }}
    http-request deny deny_status 401 unless {{ var(txn.iss) -m str {ISSUER} }}
    http-request deny deny_status 401 unless {{ http_auth_bearer,jwt_verify(txn.alg,"{secret}") 1 }}
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request set-header x-user-id %[http_auth_bearer,jwt_payload_query('$.sub')]
    http-request del-header authorization
    default_backend feed
frontend statistics
    bind 127.0.0.1:{statistics}
    stats enable
    stats uri /
backend feed
    balance hdr(x-user-id)
    hash-type consistent djb2 avalanche
    hash-balance-factor 125
    http-reuse always
{servers}
"""


def envoy(port: int, admin: int, slots: Sequence[int], jwks: str, cache: int) -> str:
    """Envoy: jwt_authn with its cache of verified tokens, ring hash on the user claim, budgets and outliers."""
    provider = {
        "issuer": ISSUER,
        "local_jwks": {"inline_string": jwks},
        "claim_to_headers": [{"claim_name": "sub", "header_name": "x-user-id"}],
        "jwt_cache_config": {"jwt_cache_size": cache},
    }
    authn = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"fanfold": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "fanfold"}}],
    }
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    route = {
        "match": {"prefix": "/"},
        "route": {
            "cluster": "feed",
            "timeout": "10s",
            "hash_policy": [{"header": {"header_name": "x-user-id"}}],
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
    }
    manager = {
        "@type": (
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": "entry",
        "use_remote_address": True,
        "always_set_request_id_in_response": True,
        "common_http_protocol_options": {"idle_timeout": "75s"},
        "request_headers_timeout": "10s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.jwt_authn", "typed_config": authn},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    cluster = {
        "name": "feed",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 160 * len(slots)},
        "common_lb_config": {"consistent_hashing_lb_config": {"hash_balance_factor": 125}},
        "outlier_detection": {},
        "circuit_breakers": {"thresholds": [{"retry_budget": {"budget_percent": {"value": 20}}}]},
        "load_assignment": {
            "cluster_name": "feed",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(slot)}} for slot in slots]}],
        },
    }
    listener = {
        "name": "entry",
        "address": _address(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    document: dict[str, Any] = {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }
    return json.dumps(document)


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
