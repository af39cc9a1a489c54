// Package pki issues the certificates and keys of one cluster: what kubeadm does, for a cluster on loopback.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// validity of every certificate: no test outlives it.
const validity = 10 * 365 * 24 * time.Hour

// Authority is a certificate authority whose certificate and key are files.
type Authority struct {
	// CertFile and KeyFile are PEM.
	CertFile, KeyFile string

	certificate *x509.Certificate
	key         crypto.Signer
}

// Subject is what a leaf certificate says about its holder.
type Subject struct {
	CommonName    string
	Organizations []string
	// DNSNames and IPs are for serving certificates; a client certificate has neither.
	DNSNames []string
	IPs      []net.IP
	Usage    x509.ExtKeyUsage
}

// LoadOrCreateAuthority reads the authority from base+".crt" and base+".key", and makes it if it is not there.
func LoadOrCreateAuthority(base, commonName string) (*Authority, error) {
	authority := &Authority{CertFile: base + ".crt", KeyFile: base + ".key"}
	if _, err := os.Stat(authority.CertFile); os.IsNotExist(err) {
		if err := createAuthority(authority, commonName); err != nil {
			return nil, fmt.Errorf("create certificate authority %s: %w", base, err)
		}
	}
	certificates, err := cert.CertsFromFile(authority.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := keyutil.PrivateKeyFromFile(authority.KeyFile)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: not a signing key", authority.KeyFile)
	}
	authority.certificate, authority.key = certificates[0], signer
	return authority, nil
}

func createAuthority(authority *Authority, commonName string) error {
	key, err := newKey(authority.KeyFile)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(0),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-time.Minute),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	return writeCertificate(authority.CertFile, der)
}

// Issue writes a new key and a certificate for it to base+".key" and base+".crt", and returns the two paths.
func (a *Authority) Issue(base string, subject Subject) (certFile, keyFile string, err error) {
	certFile, keyFile = base+".crt", base+".key"
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return "", "", err
	}
	key, err := newKey(keyFile)
	if err != nil {
		return "", "", err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return "", "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: subject.CommonName, Organization: subject.Organizations},
		DNSNames:              subject.DNSNames,
		IPAddresses:           subject.IPs,
		NotBefore:             now.Add(-time.Minute),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{subject.Usage},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return "", "", fmt.Errorf("issue %s: %w", base, err)
	}
	return certFile, keyFile, writeCertificate(certFile, der)
}

// LoadOrCreateKey makes a private key at path unless one is there: the key that signs service account tokens.
func LoadOrCreateKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	_, err := newKey(path)
	return err
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	pem, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, err
	}
	return key, keyutil.WriteKey(path, pem)
}

func writeCertificate(path string, der []byte) error {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	pem, err := cert.EncodeCertificates(certificate)
	if err != nil {
		return err
	}
	return cert.WriteCert(path, pem)
}
