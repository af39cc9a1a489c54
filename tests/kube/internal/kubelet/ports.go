package kubelet

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// portServers are what the ports of one pod are forwarded to: servers on loopback, opened when first asked for. Each
// answers HTTP with the pod, the port and the path, and sends back whatever does not begin like HTTP.
type portServers struct {
	pod string

	mutex     sync.Mutex
	closed    bool
	listeners map[int32]net.Listener
}

func newPortServers(pod string) *portServers {
	return &portServers{pod: pod, listeners: map[int32]net.Listener{}}
}

// address returns where the server of a port listens. Of a pod that declares ports only those are open.
func (p *portServers) address(port int32, containers []corev1.Container) (string, error) {
	if !open(port, containers) {
		return "", fmt.Errorf("failed to connect to localhost:%d inside pod %s: connection refused", port, p.pod)
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.closed {
		return "", fmt.Errorf("pod %s has ended", p.pod)
	}
	if listener, found := p.listeners[port]; found {
		return listener.Addr().String(), nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	p.listeners[port] = listener
	go p.accept(listener, port)
	return listener.Addr().String(), nil
}

func open(port int32, containers []corev1.Container) bool {
	declared := false
	for _, c := range containers {
		for _, candidate := range c.Ports {
			declared = true
			if candidate.ContainerPort == port {
				return true
			}
		}
	}
	return !declared
}

func (p *portServers) close() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.closed = true
	for _, listener := range p.listeners {
		_ = listener.Close()
	}
}

func (p *portServers) accept(listener net.Listener, port int32) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go p.handle(connection, port)
	}
}

func (p *portServers) handle(connection net.Conn, port int32) {
	defer connection.Close()
	reader := bufio.NewReader(connection)
	if _, err := reader.Peek(1); err != nil {
		return
	}
	first, _ := reader.Peek(reader.Buffered())
	if !beginsLikeHTTP(string(first)) {
		_, _ = io.Copy(connection, reader)
		return
	}
	for {
		request, err := http.ReadRequest(reader)
		if err != nil || p.answer(connection, request, port) != nil || request.Close {
			return
		}
	}
}

func (p *portServers) answer(connection net.Conn, request *http.Request, port int32) error {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("pod=%s port=%d method=%s path=%s body=%s\n", p.pod, port, request.Method, request.URL.RequestURI(), body)
	response := &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: request, Close: request.Close,
		Header:        http.Header{"Content-Type": {"text/plain"}},
		ContentLength: int64(len(text)), Body: io.NopCloser(strings.NewReader(text)),
	}
	return response.Write(connection)
}

func beginsLikeHTTP(data string) bool {
	for _, method := range []string{"GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS "} {
		if strings.HasPrefix(data, method) {
			return true
		}
	}
	return false
}
