// Package controlplane runs etcd, kube-apiserver, kube-controller-manager and kube-scheduler: the real ones, as libraries
// in this process, or the binaries that KUBEBUILDER_ASSETS names for the first two.
//
// One process holds one cluster, because the feature gates and the metrics registries of Kubernetes are process-global.
package controlplane

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/umbra-dev/umbra/tests/kube/internal/pki"
)

// Config says where and how one control plane runs.
type Config struct {
	// Dir holds everything that the cluster writes.
	Dir string
	// Address is what every server listens on.
	Address string
	// Port is that of the API server.
	Port int
	// EtcdURL is where clients reach etcd.
	EtcdURL string
	PKI     *pki.Cluster
	// Kubeconfig is the administrator's: what the controllers and the scheduler use.
	Kubeconfig string
	// APIServerFlags are added to kube-apiserver's command line, FeatureGates to all components' one set.
	APIServerFlags []string
	FeatureGates   string
	// Assets is a folder with the binaries etcd and kube-apiserver, or empty for those in this process.
	Assets string
}

// FreePort returns a port that nothing listened on a moment ago, and that nobody is given by chance before it is used: below those
// that the kernel gives to whoever asks for any (net.ipv4.ip_local_port_range, from 32768).
func FreePort(address string) (int, error) {
	var last error
	for range 100 {
		port := 10000 + rand.IntN(10000)
		listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
		last = err
	}
	return 0, last
}

// AssetsFromEnvironment returns the folder that KUBEBUILDER_ASSETS names, if it holds etcd and kube-apiserver.
func AssetsFromEnvironment() (string, error) {
	folder := os.Getenv("KUBEBUILDER_ASSETS")
	if folder == "" {
		return "", nil
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			return "", fmt.Errorf("KUBEBUILDER_ASSETS: %w", err)
		}
	}
	return folder, nil
}
