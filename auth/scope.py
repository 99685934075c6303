"""For whom and by whom a token was made: the ``aud`` and ``iss`` rules, and the JWKS address they choose.

The address of a key set may depend on who issued a token (``https://idp.example/{{tenant}}/keys``). That value is read
*before* a signature could be checked, so a stranger chooses it. Therefore a group used in the address has to be a plain
list of values (``(?P<tenant>blue|green)``); anything wider would let a forged token name the place to fetch its own key
from (that was CVE-2026-32301 elsewhere). And keys are looked up per resolved address, never by key id alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from auth.errors import BadSetting, TokenInvalid
from auth.settings import TokenSettings

MAX_VALUE: Final = 1024  # characters of iss or of one aud value; bounds the work of a regular expression
MAX_AUDIENCES: Final = 32

_PLACEHOLDER: Final = re.compile(r"\{\{(.*?)\}\}")
_LIST_OF_VALUES: Final = re.compile(r"(?:[A-Za-z0-9_~:/@-]|\\[.:/@-])+(?:\|(?:[A-Za-z0-9_~:/@-]|\\[.:/@-])+)*")


class Scope:
    """The audience, issuer and JWKS address rules of one settings section.

    Raises BadSetting for expressions that do not compile, rules that exclude each other, and an address that is not
    http(s), names unknown groups, or (unless switched off) could be steered by a forged token.
    """

    __slots__ = ("_audience", "_audience_regex", "_endpoint", "_issuer", "_issuer_regex", "_placeholders")

    def __init__(self, settings: TokenSettings, *, prefix: str = "client.token") -> None:
        for name in ("audience", "issuer"):
            if getattr(settings, name) and getattr(settings, f"{name}_regex"):
                raise BadSetting(f"{prefix}.{name}_regex", f"cannot be used together with {prefix}.{name}; remove one.")
        self._audience = settings.audience
        self._issuer = settings.issuer
        self._audience_regex = _compile(settings.audience_regex, f"{prefix}.audience_regex")
        self._issuer_regex = _compile(settings.issuer_regex, f"{prefix}.issuer_regex")
        self._endpoint = settings.jwks_public_endpoint
        self._placeholders = tuple(dict.fromkeys(_PLACEHOLDER.findall(self._endpoint)))
        if self._endpoint:
            self._check_endpoint(settings, f"{prefix}.jwks_public_endpoint", prefix)

    @property
    def templated(self) -> bool:
        """Whether the address of the keys depends on the token."""
        return bool(self._placeholders)

    @property
    def endpoint(self) -> str:
        """The configured address, with its placeholders; empty when there is none."""
        return self._endpoint

    def check(self, issuer: str | None, audience: str | Sequence[str] | None) -> dict[str, str]:
        """Raise TokenInvalid unless ``iss`` and ``aud`` are acceptable; return the groups the expressions named."""
        groups: dict[str, str] = {}
        if self._issuer and issuer != self._issuer:
            raise TokenInvalid("The iss claim is not the configured issuer.")
        if self._issuer_regex is not None:
            found = _search(self._issuer_regex, issuer or "")
            if found is None:
                raise TokenInvalid("The iss claim does not match the configured issuer_regex.")
            groups.update(found)
        if self._audience or self._audience_regex is not None:
            audiences = (audience,) if isinstance(audience, str) else tuple(audience or ())
            if len(audiences) > MAX_AUDIENCES:
                raise TokenInvalid(f"The aud claim has more than {MAX_AUDIENCES} values.")
            if self._audience and self._audience not in audiences:
                raise TokenInvalid("The aud claim does not contain the configured audience.")
            if self._audience_regex is not None:
                for value in audiences:
                    found = _search(self._audience_regex, value)
                    if found is not None:
                        groups.update(found)
                        break
                else:
                    raise TokenInvalid("The aud claim does not match the configured audience_regex.")
        return groups

    def resolve(self, groups: dict[str, str]) -> str:
        """Return the address of the keys for what :meth:`check` returned; TokenInvalid when a group is empty."""
        if not self._placeholders:
            return self._endpoint
        values: dict[str, str] = {}
        for name in self._placeholders:
            value = groups.get(name) or ""
            if value.strip(".") == "":  # nothing, "." and ".." would climb in the path
                raise TokenInvalid("The iss or aud claim does not tell where the keys are.")
            values[name] = quote(value, safe="")
        return _PLACEHOLDER.sub(lambda found: values[found.group(1)], self._endpoint)

    def _check_endpoint(self, settings: TokenSettings, setting: str, prefix: str) -> None:
        # Parts of a template are quoted, so a stand-in has the same shape as any value.
        sample = _PLACEHOLDER.sub("x", self._endpoint)
        try:
            parts = urlsplit(sample)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable or any(ord(character) <= 32 or ord(character) > 126 for character in sample):
            raise BadSetting(setting, "not an http or https URL.")
        if "@" in parts.netloc:
            # What fetches it would take all of it for the name of the host, and ask a name server for the password.
            raise BadSetting(setting, "a URL with a user name or password in it, which is not supported.")
        patterns = {"issuer_regex": self._issuer_regex, "audience_regex": self._audience_regex}
        for name in self._placeholders:
            homes = [key for key, regex in patterns.items() if regex is not None and name in regex.groupindex]
            if len(homes) != 1:
                raise BadSetting(
                    setting,
                    f"{{{{{name}}}}} has to be a named group of exactly one of issuer_regex and audience_regex.",
                )
            if settings.insecure_skip_jwks_endpoint_safety_check:
                continue
            if not _is_list_of_values(getattr(settings, homes[0]), name):
                raise BadSetting(
                    f"{prefix}.{homes[0]}",
                    f"the group {name} is used in the JWKS address and so has to be a plain list of values, "
                    f"like (?P<{name}>first|second).",
                )


def _compile(pattern: str, setting: str) -> re.Pattern[str] | None:
    if not pattern:
        return None
    try:
        # Go also writes (?<name>…), which Python does not know.
        return re.compile(re.sub(r"\(\?<(?![=!])", "(?P<", pattern))
    except (re.error, RecursionError, OverflowError) as error:
        raise BadSetting(setting, f"not a regular expression: {error}.") from None


def _search(pattern: re.Pattern[str], value: str) -> dict[str, str] | None:
    # A trailing line break is let through by "$", which no issuer means.
    if len(value) > MAX_VALUE or value.endswith("\n"):
        return None
    found = pattern.search(value)
    if found is None:
        return None
    return {name: group for name, group in found.groupdict().items() if group is not None}


def _is_list_of_values(pattern: str, name: str) -> bool:
    opening = re.compile(rf"\(\?P?<{re.escape(name)}>")
    starts = list(opening.finditer(pattern))
    if len(starts) != 1 or pattern[: starts[0].start()].endswith("\\"):
        return False
    body, closing, _ = pattern[starts[0].end() :].partition(")")
    return bool(closing) and _LIST_OF_VALUES.fullmatch(body) is not None
