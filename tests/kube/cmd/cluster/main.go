// Command cluster runs one real Kubernetes cluster on loopback: etcd, kube-apiserver, controllers and scheduler as they
// are, and a stand-in for the kubelet. See README.md of this module.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/klog/v2"
)

func main() {
	options, exitWithStdin := parseFlags()
	messages, err := redirectOutput(options.dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if exitWithStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	err = runCluster(ctx, options, func(r ready) {
		line, err := json.Marshal(r)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	})
	klog.Flush()
	if err != nil {
		fmt.Fprintf(messages, "cluster %s: %v (log: %s)\n", options.name, err, filepath.Join(options.dir, "log"))
		os.Exit(1)
	}
}

func parseFlags() (options options, exitWithStdin bool) {
	flag.StringVar(&options.name, "name", "kube", "name of the cluster and of the kubeconfig contexts; prefix of the node names")
	flag.StringVar(&options.dir, "dir", "", "folder for everything that the cluster writes (required)")
	flag.StringVar(&options.address, "address", "127.0.0.1", "address that every server listens on")
	flag.IntVar(&options.port, "port", 0, "port of the API server; 0 takes a free one")
	flag.IntVar(&options.nodes, "nodes", 1, "number of nodes")
	flag.StringVar(&options.featureGates, "feature-gates", "", "feature gates of all components, as kube-apiserver takes them")
	flag.Func("apiserver-flag", "a flag more for kube-apiserver, such as --audit-log-path=-; may be repeated", func(value string) error {
		options.apiServerFlags = append(options.apiServerFlags, value)
		return nil
	})
	verbosity := flag.Int("v", 1, "verbosity of the log")
	flag.BoolVar(&exitWithStdin, "exit-with-stdin", false, "stop when standard input ends")
	flag.Parse()
	if options.dir == "" || flag.NArg() > 0 || options.name == "" {
		flag.Usage()
		os.Exit(2)
	}
	absolute, err := filepath.Abs(options.dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(2)
	}
	options.dir = absolute
	configureLog(*verbosity)
	return options, exitWithStdin
}

func configureLog(verbosity int) {
	set := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(set)
	if err := set.Parse(strings.Fields(fmt.Sprintf("-v=%d -logtostderr=true", verbosity))); err != nil {
		panic(err)
	}
}

// redirectOutput sends standard error, where every component logs and panics, to dir/log/cluster.log, and returns what
// was standard error.
func redirectOutput(dir string) (messages *os.File, err error) {
	folder := filepath.Join(dir, "log")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(folder, "cluster.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	original, err := syscall.Dup(int(os.Stderr.Fd()))
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(original)
	if err := duplicate(int(log.Fd()), int(os.Stderr.Fd())); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(original), "stderr"), nil
}
