package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"github.com/umbra-dev/umbra/tests/kube/internal/pki"
)

// authenticationConfiguration admits anonymous requests to the health endpoints and nowhere else.
const authenticationConfiguration = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
`

// auditPolicy writes down who asked the aggregation layer for what, and nothing else: all other requests are the cluster's
// own business, and many.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: Metadata
  resources:
  - group: umbra.dev
- level: None
`

// apiServerFlags is the command line of kube-apiserver, the same for the library and for a binary.
func apiServerFlags(config *Config, authentication, audit string) []string {
	p := config.PKI
	flags := []string{
		"--bind-address=" + config.Address,
		"--secure-port=" + strconv.Itoa(config.Port),
		"--advertise-address=" + config.Address,
		// Endpoints may not be loopback addresses, so the service `kubernetes` has none.
		"--endpoint-reconciler-type=none",
		"--etcd-servers=" + config.EtcdURL,
		"--service-cluster-ip-range=" + pki.ServiceNetwork,
		"--allow-privileged=true",
		"--profiling=false",
		// Ends the watches of clients that are still there when the cluster stops. Without it they keep the server.
		"--shutdown-watch-termination-grace-period=1s",

		"--tls-cert-file=" + p.ServerCert,
		"--tls-private-key-file=" + p.ServerKey,

		"--authorization-mode=RBAC",
		"--authentication-config=" + authentication,
		"--audit-policy-file=" + audit,
		"--audit-log-path=" + filepath.Join(config.Dir, "log", "audit.log"),
		"--client-ca-file=" + p.CA.CertFile,
		"--token-auth-file=" + p.TokenFile,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + p.ServiceAccountKey,
		"--service-account-signing-key-file=" + p.ServiceAccountKey,

		"--requestheader-client-ca-file=" + p.FrontProxyCA.CertFile,
		"--requestheader-allowed-names=" + pki.FrontProxyName,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-uid-headers=X-Remote-Uid",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + p.FrontProxyCert,
		"--proxy-client-key-file=" + p.FrontProxyKey,

		"--kubelet-certificate-authority=" + p.CA.CertFile,
		"--kubelet-client-certificate=" + p.KubeletClientCert,
		"--kubelet-client-key=" + p.KubeletClientKey,
		"--kubelet-preferred-address-types=InternalIP",
	}
	if config.FeatureGates != "" {
		flags = append(flags, "--feature-gates="+config.FeatureGates)
	}
	return append(flags, config.APIServerFlags...)
}

// RunAPIServer runs kube-apiserver, with the aggregator and the CRD server, until ctx is done.
func RunAPIServer(ctx context.Context, config *Config) error {
	authentication := filepath.Join(config.Dir, "pki", "authentication.yaml")
	audit := filepath.Join(config.Dir, "pki", "audit.yaml")
	for file, content := range map[string]string{authentication: authenticationConfiguration, audit: auditPolicy} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return err
		}
	}
	flags := apiServerFlags(config, authentication, audit)
	if config.Assets != "" {
		return runBinary(ctx, filepath.Join(config.Assets, "kube-apiserver"),
			filepath.Join(config.Dir, "log", "kube-apiserver.log"), flags...)
	}
	// The loopback clients of the API server are not told about deprecations: nobody would read it.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	server := options.NewServerRunOptions()
	set := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, group := range server.Flags().FlagSets {
		set.AddFlagSet(group)
	}
	if err := set.Parse(flags); err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	if err := server.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	completed, err := server.Complete(ctx)
	if err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return fmt.Errorf("kube-apiserver: %w", utilerrors.NewAggregate(errs))
	}
	return app.Run(ctx, completed)
}
