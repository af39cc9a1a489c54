package controlplane

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// RunScheduler runs kube-scheduler until ctx is done. The API server must be ready.
func RunScheduler(ctx context.Context, config *Config) error {
	flags := []string{
		"--kubeconfig=" + config.Kubeconfig,
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=300",
		"--kube-api-burst=600",
	}
	scheduler := options.NewOptions()
	set := pflag.NewFlagSet("kube-scheduler", pflag.ContinueOnError)
	for _, group := range scheduler.Flags.FlagSets {
		set.AddFlagSet(group)
	}
	if err := set.Parse(flags); err != nil {
		return fmt.Errorf("kube-scheduler: %w", err)
	}
	completed, instance, err := app.Setup(ctx, scheduler)
	if err != nil {
		return fmt.Errorf("kube-scheduler: %w", err)
	}
	err = app.Run(ctx, completed, instance)
	if ctx.Err() != nil {
		// Run without leader election ends with an error even when it was asked to end.
		return nil
	}
	return err
}
