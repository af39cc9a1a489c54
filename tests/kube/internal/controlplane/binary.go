package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// runBinary runs a program with its output in log until it ends, or ctx is done: then it gets SIGTERM, and SIGKILL 10 s
// later.
func runBinary(ctx context.Context, path, log string, arguments ...string) error {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer output.Close()
	command := exec.CommandContext(ctx, path, arguments...)
	command.Stdout, command.Stderr = output, output
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	if err := command.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w (see %s)", path, err, log)
	}
	return nil
}

// startBinary is runBinary in the background. A program that ends on its own is noticed by its clients.
func startBinary(ctx context.Context, path, log string, arguments ...string) (stop func(), err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := runBinary(ctx, path, log, arguments...); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return func() {
		cancel()
		<-done
	}, nil
}
