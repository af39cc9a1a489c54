package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	podutil "k8s.io/kubernetes/pkg/util/pod"
	"k8s.io/utils/ptr"
)

// pod is what runs here for one pod object.
type pod struct {
	kubelet *Kubelet
	key     string
	uid     types.UID
	dir     string
	ip      string
	start   metav1.Time
	ports   *portServers

	mutex sync.Mutex
	// removed is set once; nothing starts after that.
	removed    bool
	containers map[string]*container
	// order is that in which the containers were first seen.
	order []*container
}

func newPod(k *Kubelet, key string, object *corev1.Pod) *pod {
	p := &pod{
		kubelet: k, key: key, uid: object.UID, dir: k.podDir(object.UID),
		ip: object.Status.PodIP, start: metav1.Now(), containers: map[string]*container{},
	}
	if object.Spec.HostNetwork {
		p.ip = k.Address
	} else if p.ip == "" {
		p.ip = k.allocateIP()
	}
	if object.Status.StartTime != nil {
		p.start = *object.Status.StartTime
	}
	p.ports = newPortServers(key)
	return p
}

// reconcile brings what runs here, and the status of the pod, in line with the pod object.
func (k *Kubelet) reconcile(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	object, err := k.lister.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		k.forget(key, "")
		return nil
	}
	if err != nil {
		return err
	}
	finished := object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed
	if object.DeletionTimestamp != nil {
		return k.finishDeletion(ctx, key, object, finished)
	}
	p := k.podFor(key, object)
	if finished {
		p.adopt(object)
		return nil
	}
	p.sync(object)
	if phase := p.status(object).Phase; phase == corev1.PodSucceeded || phase == corev1.PodFailed {
		// Sidecars are all that may still run.
		p.kill()
	}
	return p.reportStatus(ctx, object)
}

// finishDeletion kills the containers, reports their end, and removes the object. No grace is given.
func (k *Kubelet) finishDeletion(ctx context.Context, key string, object *corev1.Pod, finished bool) error {
	if p := k.find(key); p != nil && p.uid == object.UID && !finished {
		k.recorder.Event(object, corev1.EventTypeNormal, "Killing", "Stopping container")
		p.kill()
		if err := p.reportStatus(ctx, object); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	err := k.Client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To(int64(0)),
		Preconditions:      &metav1.Preconditions{UID: &object.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return err
	}
	if len(object.Finalizers) == 0 {
		k.forget(key, object.UID)
	}
	return nil
}

func (p *pod) reportStatus(ctx context.Context, object *corev1.Pod) error {
	status := p.status(object)
	_, _, _, err := podutil.PatchPodStatus(ctx, p.kubelet.Client, object.Namespace, object.Name, object.UID, object.Status, *status)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		// Gone or replaced: the next event says so.
		return nil
	}
	return err
}

// sync starts every container whose turn it is: init containers one after the other, then the others.
func (p *pod) sync(object *corev1.Pod) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.removed {
		return
	}
	for index := range object.Spec.InitContainers {
		spec := &object.Spec.InitContainers[index]
		sidecar := isSidecar(spec)
		c := p.container(spec, object.Status.InitContainerStatuses)
		policy := object.Spec.RestartPolicy
		if sidecar {
			policy = corev1.RestartPolicyAlways
		} else if policy == corev1.RestartPolicyAlways {
			policy = corev1.RestartPolicyOnFailure
		}
		c.advance(object, policy)
		if !c.succeeded() && !(sidecar && c.running()) {
			return
		}
	}
	for index := range object.Spec.Containers {
		p.container(&object.Spec.Containers[index], object.Status.ContainerStatuses).advance(object, object.Spec.RestartPolicy)
	}
	for index := range object.Spec.EphemeralContainers {
		spec := corev1.Container(object.Spec.EphemeralContainers[index].EphemeralContainerCommon)
		p.container(&spec, object.Status.EphemeralContainerStatuses).advance(object, corev1.RestartPolicyNever)
	}
}

// adopt makes the containers of a finished pod known, for their logs.
func (p *pod) adopt(object *corev1.Pod) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for index := range object.Spec.InitContainers {
		p.container(&object.Spec.InitContainers[index], object.Status.InitContainerStatuses)
	}
	for index := range object.Spec.Containers {
		p.container(&object.Spec.Containers[index], object.Status.ContainerStatuses)
	}
}

// container returns the container of a name, as it is here or as an earlier run reported it. The caller holds p.mutex.
func (p *pod) container(spec *corev1.Container, reported []corev1.ContainerStatus) *container {
	c, found := p.containers[spec.Name]
	if !found {
		c = newContainer(p, spec, reported)
		p.containers[spec.Name] = c
		p.order = append(p.order, c)
	}
	c.spec = spec
	return c
}

// findContainer returns the container of a name, or nil if it never had its turn.
func (p *pod) findContainer(name string) *container {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.containers[name]
}

// kill ends all processes and waits for their ends.
func (p *pod) kill() {
	p.mutex.Lock()
	p.removed = true
	containers := p.order
	p.mutex.Unlock()
	p.ports.close()
	for _, c := range containers {
		c.kill()
	}
}

// remove is kill, and removes the files.
func (p *pod) remove() {
	p.kill()
	// Followers of a log that still have it open read it to its end.
	_ = os.RemoveAll(p.dir)
}

func (p *pod) logDir(container string) string { return filepath.Join(p.dir, "logs", container) }
