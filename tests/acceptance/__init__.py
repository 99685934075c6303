"""The hub as a whole process, with the official SDKs as its clients."""
