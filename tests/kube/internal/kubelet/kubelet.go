// Package kubelet stands in for the kubelet and the container runtime of one node.
//
// To the API server it is a node like any other: it registers, sends heartbeats, reports the status of its pods, and serves
// the kubelet's HTTPS endpoints with the streaming code of the real one. What it has no part of is isolation: a container
// whose command exists on this machine is a plain process in a folder of its own, and any other container idles, copying
// its standard input to its standard output. There are no images, volumes, probes or pod networks.
package kubelet

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/umbra-dev/umbra/tests/kube/internal/pki"
)

// workers is how many pods change at a time.
const workers = 8

// Kubelet is one node. Set the exported fields, then call Run once.
type Kubelet struct {
	NodeName string
	// PodNetwork makes the pod addresses of this node 10.244.PodNetwork.0/24 and on.
	PodNetwork int
	// Address is what the HTTPS endpoints listen on, and the node's InternalIP.
	Address string
	// Dir holds the folders and logs of the containers.
	Dir    string
	PKI    *pki.Cluster
	Client kubernetes.Interface

	ctx context.Context
	// port is that of the HTTPS endpoints.
	port     int32
	queue    workqueue.TypedRateLimitingInterface[string]
	lister   corelisters.PodLister
	recorder record.EventRecorder

	mutex sync.Mutex
	// pods are those with containers here, by namespace/name.
	pods    map[string]*pod
	nextPod int
}

// Run registers the node and runs its pods until ctx is done. Then the processes of all containers are killed; the pods
// stay in the API, and a Run after that starts them again.
func (k *Kubelet) Run(ctx context.Context) error {
	k.ctx = ctx
	k.pods = map[string]*pod{}
	k.queue = workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	stopEvents := k.startEvents()
	defer stopEvents()

	stopServing, err := k.serve()
	if err != nil {
		return err
	}
	defer stopServing()
	if err := k.register(ctx); err != nil {
		return fmt.Errorf("register node %s: %w", k.NodeName, err)
	}

	factory := informers.NewSharedInformerFactoryWithOptions(k.Client, 0,
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", k.NodeName).String()
		}))
	informer := factory.Core().V1().Pods()
	k.lister = informer.Lister()
	if _, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    k.enqueue,
		UpdateFunc: func(_, object any) { k.enqueue(object) },
		DeleteFunc: k.enqueue,
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())

	var group sync.WaitGroup
	group.Go(func() { k.heartbeat(ctx) })
	for range workers {
		group.Go(k.work)
	}
	<-ctx.Done()
	k.queue.ShutDown()
	group.Wait()
	factory.Shutdown()
	k.killAll()
	return nil
}

func (k *Kubelet) startEvents() (stop func()) {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: k.Client.CoreV1().Events("")})
	k.recorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: k.NodeName})
	return broadcaster.Shutdown
}

func (k *Kubelet) enqueue(object any) {
	if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
		k.queue.Add(key)
	}
}

func (k *Kubelet) work() {
	for {
		key, shutdown := k.queue.Get()
		if shutdown {
			return
		}
		if err := k.reconcile(k.ctx, key); err != nil && k.ctx.Err() == nil {
			klog.ErrorS(err, "Pod", "pod", key)
			k.queue.AddRateLimited(key)
		} else {
			k.queue.Forget(key)
		}
		k.queue.Done(key)
	}
}

// podFor returns what runs for an object, and creates it if nothing does. What ran for an object of the same name
// and another UID ends.
func (k *Kubelet) podFor(key string, object *corev1.Pod) *pod {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if p, found := k.pods[key]; found {
		if p.uid == object.UID {
			return p
		}
		p.remove()
	}
	p := newPod(k, key, object)
	k.pods[key] = p
	return p
}

// find returns the pod with containers here, or nil.
func (k *Kubelet) find(key string) *pod {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.pods[key]
}

func (k *Kubelet) forget(key string, uid types.UID) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if p, found := k.pods[key]; found && (uid == "" || p.uid == uid) {
		p.remove()
		delete(k.pods, key)
	}
}

func (k *Kubelet) killAll() {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for _, p := range k.pods {
		p.kill()
	}
}

// allocateIP returns an address that no other pod of this node got. The caller holds k.mutex.
func (k *Kubelet) allocateIP() string {
	k.nextPod++
	return net.IPv4(10, 244+byte(k.nextPod>>8)%8, byte(k.PodNetwork), byte(k.nextPod)).String()
}

func (k *Kubelet) podDir(uid types.UID) string { return filepath.Join(k.Dir, "pods", string(uid)) }

// backoff is how long a container that ended waits before it starts again: 1 s, doubled each time, at most 30 s. The
// kubelet takes ten times as long.
func backoff(restarts int32) time.Duration {
	return min(time.Second<<min(restarts, 5), 30*time.Second)
}
