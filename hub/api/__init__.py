"""The server API: what a backend may ask of the hub, by HTTP."""
