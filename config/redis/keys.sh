#!/bin/sh
# Keys for config/redis/vigie.yml: two servers behind one router.
set -eu
redis-cli CONFIG SET notify-keyspace-events KEA
redis-cli SET traefik/http/services/api/loadBalancer/servers/0/url http://127.0.0.1:3001
redis-cli SET traefik/http/services/api/loadBalancer/servers/1/url http://127.0.0.1:3002
redis-cli SET traefik/http/services/api/loadBalancer/healthCheck/path /health
redis-cli SET traefik/http/routers/api/service api
redis-cli SET traefik/http/routers/api/rule 'PathPrefix(`/`)'
