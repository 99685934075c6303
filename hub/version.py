"""The hub's own version, as the connect reply, ``info`` and ``hub version`` tell it."""

VERSION = "0.1.0"
