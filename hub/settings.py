"""Every setting of the hub, with its default and meaning.

Names and nesting are Centrifugo v6's for what it has too; our own stand beside them. The literal below a field is its
documentation (``docs/settings.md`` is made of them). ``hub.settings_load`` fills this tree from a file and the
environment, ``hub.settings_checks`` says which combinations make no sense.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from auth.ratelimit import RateLimitSettings
from auth.secret import Secret
from auth.settings import SubscriptionTokenSettings, TokenSettings
from channels.namespaces import ChannelSettings
from hub.settings_values import Between

Count = Annotated[int, Between(0, None)]
Positive = Annotated[int, Between(1, None)]
Duration = Annotated[timedelta, Between(timedelta(0), None)]
Delay = Annotated[timedelta, Between(timedelta(milliseconds=1), None)]


def in_seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS of the listening socket."""

    enabled: bool = False
    """Serve HTTPS and WSS."""
    cert_pem: str = ""
    """The certificate chain: a PEM file's path, or PEM text, plain or in base64."""
    key_pem: Secret = Secret("")
    """The private key, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServerSettings:
    """Where the hub listens."""

    address: str = "127.0.0.1"
    """Address or host name to listen on; `0.0.0.0` or `::` for all interfaces."""
    port: Annotated[int, Between(0, 65535)] = 8000
    """Port to listen on; 0 lets the system choose one."""
    tls: TlsSettings = field(default_factory=TlsSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalChannelSettings:
    """A channel of each user's own, to which the server subscribes every connection of that user."""

    enabled: bool = False
    """Subscribe each connection that has a user to that user's personal channel."""
    personal_channel_namespace: str = ""
    """Namespace of personal channels; empty means channels without a namespace."""
    single_connection: bool = False
    """Disconnect the user's earlier connections when a new one comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Client connections: who may connect, and what one connection may use."""

    token: TokenSettings = field(default_factory=TokenSettings)
    subscription_token: SubscriptionTokenSettings = field(default_factory=SubscriptionTokenSettings)
    allowed_origins: tuple[str, ...] = ()
    """Origins whose pages may connect, `*` standing for any part; empty means no page at all."""
    allow_anonymous_connect_without_token: bool = False
    """Let clients connect without a token, as users with an empty id."""
    disallow_anonymous_connection_tokens: bool = False
    """Refuse connection tokens with an empty user id."""
    insecure: bool = False
    """Skip tokens and permissions altogether. For development only."""
    insecure_skip_token_signature_verify: bool = False
    """Believe tokens without checking their signature. For development only."""
    user_id_http_header: str = ""
    """Take the user id from this header, which a trusted proxy sets on every request."""
    ping_interval: Duration = in_seconds(25)
    """Time between pings to a client; `0s` sends none."""
    pong_timeout: Duration = in_seconds(8)
    """Time a client has to answer a ping, less than `ping_interval`; `0s` does not check."""
    stale_close_delay: Delay = in_seconds(10)
    """Time a new connection has to send its connect command."""
    expired_close_delay: Duration = in_seconds(25)
    """Time a client has to refresh an expired connection token before it is disconnected."""
    expired_sub_close_delay: Duration = in_seconds(25)
    """Time a client has to refresh an expired subscription token before it is unsubscribed."""
    channel_limit: Positive = 128
    """Subscriptions that one connection may have."""
    queue_max_size: Annotated[int, Between(1024, None)] = 1_048_576
    """Bytes that may wait for a client that reads slowly; beyond that it is disconnected with 3008."""
    presence_update_interval: Delay = in_seconds(27)
    """Time between renewals of a client's presence entries, which live for 60 s."""
    concurrency: Count = 0
    """Commands of one client handled at a time; only 0 and 1 (one after the other, in order) are offered."""
    channel_position_check_delay: Delay = in_seconds(40)
    """Time between comparisons of a subscriber's position with the channel's history."""
    channel_position_max_time_lag: Duration = in_seconds(0)
    """A position older than this by a publication's time is taken as lost; `0s` switches this off."""
    connection_limit: Count = 0
    """Connections of the whole node; 0 means no limit."""
    user_connection_limit: Count = 0
    """Connections of one user on this node; 0 means no limit."""
    connection_rate_limit: Count = 0
    """Connections accepted by the node per second; 0 means no limit."""
    history_max_publication_limit: Count = 300
    """Most publications that a client's history command returns; 0 means no limit."""
    recovery_max_publication_limit: Count = 300
    """Most publications in the reply of a recovering subscribe; durable channels send the rest later. 0: no limit."""
    connect_include_server_time: bool = False
    """Put the server's time (milliseconds) into the connect reply."""
    subscribe_to_user_personal_channel: PersonalChannelSettings = field(default_factory=PersonalChannelSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpApiSettings:
    """The server API under `/api`."""

    disabled: bool = False
    """Do not offer the server API."""
    key: Secret = Secret("")
    """The key that a backend sends in `X-API-Key`."""
    keys: tuple[Secret, ...] = ()
    """Further keys that are accepted as well, so that a key can be changed without a gap."""
    error_mode: Literal["", "transport"] = ""
    """With `transport`, errors come as HTTP statuses instead of `{"error": …}` with status 200."""
    insecure: bool = False
    """Take commands without a key. For development only."""
    body_size_limit: Annotated[int, Between(1024, None)] = 16_777_216
    """Bytes of the largest request body; a larger one is answered with 413."""
    history_max_bytes: Annotated[int, Between(1024, None)] = 67_108_864
    """Bytes of payload in one page of `history`; a page with more ends early, to be continued from its last offset."""
    body_timeout: Delay = in_seconds(30)
    """Time a request's body may take to arrive; a slower one is answered with 408."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketSettings:
    """The WebSocket transport at `/connection/websocket`."""

    disabled: bool = False
    """Do not offer this transport."""
    compression: bool = False
    """Offer permessage-deflate. It saves bytes and costs processor time and some 40 KB of memory per connection."""
    compression_min_size: Count = 0
    """Messages of fewer bytes are sent uncompressed."""
    compression_level: Annotated[int, Between(1, 9)] = 1
    """1 (fast) to 9 (small)."""
    message_size_limit: Annotated[int, Between(128, None)] = 65_536
    """Bytes of the largest message taken from a client; a larger one closes the connection with 1009."""
    write_timeout: Delay = in_seconds(1)
    """Time for which a client may take nothing while something waits for it; then its socket is aborted."""
    max_commands_per_frame: Positive = 1000
    """Commands in one frame."""
    max_fragments: Positive = 128
    """Frames that one message may come in."""
    ping_flood_limit: Positive = 20
    """Control frames (ping, pong) taken from a client per second."""
    handshake_timeout: Delay = in_seconds(10)
    """Time a client has to send the whole opening request."""
    max_pending_handshakes: Positive = 10_000
    """Connections whose request may be incomplete at a time; when one more comes, the longest waiting one is closed."""
    max_header_size: Annotated[int, Between(1024, None)] = 16_384
    """Bytes of the opening request's headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Redis, when `engine.type` is `redis`."""

    address: tuple[str, ...] = ("redis://127.0.0.1:6379",)
    """Where Redis is."""
    prefix: str = "hub"
    """Put before all keys and channels in Redis, so that several hubs can share it."""
    user: str = ""
    """User name."""
    password: Secret = Secret("")
    """Password."""
    db: Count = 0
    """Number of the database."""
    connect_timeout: Delay = in_seconds(1)
    """Time for connecting."""
    io_timeout: Delay = in_seconds(4)
    """Time for one command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """Bounds of the embedded engine."""

    max_streams: Positive = 250_000
    """Channels that may have recent history at a time; publishing into a further one gets error 100."""
    max_bytes: Annotated[int, Between(1024, None)] = 1_073_741_824
    """Bytes of recent history kept at a time; a publication that has no room gets error 100."""
    max_idempotency_keys: Positive = 1_000_000
    """Idempotency keys remembered at a time; a publish with a further one gets error 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What carries publications between nodes and keeps recent history and presence."""

    memory: MemorySettings = field(default_factory=MemorySettings)
    type: Literal["memory", "redis"] = "memory"
    """`memory` for one node; `redis` for several."""
    redis: RedisSettings = field(default_factory=RedisSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where durable history is kept."""

    url: str = ""
    """`sqlite:///relative.sqlite3` or `sqlite:////absolute.sqlite3`; empty means `hub.sqlite3` in `data_dir`."""
    queue_max: Positive = 10_000
    """Publications that may wait for their commit; more get a temporary error at once."""
    commit_timeout: Delay = in_seconds(10)
    """Time a publisher waits for the commit before it gets a temporary error."""
    prune_interval: Delay = in_seconds(60)
    """Time between two applications of retention."""

    def path(self, data_dir: Path) -> Path:
        """The SQLite file; a relative one is taken from the working directory."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url else data_dir / "hub.sqlite3"


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksSettings:
    """Slow work."""

    broker: str = "embedded"
    """`embedded` runs tasks in this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSettings:
    """How a node leaves on SIGTERM."""

    window: Duration = in_seconds(10)
    """Time over which connections are told to reconnect elsewhere, at least 1,000 of them a second."""
    timeout: Delay = in_seconds(30)
    """Time after which the process ends whatever is still open; more than `window`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSettings:
    """Metrics at `/metrics`."""

    enabled: bool = True
    """Serve metrics in Prometheus's format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """Probes at `/health` and `/ready`."""

    enabled: bool = True
    """Serve the probes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What the hub writes about itself."""

    level: Literal["trace", "debug", "info", "warn", "error", "none"] = "info"
    """The least serious level that is written."""
    format: Literal["human", "json"] = "human"
    """Lines for people, or one JSON object a line."""
    file: str = ""
    """File to append to; empty means standard error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """This process among others."""

    name: str = ""
    """Name shown in `info` and metrics; empty means host name and port."""
    fanout_backlog: Annotated[int, Between(1024, None)] = 16_777_216
    """Bytes of payload that may wait in one channel to be written to its subscribers; beyond it publishers wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings."""

    http_server: HttpServerSettings = field(default_factory=HttpServerSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    channel: ChannelSettings = field(default_factory=ChannelSettings)
    http_api: HttpApiSettings = field(default_factory=HttpApiSettings)
    websocket: WebSocketSettings = field(default_factory=WebSocketSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    tasks: TasksSettings = field(default_factory=TasksSettings)
    rate_limit: RateLimitSettings = field(default_factory=RateLimitSettings)
    drain: DrainSettings = field(default_factory=DrainSettings)
    prometheus: PrometheusSettings = field(default_factory=PrometheusSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    log: LogSettings = field(default_factory=LogSettings)
    node: NodeSettings = field(default_factory=NodeSettings)
    workers: Positive = 1
    """Processes on one port; more than one needs `engine.type = "redis"`."""
    data_dir: Path = Path(".hub")
    """Folder for what the hub itself writes: its database, and the secrets of a start without settings."""
    app: str = ""
    """`package.module:object` with RPC methods and handlers of your own."""
