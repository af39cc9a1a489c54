#!/bin/sh
# Says what is missing on this machine, and where to get it.
#
#   tests/show/tools.sh TOOL…
set -eu
missing=0
for tool in "$@"; do
	command -v "$tool" >/dev/null && continue
	missing=1
	case $tool in
	cargo) echo "cargo is missing: install Rust 1.95 or newer, see https://rustup.rs" ;;
	go) echo "go is missing: install Go 1.26 or newer, see https://go.dev/dl" ;;
	cc) echo "cc is missing: apt-get install build-essential" ;;
	*) echo "$tool is missing: apt-get install $tool" ;;
	esac >&2
done
exit $missing
