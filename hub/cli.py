"""The command line: ``hub serve``, ``token``, ``check`` and ``version``.

Exit codes: 0 done; 1 it could not be done (a port in use, a service out of reach, a token that is not accepted);
2 wrong arguments or settings, told in sentences on standard error.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hub.first_run import FirstRunError, apply, is_demo, prepare_folder
from hub.settings import Settings
from hub.settings_checks import require_private_or_secure, require_sound
from hub.settings_load import Loaded, SettingsError, load
from hub.tls import TlsError, server_context
from hub.version import VERSION

# Argument and the setting that it sets.
_SETTINGS = {
    "host": "http_server.address",
    "port": "http_server.port",
    "data_dir": "data_dir",
    "workers": "workers",
    "app": "app",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        if args.command == "serve":
            return serve(args)
        if args.command == "token":
            from hub.cli_token import token

            return token(args)
        if args.command == "check":
            from hub.cli_check import check

            return check(args)
        print(f"hub {VERSION} (Python {platform.python_version()})")
        return 0
    except SettingsError as error:
        return complain(*error.problems)
    except (FirstRunError, TlsError) as error:
        return complain(str(error))
    except BrokenPipeError:
        # Whoever read our output has had enough; say nothing more when Python flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def serve(args: argparse.Namespace) -> int:
    """Everything before the sockets: settings, secrets, logging; then the server's own run."""
    loaded, config = read_settings(args)
    demo = is_demo(loaded, config)
    require_private_or_secure(loaded, demo=demo)
    server_context(loaded.settings.http_server.tls)
    if needs_data_dir(loaded.settings):
        prepare_folder(loaded.settings.data_dir)
    settings, first_run = apply(loaded, demo=demo)
    from hub import logs
    from hub.server import run  # the slow imports, not needed to refuse bad settings

    try:
        logs.setup(settings.log)
    except OSError as error:
        return complain(f"The log file (log.file) {settings.log.file} cannot be written: {error.strerror or error}.")
    return run(settings, first_run)


def read_settings(args: argparse.Namespace, environ: Mapping[str, str] | None = None) -> tuple[Loaded, Path | None]:
    """The settings that a command's arguments ask for, checked, and their file; raises ``SettingsError``."""
    environ = os.environ if environ is None else environ
    name = args.config or environ.get("HUB_CONFIG", "")
    config = Path(name) if name else None
    given = {
        path: (f"--{argument.replace('_', '-')}", getattr(args, argument))
        for argument, path in _SETTINGS.items()
        if getattr(args, argument, None) is not None
    }
    loaded = load(config, environ, given)
    require_sound(loaded)
    return loaded, config


def needs_data_dir(settings: Settings) -> bool:
    """Whether the hub will write to its data folder: a channel is durable and its database is there."""
    spaces = (settings.channel.without_namespace, *settings.channel.namespaces)
    return not settings.storage.url and any(space.durable for space in spaces)


def complain(*problems: str) -> int:
    """Print sentences to standard error and return the exit code for wrong arguments or settings."""
    for problem in problems:
        print(f"hub: {problem}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hub", description="A real-time event and WebSocket hub.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = _command(commands, "serve", "Run the hub.", "hub serve --config hub.toml --host 0.0.0.0 --port 8000")
    command.add_argument("--host", metavar="H", help="address to listen on (default 127.0.0.1)")
    command.add_argument("--port", metavar="N", help="port to listen on (default 8000)")
    command.add_argument("--workers", metavar="N", help="processes on that port (default 1)")
    command.add_argument("--app", metavar="MODULE:OBJECT", help="your own RPC methods and handlers")

    command = _command(
        commands,
        "token",
        "Make a token, or explain one.",
        "hub token --user 42 --ttl 1h",
        "hub token --user 42 --channel 'chat:#42'",
        "hub token --check eyJhbGciOi…",
    )
    command.add_argument("--user", metavar="ID", default="", help="user id (default: anonymous)")
    command.add_argument("--channel", metavar="NAME", help="make a subscription token for this channel")
    command.add_argument(
        "--ttl", metavar="DURATION", default="1h", help="time it is good for (default 1h); 0s: for ever"
    )
    command.add_argument("--info", metavar="JSON", help="what others see of the user")
    command.add_argument(
        "--claim", metavar="NAME=JSON", action="append", default=[], help="a further claim; may be given several times"
    )
    command.add_argument("--algorithm", metavar="ALG", default="", help="for example HS512 (default: by the key)")
    command.add_argument("--key-file", metavar="FILE", help="sign with this private key (PEM) instead of the settings'")
    command.add_argument("--kid", metavar="ID", default="", help="key id for the header")
    command.add_argument("--check", metavar="TOKEN", help="explain this token (- reads it from standard input)")

    command = _command(
        commands,
        "check",
        "Check the settings, and try what they name: store, key set, certificate, port.",
        "hub check --config hub.toml",
    )
    command.add_argument("--host", metavar="H", help="as for serve")
    command.add_argument("--port", metavar="N", help="as for serve")

    commands.add_parser(
        "version",
        help="Print the version.",
        description="Print the version.",
        epilog="example:\n  hub version",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str, *examples: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog="\n  ".join(("example:" if len(examples) == 1 else "examples:", *examples)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--config", metavar="FILE", help="settings file, .toml or .json (or the variable HUB_CONFIG)")
    command.add_argument("--data-dir", metavar="D", help="folder for what the hub writes (default .hub)")
    return command
