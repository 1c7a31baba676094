#!/bin/sh
# Becomes valkey-server. Arguments are its options: `--maxmemory 256mb`.
#
#   VALKEY_PASSWORD_FILE  file with the password    required
#
# The password reaches the server on standard input: neither the command line nor the environment shows it.
set -eu

fail() { echo "valkey: $*" >&2; exit 1; }

file=${VALKEY_PASSWORD_FILE:-}
[ -n "$file" ] || fail "set VALKEY_PASSWORD_FILE to a file with the password"
[ -s "$file" ] || fail "the password file $file is missing or empty"
password=$(cat "$file")
case "$password" in *[!A-Za-z0-9_.~-]*) fail "the password may hold letters, digits and _ . ~ - only" ;; esac

exec valkey-server /etc/fanfold/valkey.conf "$@" - <<CONFIG
requirepass $password
CONFIG
