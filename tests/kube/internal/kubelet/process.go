package kubelet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// killedCode is the exit code of what SIGKILL ended.
const killedCode = 128 + int32(syscall.SIGKILL)

// process is something that runs in a container.
type process interface {
	// stdin is nil if the process has none.
	stdin() io.WriteCloser
	// resize changes the size of the terminal, if there is one.
	resize(width, height uint16)
	// kill ends the process and its children. It may be called at any time, and more than once.
	kill()
	// wait returns the exit code once the process has ended and all its output is written. Call it once.
	wait() int32
}

// startContainerProcess runs a container's command, or idles where the command is that of an image or not on this machine.
func startContainerProcess(spec *corev1.Container, environment map[string]string, dir string, out *output) (process, error) {
	mapping := expansion.MappingFuncFor(environment)
	var command []string
	for _, word := range append(append([]string{}, spec.Command...), spec.Args...) {
		command = append(command, expansion.Expand(word, mapping))
	}
	if len(command) > 0 {
		if _, err := exec.LookPath(command[0]); err == nil {
			return startCommand(command, environment, dir, processStreams{
				stdin: spec.Stdin, tty: spec.TTY, stdout: out.stream("stdout"), stderr: out.stream("stderr"),
			})
		}
	}
	return startIdle(spec, command, out), nil
}

// idle stands in for a program that is not here.
type idle struct {
	writer *io.PipeWriter
	reader *io.PipeReader
	ended  chan struct{}
	once   sync.Once
	done   chan struct{}
}

func startIdle(spec *corev1.Container, command []string, out *output) *idle {
	i := &idle{ended: make(chan struct{}), done: make(chan struct{})}
	i.reader, i.writer = io.Pipe()
	stdout := out.stream("stdout")
	go func() {
		defer close(i.done)
		_, _ = fmt.Fprintf(stdout, "container %s of image %s runs (stand-in for %q)\n", spec.Name, spec.Image, strings.Join(command, " "))
		_, _ = io.Copy(stdout, i.reader)
		<-i.ended
	}()
	return i
}

func (i *idle) stdin() io.WriteCloser       { return i.writer }
func (i *idle) resize(width, height uint16) {}

func (i *idle) kill() {
	i.once.Do(func() {
		_ = i.writer.Close()
		_ = i.reader.Close()
		close(i.ended)
	})
}

func (i *idle) wait() int32 {
	<-i.done
	return killedCode
}

// command is a process of this machine.
type command struct {
	cmd      *exec.Cmd
	input    io.WriteCloser
	terminal *os.File
	copied   chan struct{}
}

// processStreams says what a command is connected to.
type processStreams struct {
	stdin, tty     bool
	stdout, stderr io.Writer
	// width and height of a new terminal, if known.
	width, height uint16
}

func startCommand(words []string, environment map[string]string, dir string, streams processStreams) (*command, error) {
	c := &command{cmd: exec.Command(words[0], words[1:]...), copied: make(chan struct{})}
	c.cmd.Dir = dir
	for name, value := range environment {
		c.cmd.Env = append(c.cmd.Env, name+"="+value)
	}
	if streams.tty {
		return c, c.startInTerminal(streams)
	}
	close(c.copied)
	c.cmd.SysProcAttr = processGroup()
	if streams.stdout != nil {
		c.cmd.Stdout = streams.stdout
	}
	if streams.stderr != nil {
		c.cmd.Stderr = streams.stderr
	}
	if streams.stdin {
		var err error
		if c.input, err = c.cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	return c, c.cmd.Start()
}

func (c *command) startInTerminal(streams processStreams) error {
	c.cmd.Env = append(c.cmd.Env, "TERM=xterm")
	size := &pty.Winsize{Cols: streams.width, Rows: streams.height}
	if size.Cols == 0 || size.Rows == 0 {
		size = &pty.Winsize{Cols: 80, Rows: 24}
	}
	terminal, err := pty.StartWithSize(c.cmd, size)
	if err != nil {
		return err
	}
	c.terminal = terminal
	if streams.stdin {
		c.input = terminalInput{terminal}
	}
	go func() {
		defer close(c.copied)
		if streams.stdout != nil {
			// Reading fails with EIO once the last process of the terminal is gone.
			_, _ = io.Copy(streams.stdout, terminal)
		}
	}()
	return nil
}

// terminalInput ends the input of a terminal as a person would: with ^D.
type terminalInput struct{ terminal *os.File }

func (t terminalInput) Write(data []byte) (int, error) { return t.terminal.Write(data) }

func (t terminalInput) Close() error {
	_, err := t.terminal.Write([]byte{4})
	return err
}

func (c *command) stdin() io.WriteCloser { return c.input }

func (c *command) resize(width, height uint16) {
	if c.terminal != nil {
		_ = pty.Setsize(c.terminal, &pty.Winsize{Cols: width, Rows: height})
	}
}

// kill sends to the whole group: the process leads one, in its own session if it has a terminal.
func (c *command) kill() { _ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }

func (c *command) wait() int32 {
	err := c.cmd.Wait()
	<-c.copied
	if c.terminal != nil {
		_ = c.terminal.Close()
	}
	if c.input != nil {
		_ = c.input.Close()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int32(status.Signal())
		}
		return int32(exit.ExitCode())
	}
	// Any other error means that a client did not take the output: the process itself ended well.
	return 0
}
