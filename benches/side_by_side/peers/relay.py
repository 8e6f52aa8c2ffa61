"""The byte relay of benches/src/bin/relay.rs: the floor."""

from .. import machine
from .peer import Peer


class Relay(Peer):
    name = "relay"
    tls = False
    lacks = frozenset({"middlewares", "access_log", "metrics", "reload", "forwarded"})

    def binary(self):
        return machine.tool("relay")

    def version(self):
        return "benches/src/bin/relay.rs"

    def configure(self, setup):
        pass

    def command(self):
        return [self.binary(), f"listen=127.0.0.1:{self.http}", f"upstream=127.0.0.1:{self.setup.origin}"]
