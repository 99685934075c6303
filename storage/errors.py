"""What a store raises.

StoreError
├── StoreUnavailable   out of reach, overloaded or too slow now: the caller may try again
└── StoreUnusable      wrong file, wrong schema, no permission: a person has to act
"""

from __future__ import annotations


class StoreError(Exception):
    """Something is wrong with the store; the text is one sentence that names it and the way out."""


class StoreUnavailable(StoreError):
    """The store cannot serve this now; nothing of the request was done, or it is safe to repeat."""


class StoreUnusable(StoreError):
    """The store cannot be used as it is."""
