"""The proxies under comparison, by name."""

from .caddy import Caddy
from .envoy import Envoy
from .haproxy import Haproxy
from .nginx import Nginx
from .relay import Relay
from .traefik import FastTraefik, Traefik, Vigie

ALL = {kind.name: kind for kind in (Nginx, Haproxy, Traefik, FastTraefik, Envoy, Caddy, Relay, Vigie)}
