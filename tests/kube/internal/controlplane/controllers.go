package controlplane

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
)

// controllers that run: everything that shows in the API of a cluster without volumes, cloud and network.
var controllers = []string{
	names.NamespaceController,
	names.GarbageCollectorController,
	names.ServiceAccountController,
	names.ServiceAccountTokenController,
	names.RootCACertificatePublisherController,
	names.ClusterRoleAggregationController,
	names.DeploymentController,
	names.ReplicaSetController,
	names.ReplicationControllerController,
	names.StatefulSetController,
	names.DaemonSetController,
	names.JobController,
	names.CronJobController,
	names.TTLAfterFinishedController,
	names.DisruptionController,
	names.ResourceQuotaController,
	names.EndpointSliceController,
	names.ServiceCIDRController,
	names.NodeLifecycleController,
	names.TaintEvictionController,
	names.PodGarbageCollectorController,
	names.CertificateSigningRequestApprovingController,
	names.CertificateSigningRequestSigningController,
}

// RunControllers runs kube-controller-manager until ctx is done. The API server must be ready.
func RunControllers(ctx context.Context, config *Config) error {
	flags := []string{
		"--kubeconfig=" + config.Kubeconfig,
		"--controllers=" + strings.Join(controllers, ","),
		"--leader-elect=false",
		"--secure-port=0",
		"--use-service-account-credentials=false",
		"--service-account-private-key-file=" + config.PKI.ServiceAccountKey,
		"--root-ca-file=" + config.PKI.CA.CertFile,
		"--cluster-signing-cert-file=" + config.PKI.CA.CertFile,
		"--cluster-signing-key-file=" + config.PKI.CA.KeyFile,
		// The defaults (20, 30) are for a shared production API server and make every test wait.
		"--kube-api-qps=300",
		"--kube-api-burst=600",
	}
	manager, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	known, disabled, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	groups := manager.Flags(known, disabled, aliases)
	manager.ParsedFlags = &groups
	set := pflag.NewFlagSet("kube-controller-manager", pflag.ContinueOnError)
	for _, group := range groups.FlagSets {
		set.AddFlagSet(group)
	}
	if err := set.Parse(flags); err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	completed, err := manager.Config(ctx, known, disabled, aliases)
	if err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	return app.Run(ctx, completed.Complete())
}
