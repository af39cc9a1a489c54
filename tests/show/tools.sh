#!/bin/sh
# Sees to it that tools are there: installs Debian packages where it may, and else says what is missing and where to get it.
#
#   tests/show/tools.sh TOOL…
set -eu
packages=
missing=0
for tool in "$@"; do
	command -v "$tool" >/dev/null && continue
	case $tool in
	cargo) echo "cargo is missing: install Rust 1.95 or newer, see https://rustup.rs" >&2 && missing=1 ;;
	go) echo "go is missing: install Go 1.26 or newer, see https://go.dev/dl" >&2 && missing=1 ;;
	cc) packages="$packages build-essential" ;;
	protoc) packages="$packages protobuf-compiler" ;;
	etcd) packages="$packages etcd-server" ;;
	*) packages="$packages $tool" ;;
	esac
done
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing$packages"
	apt-get update -q
	# shellcheck disable=SC2086 # a list of names
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages
elif [ -n "$packages" ]; then
	echo "missing; as root: apt-get install$packages" >&2
	missing=1
fi
exit $missing
