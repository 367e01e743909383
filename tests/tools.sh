#!/usr/bin/env bash
# Builds the Go programs that the tests drive, once, into a cache outside the tree, and prints the folder.
#   tests/tools.sh conformance crane ...    -> one line: the folder to put on PATH (without names: builds nothing)
# A program is kept under its module version and the build flags; a changed version is built beside the old one.
set -euo pipefail

cache="${ACP_TOOLS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/acp-image-registry/tools}"
bin="$cache/bin"
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath" GOTOOLCHAIN="${GOTOOLCHAIN:-local}"

package_of() {
  case "$1" in
    conformance) echo "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111" ;;
    crane) echo "github.com/google/go-containerregistry/cmd/crane@v0.22.1" ;;
    oras) echo "oras.land/oras/cmd/oras@v1.3.6" ;;
    regctl) echo "github.com/regclient/regclient/cmd/regctl@v0.11.7" ;;
    helm) echo "helm.sh/helm/v3/cmd/helm@v3.22.0" ;;
    crictl) echo "sigs.k8s.io/cri-tools/cmd/crictl@v1.34.0" ;;
    registry-v3) echo "github.com/distribution/distribution/v3/cmd/registry@v3.1.2" ;;
    *) echo "tests/tools.sh: no such tool: $1" >&2; return 1 ;;
  esac
}

mkdir -p "$bin"
for tool in "$@"; do
  package="$(package_of "$tool")"
  version="${package##*@}"
  kept="$cache/$tool-$version"
  if [ ! -x "$kept" ]; then
    command -v go >/dev/null || { echo "tests/tools.sh: Go is needed to build $tool" >&2; exit 1; }
    work="$(mktemp -d "$cache/build.XXXXXX")"
    echo "building $tool $version" >&2
    GOBIN="$work" go install -ldflags "-s -w" "$package" >&2
    mv "$work"/* "$kept"
    rm -rf "$work"
  fi
  ln -sfn "$kept" "$bin/$tool"
done
echo "$bin"
