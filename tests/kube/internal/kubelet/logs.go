package kubelet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/util/flushwriter"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	// Registers the conversion from a query to PodLogOptions, which client-go does not have.
	_ "k8s.io/kubernetes/pkg/apis/core/install"
)

// containerLogs serves GET /containerLogs/{namespace}/{pod}/{container}: the kubelet's own reader over our log files, so
// that every option of `kubectl logs` means what it should.
func (k *Kubelet) containerLogs(w http.ResponseWriter, r *http.Request) {
	c := k.containerOf(w, r)
	if c == nil {
		return
	}
	options := &corev1.PodLogOptions{}
	if err := legacyscheme.ParameterCodec.DecodeParameters(r.URL.Query(), corev1.SchemeGroupVersion, options); err != nil {
		http.Error(w, `{"message": "Unable to decode query."}`, http.StatusBadRequest)
		return
	}
	path, id, err := c.logOf(options.Previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writer := io.Writer(flushwriter.Wrap(w))
	stdout, stderr := writer, writer
	if options.Stream != nil {
		switch *options.Stream {
		case corev1.LogStreamStdout:
			stderr = nil
		case corev1.LogStreamStderr:
			stdout = nil
		}
	}
	w.WriteHeader(http.StatusOK)
	// Tells a follower of a silent container that the log was found.
	w.(http.Flusher).Flush()
	err = logs.ReadLogs(r.Context(), path, id, readerOptions(options), &logRuntime{kubelet: k}, stdout, stderr)
	if err != nil && r.Context().Err() == nil {
		_, _ = fmt.Fprintln(w, err)
	}
}

func readerOptions(options *corev1.PodLogOptions) *logs.LogOptions {
	reader := &logs.LogOptions{
		TailLines: options.TailLines, LimitBytes: options.LimitBytes, Follow: options.Follow, Timestamp: options.Timestamps,
	}
	if options.SinceSeconds != nil {
		reader.Since = time.Now().Add(-time.Duration(*options.SinceSeconds) * time.Second)
	}
	if options.SinceTime != nil {
		reader.Since = options.SinceTime.Time
	}
	return reader
}

// logOf returns the file of the newest run of a container, or of the one that ended last before it, and the ID of the
// container.
func (c *container) logOf(previous bool) (path, id string, err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.id == "" && !previous {
		reason := "ContainerCreating"
		if c.state.Waiting != nil {
			reason = c.state.Waiting.Reason
		}
		return "", "", fmt.Errorf("container %q in pod %q is waiting to start: %s", c.name, c.pod.name(), reason)
	}
	run, which := c.restart, "log of"
	if previous {
		which = "previous terminated"
		if c.state.Waiting == nil {
			run--
		}
	}
	path = c.logPath(run)
	if _, err := os.Stat(path); err != nil {
		return "", "", fmt.Errorf("%s container %q in pod %q not found", which, c.name, c.pod.name())
	}
	return path, c.id, nil
}

func (p *pod) name() string {
	_, name, _ := strings.Cut(p.key, "/")
	return name
}

// logRuntime answers the one question that the log reader asks of a container runtime: whether more may come.
type logRuntime struct {
	internalapi.RuntimeService
	kubelet *Kubelet
}

func (l *logRuntime) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	status := &runtimeapi.ContainerStatus{Id: id, State: runtimeapi.ContainerState_CONTAINER_EXITED}
	if c := l.kubelet.byID(id); c != nil && c.running() {
		status.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	}
	return &runtimeapi.ContainerStatusResponse{Status: status}, nil
}

// byID returns the container whose newest run has this ID, or nil.
func (k *Kubelet) byID(id string) *container {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for _, p := range k.pods {
		if c := p.byID(id); c != nil {
			return c
		}
	}
	return nil
}

func (p *pod) byID(id string) *container {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, c := range p.order {
		c.mutex.Lock()
		match := c.id == id
		c.mutex.Unlock()
		if match {
			return c
		}
	}
	return nil
}
