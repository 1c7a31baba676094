#!/bin/sh
# Becomes the S3 server on port 9000, with GET /healthz for probes. Arguments are options of `versitygw posix`.
#
#   S3_ACCESS_KEY_FILE, S3_SECRET_KEY_FILE  files with the only account's keys                     required
#   S3_REGION                               the region clients sign with                           us-east-1
#   S3_METADATA                             xattr, or sidecar for volumes without extended attributes  xattr
#   GOMEMLIMIT                              soft memory limit, below the container's (Go runtime)   96MiB
set -eu

fail() { echo "objectstore: $*" >&2; exit 1; }

read_key() {
    [ -n "$2" ] || fail "set $1 to a file with the key"
    [ -s "$2" ] || fail "the file $2 of $1 is missing or empty"
    cat "$2"
}

# The server takes its account from its own environment or its command line only; nobody but its user reads the former.
ROOT_ACCESS_KEY_ID=$(read_key S3_ACCESS_KEY_FILE "${S3_ACCESS_KEY_FILE:-}")
ROOT_SECRET_ACCESS_KEY=$(read_key S3_SECRET_KEY_FILE "${S3_SECRET_KEY_FILE:-}")
export ROOT_ACCESS_KEY_ID ROOT_SECRET_ACCESS_KEY GOMEMLIMIT="${GOMEMLIMIT:-96MiB}"

# Below the volume's root, which may hold lost+found: every folder in there is a bucket.
mkdir -p /data/buckets 2> /dev/null || fail "/data is not writable for uid $(id -u)"

# Object metadata lives in extended attributes of the files, or in a folder of its own where a volume has none.
case "${S3_METADATA:-xattr}" in
    xattr) ;;
    sidecar) mkdir -p /data/metadata; set -- --sidecar /data/metadata "$@" ;;
    *) fail "S3_METADATA is xattr or sidecar, not '$S3_METADATA'" ;;
esac

exec versitygw --port :9000 --region "${S3_REGION:-us-east-1}" --health /healthz --quiet --keep-alive \
    --max-connections 2000 --max-requests 1000 posix "$@" /data/buckets
