#!/usr/bin/env bash
# Prints a Python that the project runs on: 3.11 where there is one, else a newer python3. Debian keeps the venv
# module in a package of its own; as root it is installed, for others the command is named.
set -euo pipefail

for python in "${PYTHON:-}" python3.11 python3 /usr/bin/python3.11; do
  if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "$python has no venv module. On Debian: apt-get install python3-venv" >&2
        exit 1
      fi
      { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv; } >&2
    fi
    echo "$python"
    exit 0
  fi
done
echo "Python 3.11 or newer is needed. On Debian 12: apt-get install python3 python3-venv" >&2
exit 1
