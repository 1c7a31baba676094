#!/bin/sh
# Probe: the server answers PING, so it has read its data back. Exit 0 is healthy.
set -eu
REDISCLI_AUTH=$(cat "$VALKEY_PASSWORD_FILE")
export REDISCLI_AUTH
[ "$(valkey-cli -t 2 ping)" = PONG ]
