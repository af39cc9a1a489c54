package pki

import (
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// WriteKubeconfigs writes a kubeconfig with the administrator's client certificate and one with the bearer token, both
// self-contained, with one context called name.
func (c *Cluster) WriteKubeconfigs(name, server, certificatePath, tokenPath string) error {
	certificate, err := os.ReadFile(c.AdminCert)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(c.AdminKey)
	if err != nil {
		return err
	}
	if err := c.writeKubeconfig(name, server, certificatePath, &api.AuthInfo{
		ClientCertificateData: certificate, ClientKeyData: key,
	}); err != nil {
		return err
	}
	return c.writeKubeconfig(name, server, tokenPath, &api.AuthInfo{Token: c.Token})
}

func (c *Cluster) writeKubeconfig(name, server, path string, user *api.AuthInfo) error {
	authority, err := os.ReadFile(c.CA.CertFile)
	if err != nil {
		return err
	}
	config := api.NewConfig()
	config.Clusters[name] = &api.Cluster{Server: server, CertificateAuthorityData: authority}
	config.AuthInfos[name] = user
	config.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return clientcmd.WriteToFile(*config, path)
}
