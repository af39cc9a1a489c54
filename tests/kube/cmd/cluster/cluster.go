package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/umbra-dev/umbra/tests/kube/internal/controlplane"
	"github.com/umbra-dev/umbra/tests/kube/internal/kubelet"
	"github.com/umbra-dev/umbra/tests/kube/internal/pki"
)

const (
	// startDeadline is for a machine that is also compiling: idle, a start takes a few seconds.
	startDeadline = 3 * time.Minute
	// stopDeadline is how long the API server may wait for its clients to leave, and before that the controllers to end.
	stopDeadline = 5 * time.Second
)

type options struct {
	name, dir, address string
	port, nodes        int
	featureGates       string
	apiServerFlags     []string
}

// ready is the one line of JSON on standard output.
type ready struct {
	Name            string `json:"name"`
	Kubeconfig      string `json:"kubeconfig"`
	TokenKubeconfig string `json:"tokenKubeconfig"`
	Server          string `json:"server"`
	Etcd            string `json:"etcd"`
	Ready           bool   `json:"ready"`
}

// components runs parts of the cluster and tells when the first of them fails.
type components struct {
	group  sync.WaitGroup
	failed chan error
}

func (c *components) run(ctx context.Context, name string, run func(context.Context) error) {
	c.group.Go(func() {
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("ended unexpectedly")
		}
		select {
		case c.failed <- fmt.Errorf("%s: %w", name, err):
		default:
		}
	})
}

// stop cancels and waits, but no longer than stopDeadline.
func (c *components) stop(cancel context.CancelFunc, name string) {
	cancel()
	done := make(chan struct{})
	go func() {
		c.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(stopDeadline):
		klog.Warningf("%s did not stop in %s", name, stopDeadline)
	}
}

// runCluster runs the cluster until ctx is done or a component fails. It stops in the opposite order of the start, so that
// nothing loses its server before it ends.
func runCluster(ctx context.Context, options options, announce func(ready)) error {
	config, announcement, err := prepare(options)
	if err != nil {
		return err
	}
	stopEtcd, err := controlplane.StartEtcd(config)
	if err != nil {
		return err
	}
	defer stopEtcd()

	failed := make(chan error, 1)
	server, clients := &components{failed: failed}, &components{failed: failed}
	serverContext, cancelServer := context.WithCancel(context.Background())
	defer server.stop(cancelServer, "kube-apiserver")
	server.run(serverContext, "kube-apiserver", func(ctx context.Context) error {
		return controlplane.RunAPIServer(ctx, config)
	})

	clientContext, cancelClients := context.WithCancel(context.Background())
	defer clients.stop(cancelClients, "controllers, scheduler and kubelets")
	started := make(chan error, 1)
	startContext, cancelStart := context.WithTimeout(ctx, startDeadline)
	defer cancelStart()
	go func() { started <- startClients(startContext, clientContext, clients, config, options) }()

	for {
		select {
		case err := <-started:
			if err != nil {
				return err
			}
			announce(announcement)
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func prepare(options options) (*controlplane.Config, ready, error) {
	address := net.ParseIP(options.address)
	if address == nil {
		return nil, ready{}, fmt.Errorf("--address %q: not an IP address", options.address)
	}
	material, err := pki.Prepare(options.dir, address)
	if err != nil {
		return nil, ready{}, err
	}
	port := options.port
	if port == 0 {
		if port, err = controlplane.FreePort(options.address); err != nil {
			return nil, ready{}, err
		}
	}
	etcdPort, err := controlplane.FreePort(options.address)
	if err != nil {
		return nil, ready{}, err
	}
	assets, err := controlplane.AssetsFromEnvironment()
	if err != nil {
		return nil, ready{}, err
	}
	config := &controlplane.Config{
		Dir:            options.dir,
		Address:        options.address,
		Port:           port,
		EtcdURL:        fmt.Sprintf("http://%s", net.JoinHostPort(options.address, fmt.Sprint(etcdPort))),
		PKI:            material,
		Kubeconfig:     filepath.Join(options.dir, "kubeconfig"),
		APIServerFlags: options.apiServerFlags,
		FeatureGates:   options.featureGates,
		Assets:         assets,
	}
	announcement := ready{
		Name:            options.name,
		Kubeconfig:      config.Kubeconfig,
		TokenKubeconfig: filepath.Join(options.dir, "token.kubeconfig"),
		Server:          fmt.Sprintf("https://%s", net.JoinHostPort(options.address, fmt.Sprint(port))),
		Etcd:            config.EtcdURL,
		Ready:           true,
	}
	err = material.WriteKubeconfigs(options.name, announcement.Server, announcement.Kubeconfig, announcement.TokenKubeconfig)
	return config, announcement, err
}

// startClients waits for the API server, starts what needs it in clientContext, and returns when the cluster is usable.
func startClients(
	startContext, clientContext context.Context, clients *components, config *controlplane.Config, options options,
) error {
	restConfig, err := clientcmd.BuildConfigFromFlags("", config.Kubeconfig)
	if err != nil {
		return err
	}
	restConfig.QPS, restConfig.Burst = 300, 600
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return err
	}
	if err := waitFor(startContext, "kube-apiserver's /readyz", func(ctx context.Context) bool {
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil
	}); err != nil {
		return err
	}
	clients.run(clientContext, "kube-controller-manager", func(ctx context.Context) error {
		return controlplane.RunControllers(ctx, config)
	})
	clients.run(clientContext, "kube-scheduler", func(ctx context.Context) error {
		return controlplane.RunScheduler(ctx, config)
	})
	names := make([]string, options.nodes)
	for index := range names {
		names[index] = fmt.Sprintf("%s-node-%d", options.name, index+1)
		node := &kubelet.Kubelet{
			NodeName:   names[index],
			PodNetwork: index + 1,
			Address:    config.Address,
			Dir:        filepath.Join(config.Dir, "kubelet", names[index]),
			PKI:        config.PKI,
			Client:     client,
		}
		clients.run(clientContext, "kubelet of "+names[index], node.Run)
	}
	return waitFor(startContext, "service account default/default and ready nodes", func(ctx context.Context) bool {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err == nil && nodesReady(ctx, client, names)
	})
}

// nodesReady tells whether pods can be scheduled to every node: it is ready, and no longer tainted as if it was not.
func nodesReady(ctx context.Context, client kubernetes.Interface, names []string) bool {
	for _, name := range names {
		node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil || len(node.Spec.Taints) > 0 {
			return false
		}
		isReady := false
		for _, condition := range node.Status.Conditions {
			isReady = isReady || condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
		}
		if !isReady {
			return false
		}
	}
	return true
}

func waitFor(ctx context.Context, what string, condition func(context.Context) bool) error {
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		return condition(ctx), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	return nil
}
