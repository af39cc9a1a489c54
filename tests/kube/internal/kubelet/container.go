package kubelet

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// idScheme prefixes container IDs, as containerd:// does.
const idScheme = "stand-in://"

// container is one container of a pod over all its restarts.
type container struct {
	pod  *pod
	name string
	// spec is the newest. Guarded by pod.mutex.
	spec *corev1.Container

	mutex sync.Mutex
	// id is that of the newest run, empty before the first; restart is the number of that run.
	id      string
	state   corev1.ContainerState
	last    corev1.ContainerState
	restart int32
	// retryAt is when a waiting or ended container may start.
	retryAt time.Time
	process process
	output  *output
	// ended is closed when the end of process is in state.
	ended chan struct{}
	// commands are processes that exec started here.
	commands map[process]struct{}
}

// newContainer takes up what an earlier run of this program reported: what ended stays ended, what ran was killed.
func newContainer(p *pod, spec *corev1.Container, reported []corev1.ContainerStatus) *container {
	c := &container{pod: p, name: spec.Name, spec: spec, commands: map[process]struct{}{}}
	for _, status := range reported {
		if status.Name != spec.Name || status.ContainerID == "" {
			continue
		}
		c.id, c.restart, c.last = strings.TrimPrefix(status.ContainerID, idScheme), status.RestartCount, status.LastTerminationState
		c.state = status.State
		if status.State.Running != nil {
			c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 137, Reason: "ContainerStatusUnknown", StartedAt: status.State.Running.StartedAt,
				FinishedAt: metav1.Now(), ContainerID: status.ContainerID,
			}}
		}
	}
	return c
}

// advance starts the container if it has not run, or has ended and policy wants it again.
func (c *container) advance(object *corev1.Pod, policy corev1.RestartPolicy) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.state.Running != nil {
		return
	}
	if ended := c.state.Terminated; ended != nil {
		if policy == corev1.RestartPolicyNever || policy == corev1.RestartPolicyOnFailure && ended.ExitCode == 0 {
			return
		}
		c.last = corev1.ContainerState{Terminated: ended}
		// The first restart is at once, as the kubelet's.
		if c.restart > 0 {
			c.retryAt = ended.FinishedAt.Add(backoff(c.restart))
		}
		c.wait("CrashLoopBackOff", fmt.Sprintf("restarting failed container=%s", c.name))
	}
	if delay := time.Until(c.retryAt); delay > 0 {
		c.pod.kubelet.queue.AddAfter(c.pod.key, delay)
		return
	}
	if reason, err := c.start(object); err != nil {
		c.retryAt = time.Now().Add(2 * time.Second)
		c.wait(reason, err.Error())
		c.pod.kubelet.queue.AddAfter(c.pod.key, 2*time.Second)
	}
}

func (c *container) wait(reason, message string) {
	c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// start runs the container once. On failure it returns the reason that the kubelet would give.
func (c *container) start(object *corev1.Pod) (reason string, err error) {
	recorder := c.pod.kubelet.recorder
	if host, _, _ := strings.Cut(c.spec.Image, "/"); strings.HasSuffix(host, ".invalid") {
		recorder.Eventf(object, corev1.EventTypeWarning, "Failed", "Failed to pull image %q: no such host", c.spec.Image)
		return "ImagePullBackOff", fmt.Errorf("Back-off pulling image %q", c.spec.Image)
	}
	environment, err := c.pod.kubelet.environment(object, c.spec, c.pod.ip, c.pod.dir)
	if err != nil {
		return "CreateContainerConfigError", err
	}
	if err := os.MkdirAll(c.dir(), 0o755); err != nil {
		return "CreateContainerError", err
	}
	run := c.restart
	if c.id != "" {
		run++
	}
	out, err := newOutput(c.logPath(run))
	if err != nil {
		return "CreateContainerError", err
	}
	id := make([]byte, 32)
	if _, err := rand.Read(id); err != nil {
		return "CreateContainerError", err
	}
	running, err := startContainerProcess(c.spec, environment, c.dir(), out)
	if err != nil {
		out.close()
		return "RunContainerError", err
	}
	recorder.Eventf(object, corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine", c.spec.Image)
	recorder.Eventf(object, corev1.EventTypeNormal, "Started", "Started container %s", c.name)
	c.id, c.restart = hex.EncodeToString(id), run
	c.process, c.output, c.ended = running, out, make(chan struct{})
	c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	go c.watch(running, out, c.ended)
	return "", nil
}

// watch waits for the process's end and reports it.
func (c *container) watch(running process, out *output, ended chan struct{}) {
	code := running.wait()
	out.close()
	c.mutex.Lock()
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: reason, StartedAt: c.state.Running.StartedAt, FinishedAt: metav1.Now(), ContainerID: idScheme + c.id,
	}}
	c.mutex.Unlock()
	close(ended)
	c.pod.kubelet.queue.Add(c.pod.key)
}

// kill ends the process and those of exec, and waits until the end of the former is in the state.
func (c *container) kill() {
	c.mutex.Lock()
	running, ended := c.process, c.ended
	alive := c.state.Running != nil
	for command := range c.commands {
		command.kill()
	}
	c.mutex.Unlock()
	if alive {
		running.kill()
		<-ended
	}
}

func (c *container) running() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.state.Running != nil
}

func (c *container) succeeded() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

func (c *container) status(spec *corev1.Container) corev1.ContainerStatus {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	started := c.state.Running != nil
	status := corev1.ContainerStatus{
		Name:                 c.name,
		Image:                spec.Image,
		State:                *c.state.DeepCopy(),
		LastTerminationState: *c.last.DeepCopy(),
		RestartCount:         c.restart,
		Started:              &started,
	}
	if c.id != "" {
		status.ContainerID, status.ImageID = idScheme+c.id, idScheme+spec.Image
	}
	if started {
		status.AllocatedResources = spec.Resources.Requests
		status.Resources = &corev1.ResourceRequirements{Requests: spec.Resources.Requests, Limits: spec.Resources.Limits}
	}
	return status
}

// addCommand remembers a process of exec, or kills it if the container has ended meanwhile.
func (c *container) addCommand(command process) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.state.Running == nil {
		command.kill()
		return
	}
	c.commands[command] = struct{}{}
}

func (c *container) removeCommand(command process) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.commands, command)
}

// dir is the working directory, $HOME and $TMPDIR of the container's processes.
func (c *container) dir() string { return filepath.Join(c.pod.dir, "containers", c.name) }

func (c *container) logPath(restart int32) string {
	return filepath.Join(c.pod.logDir(c.name), fmt.Sprintf("%d.log", restart))
}
