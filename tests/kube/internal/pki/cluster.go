package pki

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// KubeletClientName is the user that the API server is to the kubelets.
const KubeletClientName = "kube-apiserver-kubelet-client"

// FrontProxyName is the only name that may set the X-Remote-* headers.
const FrontProxyName = "front-proxy-client"

// ServiceNetwork is the range of the cluster IPs, ServiceAddress the one of the service `kubernetes`.
const (
	ServiceNetwork = "10.0.0.0/24"
	ServiceAddress = "10.0.0.1"
)

// Cluster holds the paths of everything that the processes of one cluster prove themselves with. Authorities, the service
// account key and the token are kept over restarts; leaf certificates are issued anew.
type Cluster struct {
	// CA signs serving and client certificates. FrontProxyCA signs those that may speak for other users.
	CA, FrontProxyCA *Authority

	ServerCert, ServerKey               string
	KubeletClientCert, KubeletClientKey string
	KubeletCert, KubeletKey             string
	FrontProxyCert, FrontProxyKey       string
	AdminCert, AdminKey                 string
	ServiceAccountKey                   string
	// TokenFile is kube-apiserver's static token file, Token the one token in it.
	TokenFile, Token string
}

// Prepare makes what is missing below dir: ca.crt and ca.key, and the rest in dir/pki.
func Prepare(dir string, address net.IP) (*Cluster, error) {
	pki := filepath.Join(dir, "pki")
	if err := os.MkdirAll(pki, 0o755); err != nil {
		return nil, err
	}
	c := &Cluster{
		ServiceAccountKey: filepath.Join(pki, "service-account.key"),
		TokenFile:         filepath.Join(pki, "tokens.csv"),
	}
	var err error
	if c.CA, err = LoadOrCreateAuthority(filepath.Join(dir, "ca"), "kubernetes"); err != nil {
		return nil, err
	}
	if c.FrontProxyCA, err = LoadOrCreateAuthority(filepath.Join(pki, "front-proxy-ca"), "front-proxy-ca"); err != nil {
		return nil, err
	}
	if err := LoadOrCreateKey(c.ServiceAccountKey); err != nil {
		return nil, err
	}
	if c.Token, err = loadOrCreateToken(filepath.Join(pki, "token"), c.TokenFile); err != nil {
		return nil, err
	}
	return c, c.issueLeaves(pki, address)
}

func (c *Cluster) issueLeaves(pki string, address net.IP) error {
	loopback := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, address}
	leaves := []struct {
		authority *Authority
		name      string
		subject   Subject
		cert, key *string
	}{
		{c.CA, "server", Subject{
			CommonName: "kube-apiserver",
			DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local"},
			IPs:   append([]net.IP{net.ParseIP(ServiceAddress)}, loopback...),
			Usage: x509.ExtKeyUsageServerAuth,
		}, &c.ServerCert, &c.ServerKey},
		{c.CA, "kubelet", Subject{
			CommonName: "kubelet", DNSNames: []string{"localhost"}, IPs: loopback, Usage: x509.ExtKeyUsageServerAuth,
		}, &c.KubeletCert, &c.KubeletKey},
		{c.CA, "kubelet-client", Subject{
			CommonName: KubeletClientName, Usage: x509.ExtKeyUsageClientAuth,
		}, &c.KubeletClientCert, &c.KubeletClientKey},
		{c.CA, "admin", Subject{
			CommonName: "kubernetes-admin", Organizations: []string{"system:masters"}, Usage: x509.ExtKeyUsageClientAuth,
		}, &c.AdminCert, &c.AdminKey},
		{c.FrontProxyCA, "front-proxy-client", Subject{
			CommonName: FrontProxyName, Usage: x509.ExtKeyUsageClientAuth,
		}, &c.FrontProxyCert, &c.FrontProxyKey},
	}
	for _, leaf := range leaves {
		var err error
		if *leaf.cert, *leaf.key, err = leaf.authority.Issue(filepath.Join(pki, leaf.name), leaf.subject); err != nil {
			return err
		}
	}
	return nil
}

// loadOrCreateToken keeps the token in path and writes it to tokenFile in the format of --token-auth-file.
func loadOrCreateToken(path, tokenFile string) (string, error) {
	token, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		random := make([]byte, 16)
		if _, err := rand.Read(random); err != nil {
			return "", err
		}
		token = []byte(hex.EncodeToString(random))
		err = os.WriteFile(path, token, 0o600)
	}
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("%s,token-admin,token-admin,\"system:masters\"\n", token)
	return string(token), os.WriteFile(tokenFile, []byte(line), 0o600)
}
