// Command informer follows one resource as controllers do, with client-go's shared informer or with its bare reflector, and
// tells what it sees: one line of JSON for each request that it sends and each event that it gets.
//
// Each line `state` on standard input is answered with everything that is in its store. It ends with its standard input.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

type options struct {
	kubeconfig, context, namespace string
	resource                       schema.GroupVersionResource
	reflector                      bool
}

func main() {
	options, err := parseFlags()
	if err != nil {
		fmt.Fprintln(os.Stderr, "informer:", err)
		flag.Usage()
		os.Exit(2)
	}
	if err := run(options, os.Stdin, newJournal(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "informer:", err)
		os.Exit(1)
	}
}

func parseFlags() (options options, err error) {
	flag.StringVar(&options.kubeconfig, "kubeconfig", "", "the kubeconfig (required)")
	flag.StringVar(&options.context, "context", "", "the context of it; default the current one")
	flag.StringVar(&options.namespace, "namespace", "", "only this namespace; default all")
	resource := flag.String("resource", "configmaps.v1.", "the resource as RESOURCE.VERSION.GROUP")
	flag.BoolVar(&options.reflector, "reflector", false, "the bare reflector, which tells events as they come, not the shared informer")
	klog.InitFlags(nil)
	flag.Parse()
	parsed, _ := schema.ParseResourceArg(*resource)
	switch {
	case options.kubeconfig == "" || flag.NArg() > 0:
		return options, fmt.Errorf("--kubeconfig is required, and nothing but flags")
	case parsed == nil:
		return options, fmt.Errorf("--resource %q is not RESOURCE.VERSION.GROUP", *resource)
	}
	options.resource = *parsed
	return options, nil
}

func run(options options, input io.Reader, journal *journal) error {
	config, err := clientConfig(options, journal)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	follow := startInformer
	if options.reflector {
		follow = startReflector
	}
	state, err := follow(ctx, config, options, journal)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(input); lines.Scan(); {
		if lines.Text() == "state" {
			journal.write(record{Type: typeState, Objects: state()})
		}
	}
	return nil
}

// clientConfig is that of the kubeconfig, with a transport that tells the journal of each request.
func clientConfig(options options, journal *journal) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: options.kubeconfig}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: options.context}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "informer"
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return requests{next: next, journal: journal}
	})
	return config, nil
}
