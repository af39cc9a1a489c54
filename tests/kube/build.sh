#!/bin/sh
# Builds the programs of the tests into a folder: cluster, informer, an unmodified kubectl, an unmodified etcd, and specs of
# Kubernetes' own end-to-end suite with the command that runs them in parallel.
#
#   tests/kube/build.sh OUTDIR
#
# Needs Go alone. The first build compiles all of Kubernetes (minutes); later ones only link what changed. Neither C nor
# -trimpath: with them `go test` and `go vet` would compile everything once more. GO_BUILD_PARALLEL (default 2) is `-p`.
set -eu
if [ $# -ne 1 ]; then
	echo "usage: $0 OUTDIR" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"
export CGO_ENABLED=0
export GOFLAGS=-buildvcs=false

version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v*.}
minor=${minor%%.*}
major=${version#v}
major=${major%%.*}
# What hack/lib/version.sh sets, twice because kubectl and the servers read different packages. There is no commit in the
# module, and the date of the build would make every build another program.
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	flags="$flags -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
	flags="$flags -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
done

go build -p "${GO_BUILD_PARALLEL:-2}" -ldflags "$flags" -o "$out/" ./cmd/cluster ./cmd/informer k8s.io/kubernetes/cmd/kubectl
go build -p "${GO_BUILD_PARALLEL:-2}" -ldflags "-s -w" -o "$out/etcd" go.etcd.io/etcd/server/v3
# ginkgo takes a program for a suite by the end of its name.
go build -p "${GO_BUILD_PARALLEL:-2}" -ldflags "$flags" -o "$out/specs.test" ./cmd/specs
go build -p "${GO_BUILD_PARALLEL:-2}" -ldflags "-s -w" -o "$out/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
# 2 min 20 s on one core the first time, beside Kubernetes: Helm comes with libraries of its own.
cd ../helm
go build -p "${GO_BUILD_PARALLEL:-2}" -ldflags "-s -w" -o "$out/helm" helm.sh/helm/v4/cmd/helm
