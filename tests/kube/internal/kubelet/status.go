package kubelet

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ReadyAnnotation set to "false" keeps a running pod from becoming ready.
const ReadyAnnotation = "kubelet.umbra.dev/ready"

// status is what the pod's status should be now.
func (p *pod) status(object *corev1.Pod) *corev1.PodStatus {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	status := object.Status.DeepCopy()
	status.ObservedGeneration = object.Generation
	status.HostIP, status.HostIPs = p.kubelet.Address, []corev1.HostIP{{IP: p.kubelet.Address}}
	status.PodIP, status.PodIPs = p.ip, []corev1.PodIP{{IP: p.ip}}
	status.StartTime = &p.start

	mayBeReady := object.Annotations[ReadyAnnotation] != "false"
	initialized, containersReady := true, mayBeReady
	status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses = nil, nil, nil
	for index := range object.Spec.InitContainers {
		spec := &object.Spec.InitContainers[index]
		s := p.containerStatus(spec, "PodInitializing")
		s.Ready = s.State.Terminated != nil && s.State.Terminated.ExitCode == 0 ||
			isSidecar(spec) && s.State.Running != nil
		initialized = initialized && s.Ready
		status.InitContainerStatuses = append(status.InitContainerStatuses, s)
	}
	for index := range object.Spec.Containers {
		s := p.containerStatus(&object.Spec.Containers[index], waitingReason(initialized))
		s.Ready = mayBeReady && s.State.Running != nil
		containersReady = containersReady && s.Ready
		status.ContainerStatuses = append(status.ContainerStatuses, s)
	}
	for index := range object.Spec.EphemeralContainers {
		spec := corev1.Container(object.Spec.EphemeralContainers[index].EphemeralContainerCommon)
		status.EphemeralContainerStatuses = append(status.EphemeralContainerStatuses, p.containerStatus(&spec, "ContainerCreating"))
	}
	status.Phase = phase(object, status, p.removed)

	notReady := "ContainersNotReady"
	if status.Phase == corev1.PodSucceeded {
		notReady = "PodCompleted"
	}
	alive := status.Phase == corev1.PodPending || status.Phase == corev1.PodRunning
	ready := initialized && containersReady && alive
	setCondition(object, status, corev1.PodReadyToStartContainers, alive, "")
	setCondition(object, status, corev1.PodInitialized, initialized, "ContainersNotInitialized")
	setCondition(object, status, corev1.ContainersReady, ready, notReady)
	setCondition(object, status, corev1.PodReady, ready && gatesOpen(object), notReady)
	setCondition(object, status, corev1.PodScheduled, true, "")
	return status
}

func waitingReason(initialized bool) string {
	if initialized {
		return "ContainerCreating"
	}
	return "PodInitializing"
}

func (p *pod) containerStatus(spec *corev1.Container, waiting string) corev1.ContainerStatus {
	if c, found := p.containers[spec.Name]; found {
		return c.status(spec)
	}
	started := false
	return corev1.ContainerStatus{
		Name: spec.Name, Image: spec.Image, Started: &started,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: waiting}},
	}
}

// isSidecar tells whether an init container keeps running beside the others.
func isSidecar(spec *corev1.Container) bool {
	return spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// phase follows getPhase of pkg/kubelet/kubelet_pods.go.
func phase(object *corev1.Pod, status *corev1.PodStatus, killed bool) corev1.PodPhase {
	for index, s := range status.InitContainerStatuses {
		if killed && isSidecar(&object.Spec.InitContainers[index]) {
			// It ends with the pod, and its exit code means nothing.
			continue
		}
		failed := s.State.Terminated != nil && s.State.Terminated.ExitCode != 0
		if failed && (killed || object.Spec.RestartPolicy == corev1.RestartPolicyNever) {
			return corev1.PodFailed
		}
		if !s.Ready && !killed {
			return corev1.PodPending
		}
	}
	var running, waiting, stopped, failed int
	for _, s := range status.ContainerStatuses {
		switch {
		case s.State.Running != nil:
			running++
		case s.State.Terminated != nil:
			stopped++
			if s.State.Terminated.ExitCode != 0 {
				failed++
			}
		case s.LastTerminationState.Terminated != nil:
			stopped++
			failed++
		default:
			waiting++
		}
	}
	switch {
	case killed && failed == 0 && waiting == 0:
		return corev1.PodSucceeded
	case killed:
		return corev1.PodFailed
	case waiting > 0:
		return corev1.PodPending
	case running > 0, object.Spec.RestartPolicy == corev1.RestartPolicyAlways:
		return corev1.PodRunning
	case failed == 0:
		return corev1.PodSucceeded
	case object.Spec.RestartPolicy == corev1.RestartPolicyOnFailure:
		return corev1.PodRunning
	default:
		return corev1.PodFailed
	}
}

func gatesOpen(object *corev1.Pod) bool {
	for _, gate := range object.Spec.ReadinessGates {
		open := false
		for _, condition := range object.Status.Conditions {
			open = open || condition.Type == gate.ConditionType && condition.Status == corev1.ConditionTrue
		}
		if !open {
			return false
		}
	}
	return true
}

func setCondition(object *corev1.Pod, status *corev1.PodStatus, kind corev1.PodConditionType, value bool, reason string) {
	condition := corev1.PodCondition{
		Type: kind, Status: corev1.ConditionTrue, ObservedGeneration: object.Generation, LastTransitionTime: metav1.Now(),
	}
	if !value {
		condition.Status, condition.Reason = corev1.ConditionFalse, reason
	}
	for index, old := range status.Conditions {
		if old.Type == kind {
			if old.Status == condition.Status {
				condition.LastTransitionTime = old.LastTransitionTime
			}
			status.Conditions[index] = condition
			return
		}
	}
	status.Conditions = append(status.Conditions, condition)
}
