"""Names that are no settings: what Centrifugo has and Hub has not, and what a misspelt one was meant to be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

OTHER_VARIABLES = {"HUB_CONFIG"}
"""Variables with our prefix that are not settings: the path of the settings file."""

_INJECTED = re.compile(
    r"HUB_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO|START|END))?)"
)
_INJECTED_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S*")
_LINKED = re.compile(r"HUB_(\w+_)?(NAME|ENV_\w+)")

YET = "Hub does not have yet"
NEVER = "Hub does not have"

_PROXY_OPTION = r"(subscribe|publish|sub_refresh|subscribe_stream)_proxy_\w+"
_PRO_OPTION = (
    r"cache_empty_proxy_\w+|state_proxy_\w+|state_events|shared_position_sync|(subscribe|publish|history|presence)_cel"
    r"|batch_max_size|batch_max_delay|batch_flush_latest|keep_latest_publication|allow_channel_compaction"
    r"|client_publish_debounce_interval|subscribe_stream_proxy_bidirectional"
)
_MAP_OPTION = r"subscription_types?|map_\w*presence_channel_prefix|map|shared_poll"
_CHANNEL_OPTIONS = r"channel\.(without_namespace|namespaces)\."

CENTRIFUGO: tuple[tuple[str, str, str], ...] = (
    (r"(sse|http_stream|emulation|uni_sse|uni_http_stream|uni_websocket)", YET, ""),
    (r"client\.connect_code_to_unidirectional_disconnect", YET, ""),
    (r"(consumers|admin)", YET, ""),
    (r"http_server\.(internal_address|internal_port|internal_tls|tls_external)", YET, ""),
    (r"http_server\.tls\.(server_ca_pem|client_ca_pem|insecure_skip_verify|server_name)", NEVER, ""),
    (r"http_server\.(tls_autocert|http3)", NEVER, ""),
    (r"http_api\.external", NEVER, "there is one port, and the API needs its key there"),
    (r"shutdown(\.timeout)?", NEVER, "use drain.timeout"),
    (r"(broker|presence_manager)", NEVER, "use engine.type"),
    (r"engine\.redis\.(cluster_address|sentinel_\w+|tls|client_name|force_resp2)", YET, ""),
    (r"websocket\.(read_buffer_size|write_buffer_size|use_write_buffer_pool)", NEVER, ""),
    (r"(websocket|http_api|prometheus|health)\.handler_prefix", NEVER, "its path is fixed"),
    (r"prometheus\.instrument_http_handlers", NEVER, ""),
    (r"node\.info_metrics_aggregate_interval", NEVER, ""),
    (r"(client|channel)\.proxy|proxies|rpc", NEVER, "handlers are Python functions, see the setting app"),
    (_CHANNEL_OPTIONS + f"({_PROXY_OPTION})", NEVER, "handlers are Python functions, see the setting app"),
    (_CHANNEL_OPTIONS + f"({_MAP_OPTION})", NEVER, ""),
    (_CHANNEL_OPTIONS + f"({_PRO_OPTION})", NEVER, ""),
    (r"(webtransport|grpc_api|uni_grpc|map_broker|usage_stats|swagger|debug|dev|init)", NEVER, ""),
    (r"(opentelemetry|graphite|pid_file|enable_unreleased_features)", NEVER, ""),
)
"""(pattern of a path or of what it begins with, how we stand to it, what to do instead)."""

_CENTRIFUGO = tuple((re.compile(rf"(?:{pattern})(?=\.|$)"), state, instead) for pattern, state, instead in CENTRIFUGO)
_INDEX = re.compile(r"\[\d+\]")
_ADDRESS = re.compile(r"^storage\.url$|^tasks\.broker$|^engine\.redis\.address\b|jwks_public_endpoint$")
_SECRET = re.compile(r"secret|password|(^|[._])keys?([._\[]|$)|api_key|token$", re.IGNORECASE)


def injected(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable with our prefix was put there by the platform.

    Kubernetes does so in every pod of a namespace for a Service called ``hub`` or ``hub-…``, and ``docker --link`` for a
    container linked under such a name: ``HUB_PORT=tcp://10.0.0.1:80``, ``HUB_SERVICE_HOST``, ``HUB_PORT_80_TCP`` …
    """
    if _INJECTED.fullmatch(name):
        return True
    if name.endswith("_PORT"):
        return _INJECTED_ADDRESS.fullmatch(environ[name]) is not None
    if linked := _LINKED.fullmatch(name):
        return _INJECTED_ADDRESS.fullmatch(environ.get(f"HUB_{linked[1] or ''}PORT", "")) is not None
    return False


def holds_credentials(path: str) -> bool:
    """Whether the value is an address that may hold a password, so that only its scheme may be shown."""
    return _ADDRESS.search(path) is not None


def sounds_secret(path: str) -> bool:
    """Whether a setting's name suggests that its value must not be shown."""
    return _SECRET.search(path) is not None


def absent(path: str) -> str | None:
    """The sentence for an option that Centrifugo has and Hub has not; ``None`` for any other name."""
    plain = _INDEX.sub("", path)
    for pattern, state, instead in _CENTRIFUGO:
        if pattern.match(plain):
            return f"is a Centrifugo option that {state}{'; ' + instead if instead else ''}."
    return None


def unknown(path: str, source: str, siblings: Sequence[str], known: Sequence[str]) -> str:
    """The sentence for a name in a file (or an object) that is no setting."""
    if reason := absent(path):
        return f"{path} ({source}) {reason}"
    parent, _, name = path.rpartition(".")
    if near := difflib.get_close_matches(name, siblings, 1, 0.7):
        guess = f"{parent}.{near[0]}" if parent else near[0]
    else:
        guess = nearest(_INDEX.sub("", path), known)
    return f"{path} ({source}) is not a setting{_did_you_mean(guess)}"


def unknown_variable(name: str, known: Sequence[str]) -> str:
    """The sentence for an environment variable with our prefix that is no setting."""
    text = name.removeprefix("HUB_").lower()
    for pattern, state, instead in _CENTRIFUGO:
        # Where a path has dots and where it has underscores cannot be told from a variable's name.
        if re.match(pattern.pattern.replace(r"\.", "_"), text):
            return f"{name} is for a Centrifugo option that {state}{'; ' + instead if instead else ''}."
    # Without the prefix, which would make every name resemble every other.
    guess = nearest(name.removeprefix("HUB_"), [variable.removeprefix("HUB_") for variable in known])
    guess = f"HUB_{guess}" if guess else ""
    return f"The environment variable {name} is not a setting{_did_you_mean(guess)}"


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name that looks most like this one, or the only one that ends with it; empty if none does."""
    longer = [candidate for candidate in known if re.search(rf"[._]{re.escape(name)}$", candidate)]
    if len(longer) == 1:
        return longer[0]
    near = difflib.get_close_matches(name, known, 1, 0.6)
    return near[0] if near else ""


def _did_you_mean(guess: str) -> str:
    return f"; did you mean {guess}?" if guess else "."
