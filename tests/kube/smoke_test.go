// Package kube holds the smoke test of the cluster program: everything through the unmodified kubectl.
package kube

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCluster starts one cluster and uses what the end-to-end tests rely on. KUBE_BIN names a folder that build.sh has
// filled; without it the test fills one.
func TestCluster(t *testing.T) {
	binaries := os.Getenv("KUBE_BIN")
	if binaries == "" {
		binaries = t.TempDir()
		if output, err := exec.Command("./build.sh", binaries).CombinedOutput(); err != nil {
			t.Fatalf("build.sh: %v\n%s", err, output)
		}
	}
	c := startCluster(t, binaries)

	c.run("", "create", "namespace", "shop")
	c.run("", "create", "deployment", "web", "-n", "shop", "--image=nginx", "--replicas=2", "--port=80")
	c.run("", "rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s")
	c.want("hello", "", "exec", "-n", "shop", "deployment/web", "--", "echo", "hello")
	c.want("through", "through", "exec", "-n", "shop", "-i", "deployment/web", "--", "cat")
	c.want("container nginx of image nginx runs", "", "logs", "-n", "shop", "deployment/web", "--tail=1")
	if _, err := c.command("", "exec", "-n", "shop", "deployment/web", "--", "sh", "-c", "exit 7").Output(); exitCode(err) != 7 {
		t.Errorf("exec of exit 7: %v", err)
	}
	c.run("", "create", "job", "once", "-n", "shop", "--image=busybox", "--", "sh", "-c", "echo done")
	c.run("", "wait", "job/once", "-n", "shop", "--for=condition=complete", "--timeout=60s")
	c.want("done", "", "logs", "-n", "shop", "job/once")
	c.want("system:serviceaccount:shop:default", "", "--token="+c.run("", "create", "token", "default", "-n", "shop"), "auth", "whoami")
	c.run("", "delete", "namespace", "shop", "--timeout=90s")
}

type cluster struct {
	t                   *testing.T
	kubectl, kubeconfig string
}

func startCluster(t *testing.T, binaries string) *cluster {
	dir := t.TempDir()
	program := exec.Command(filepath.Join(binaries, "cluster"), "--name", "smoke", "--dir", dir, "--exit-with-stdin")
	program.Stderr = os.Stderr
	stdin, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		if err := program.Wait(); err != nil {
			t.Errorf("cluster: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("cluster did not become ready: %v", err)
	}
	var ready struct{ Kubeconfig string }
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	// With a bearer token on the command line kubectl must not find a client certificate in the kubeconfig.
	return &cluster{t, filepath.Join(binaries, "kubectl"), filepath.Join(filepath.Dir(ready.Kubeconfig), "token.kubeconfig")}
}

func (c *cluster) command(input string, arguments ...string) *exec.Cmd {
	command := exec.Command(c.kubectl, append([]string{"--kubeconfig", c.kubeconfig}, arguments...)...)
	command.Stdin = strings.NewReader(input)
	return command
}

func (c *cluster) run(input string, arguments ...string) string {
	c.t.Helper()
	output, err := c.command(input, arguments...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
	return strings.TrimSpace(string(output))
}

func (c *cluster) want(text, input string, arguments ...string) {
	c.t.Helper()
	if output := c.run(input, arguments...); !strings.Contains(output, text) {
		c.t.Errorf("kubectl %s: %q, want %q in it", strings.Join(arguments, " "), output, text)
	}
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return -1
}
