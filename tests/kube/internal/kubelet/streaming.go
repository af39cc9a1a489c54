package kubelet

import (
	"context"
	"fmt"
	"io"
	"net"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// streamRuntime is the container runtime behind the streaming server.
type streamRuntime struct{ kubelet *Kubelet }

// Exec runs a process of this machine in the folder and with the variables of a container.
func (s *streamRuntime) Exec(
	ctx context.Context, id string, words []string, in io.Reader, out, errs io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize,
) error {
	c := s.kubelet.byID(id)
	if c == nil || !c.running() {
		return fmt.Errorf("container %s is not running", id)
	}
	environment, err := s.environment(c)
	if err != nil {
		return err
	}
	streams := processStreams{stdin: in != nil, tty: tty}
	// A nil io.WriteCloser must not become an io.Writer that is not nil.
	if out != nil {
		streams.stdout = out
	}
	if errs != nil {
		streams.stderr = errs
	}
	command, err := startCommand(words, environment, c.dir(), streams)
	if err != nil {
		return fmt.Errorf("exec failed: unable to start container process: %w", err)
	}
	c.addCommand(command)
	defer c.removeCommand(command)
	ended := make(chan struct{})
	defer close(ended)
	go followSize(command, resize, ended)
	if in != nil {
		go func() {
			_, _ = io.Copy(command.stdin(), in)
			_ = command.stdin().Close()
		}()
	}
	go func() {
		select {
		case <-ctx.Done():
			command.kill()
		case <-ended:
		}
	}()
	if code := command.wait(); code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: int(code)}
	}
	return nil
}

func (s *streamRuntime) environment(c *container) (map[string]string, error) {
	namespace, name, err := cache.SplitMetaNamespaceKey(c.pod.key)
	if err != nil {
		return nil, err
	}
	object, err := s.kubelet.lister.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("pod %s does not exist", c.pod.key)
	}
	if err != nil {
		return nil, err
	}
	c.pod.mutex.Lock()
	var spec corev1.Container = *c.spec
	c.pod.mutex.Unlock()
	return s.kubelet.environment(object, &spec, c.pod.ip, c.pod.dir)
}

func followSize(p process, sizes <-chan remotecommand.TerminalSize, ended <-chan struct{}) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			p.resize(size.Width, size.Height)
		case <-ended:
			return
		}
	}
}

// Attach connects a client to the streams of a container until the container or the client ends. As with containerd the
// end of the client's input closes that of the container if stdinOnce is set, and otherwise detaches.
func (s *streamRuntime) Attach(
	ctx context.Context, id string, in io.Reader, out, errs io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize,
) error {
	c := s.kubelet.byID(id)
	if c == nil || !c.running() {
		return fmt.Errorf("container %s is not running", id)
	}
	c.mutex.Lock()
	running, output := c.process, c.output
	c.mutex.Unlock()
	c.pod.mutex.Lock()
	takesInput, once := c.spec.Stdin, c.spec.StdinOnce
	c.pod.mutex.Unlock()

	a := &attachment{failed: make(chan struct{})}
	if out != nil {
		a.stdout = out
	}
	if errs != nil {
		a.stderr = errs
	}
	output.attach(a)
	defer output.detach(a)
	ended := make(chan struct{})
	defer close(ended)
	go followSize(running, resize, ended)
	if in != nil && takesInput && running.stdin() != nil {
		go func() {
			_, _ = io.Copy(running.stdin(), in)
			if once {
				_ = running.stdin().Close()
			} else {
				a.fail()
			}
		}()
	}
	select {
	case <-output.done:
	case <-a.failed:
	case <-ctx.Done():
	}
	return nil
}

// PortForward connects a stream to the server of a pod's port.
func (s *streamRuntime) PortForward(_ context.Context, key string, port int32, stream io.ReadWriteCloser) error {
	p := s.kubelet.find(key)
	if p == nil {
		return fmt.Errorf("pod %s does not exist", key)
	}
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	object, err := s.kubelet.lister.Pods(namespace).Get(name)
	if err != nil {
		return err
	}
	address, err := p.ports.address(port, object.Spec.Containers)
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close()
	go func() {
		_, _ = io.Copy(connection, stream)
		_ = connection.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, connection)
	return err
}
