#!/bin/sh
# Builds the images that changed: `images/build.sh --help`. Standard library only: it runs before anything is installed.
set -eu
cd "$(dirname "$0")/.."
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
    || { echo "images: needs Python 3.11 or newer as python3 (Debian 12 and later: apt-get install python3)" >&2; exit 2; }
exec python3 -m images.builder "$@"
