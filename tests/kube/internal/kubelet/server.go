package kubelet

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"

	"github.com/umbra-dev/umbra/tests/kube/internal/pki"
)

// endpoints are the kubelet's HTTPS endpoints. As in the real one they stand before a streaming server on loopback, that of
// the container runtime, to which upgraded connections are handed through.
type endpoints struct {
	*Kubelet
	streams streaming.Server
}

// serve starts both servers, sets k.port, and returns what ends them.
func (k *Kubelet) serve() (stop func(), err error) {
	streams, stopStreams, err := k.serveStreams()
	if err != nil {
		return nil, err
	}
	certificate, err := tls.LoadX509KeyPair(k.PKI.KubeletCert, k.PKI.KubeletKey)
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(k.PKI.CA.CertFile)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority)
	listener, err := net.Listen("tcp", net.JoinHostPort(k.Address, "0"))
	if err != nil {
		return nil, err
	}
	k.port = int32(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{
		Handler: onlyAPIServer((&endpoints{k, streams}).routes()),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    clients,
			MinVersion:   tls.VersionTLS12,
		},
	}
	go func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			klog.ErrorS(err, "Kubelet endpoints", "node", k.NodeName)
		}
	}()
	return func() {
		_ = server.Close()
		stopStreams()
	}, nil
}

func (k *Kubelet) serveStreams() (streaming.Server, func(), error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: listener.Addr().String(), Path: "/"}
	streams, err := streaming.NewServer(config, &streamRuntime{k})
	if err != nil {
		return nil, nil, err
	}
	server := &http.Server{Handler: streams}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			klog.ErrorS(err, "Streaming server", "node", k.NodeName)
		}
	}()
	return streams, func() { _ = server.Close() }, nil
}

// onlyAPIServer refuses everyone but the API server: client certificates of the cluster's users come from the same authority.
func onlyAPIServer(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user := r.TLS.PeerCertificates[0].Subject.CommonName; user != pki.KubeletClientName {
			http.Error(w, fmt.Sprintf("Forbidden (user=%s)", user), http.StatusForbidden)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

func (e *endpoints) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("GET /pods", e.listPods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", e.containerLogs)
	for _, method := range []string{"GET", "POST"} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", e.exec)
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", e.exec)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", e.attach)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{uid}/{container}", e.attach)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", e.portForward)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", e.portForward)
	}
	return mux
}

func (e *endpoints) listPods(w http.ResponseWriter, _ *http.Request) {
	pods, err := e.lister.List(labels.Everything())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
	for _, object := range pods {
		list.Items = append(list.Items, *object)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

// podOf returns the pod that the path names. If there is none it answers and returns nil.
func (k *Kubelet) podOf(w http.ResponseWriter, r *http.Request) *pod {
	p := k.find(r.PathValue("namespace") + "/" + r.PathValue("pod"))
	if uid := r.PathValue("uid"); p == nil || uid != "" && uid != string(p.uid) {
		http.Error(w, fmt.Sprintf("pod %q does not exist", r.PathValue("pod")), http.StatusNotFound)
		return nil
	}
	return p
}

func (k *Kubelet) containerOf(w http.ResponseWriter, r *http.Request) *container {
	p := k.podOf(w, r)
	if p == nil {
		return nil
	}
	c := p.findContainer(r.PathValue("container"))
	if c == nil {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", r.PathValue("container"), r.PathValue("pod")), http.StatusNotFound)
	}
	return c
}

// runningID returns the ID of the container that the path names if it runs; otherwise it answers.
func (k *Kubelet) runningID(w http.ResponseWriter, r *http.Request) string {
	c := k.containerOf(w, r)
	if c == nil {
		return ""
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.state.Running == nil {
		http.Error(w, fmt.Sprintf("container not found (%q)", c.name), http.StatusInternalServerError)
		return ""
	}
	return c.id
}

func (e *endpoints) exec(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := e.runningID(w, r)
	if id == "" {
		return
	}
	response, err := e.streams.GetExec(&runtimeapi.ExecRequest{
		ContainerId: id, Cmd: r.URL.Query()[corev1.ExecCommandParam],
		Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.TTY,
	})
	if err != nil {
		_ = streaming.WriteError(err, w)
		return
	}
	serveRemoteCommand(w, r, response.Url, options)
}

func (e *endpoints) attach(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := e.runningID(w, r)
	if id == "" {
		return
	}
	response, err := e.streams.GetAttach(&runtimeapi.AttachRequest{
		ContainerId: id, Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.TTY,
	})
	if err != nil {
		_ = streaming.WriteError(err, w)
		return
	}
	serveRemoteCommand(w, r, response.Url, options)
}

// serveRemoteCommand hands the connection to the streaming server, as getExec of pkg/kubelet/server does: WebSocket
// connections of version 5 are translated to SPDY on the way.
func serveRemoteCommand(w http.ResponseWriter, r *http.Request, target string, options *remotecommand.Options) {
	location, err := url.Parse(target)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var handler http.Handler = proxy.NewUpgradeAwareHandler(location, nil, false, true, responder{})
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		handler = translator.NewStreamTranslatorHandler(location, nil, 0, translator.Options{
			Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.TTY,
		})
	}
	handler.ServeHTTP(w, r)
}

func (e *endpoints) portForward(w http.ResponseWriter, r *http.Request) {
	tunnel := wsstream.IsWebSocketRequestWithTunnelingProtocol(r)
	options := &portforward.V4Options{}
	if !tunnel {
		var err error
		if options, err = portforward.NewV4Options(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	p := e.podOf(w, r)
	if p == nil {
		return
	}
	response, err := e.streams.GetPortForward(&runtimeapi.PortForwardRequest{PodSandboxId: p.key, Port: options.Ports})
	if err != nil {
		_ = streaming.WriteError(err, w)
		return
	}
	location, err := url.Parse(response.Url)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var handler http.Handler = proxy.NewUpgradeAwareHandler(location, nil, false, true, responder{})
	if tunnel {
		handler = translator.NewTunnelingHandler(handler)
	}
	handler.ServeHTTP(w, r)
}

type responder struct{}

func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}
