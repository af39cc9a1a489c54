package kubelet

import (
	"context"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/utils/ptr"
)

// The kubelet's own intervals: nodeLeaseDurationSeconds 40, renewed at a quarter of it, and nodeStatusReportFrequency 5m.
const (
	leaseDuration  = 40 * time.Second
	leaseInterval  = leaseDuration / 4
	statusInterval = 5 * time.Minute
)

// register creates the node, or brings the one of an earlier run up to date, and makes it ready.
func (k *Kubelet) register(ctx context.Context) error {
	labels := map[string]string{
		corev1.LabelHostname:   k.NodeName,
		corev1.LabelOSStable:   runtime.GOOS,
		corev1.LabelArchStable: runtime.GOARCH,
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: k.NodeName, Labels: labels},
		Status:     k.nodeStatus(),
	}
	_, err := k.Client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := k.reportStatus(ctx); err != nil {
		return err
	}
	// In a new cluster the namespace of the leases may not be there yet: the heartbeat tries again.
	if err := k.renewLease(ctx); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

func (k *Kubelet) reportStatus(ctx context.Context) error {
	nodes := k.Client.CoreV1().Nodes()
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := nodes.Get(ctx, k.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		status := k.nodeStatus()
		for index := range status.Conditions {
			condition := &status.Conditions[index]
			for _, old := range node.Status.Conditions {
				if old.Type == condition.Type && old.Status == condition.Status {
					condition.LastTransitionTime = old.LastTransitionTime
				}
			}
		}
		node.Status = status
		_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

func (k *Kubelet) nodeStatus() corev1.NodeStatus {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("16"),
		corev1.ResourceMemory:           resource.MustParse("64Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
		corev1.ResourcePods:             resource.MustParse("500"),
	}
	status := corev1.NodeStatus{
		Capacity:    capacity,
		Allocatable: capacity,
		Conditions: []corev1.NodeCondition{
			nodeCondition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
			nodeCondition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
			nodeCondition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
			nodeCondition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
		},
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: k.Address},
			{Type: corev1.NodeHostName, Address: k.NodeName},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: k.port}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion:          version.Get().GitVersion,
			ContainerRuntimeVersion: "stand-in://" + version.Get().GitVersion,
			OperatingSystem:         runtime.GOOS,
			Architecture:            runtime.GOARCH,
			OSImage:                 "kubelet stand-in",
			KernelVersion:           "unknown",
			MachineID:               k.NodeName,
			SystemUUID:              k.NodeName,
			BootID:                  k.NodeName,
		},
	}
	// With this the API server hands WebSocket upgrades through, as it does to a real kubelet of this version.
	if utilfeature.DefaultFeatureGate.Enabled(features.NodeDeclaredFeatures) &&
		utilfeature.DefaultFeatureGate.Enabled(features.ExtendWebSocketsToKubelet) {
		status.DeclaredFeatures = []string{string(features.ExtendWebSocketsToKubelet)}
	}
	return status
}

func nodeCondition(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
	now := metav1.Now()
	return corev1.NodeCondition{
		Type: kind, Status: status, Reason: reason, Message: "reported by the kubelet stand-in",
		LastHeartbeatTime: now, LastTransitionTime: now,
	}
}

// heartbeat renews the node's lease, and its status less often, until ctx is done.
func (k *Kubelet) heartbeat(ctx context.Context) {
	lease, status := time.NewTicker(leaseInterval), time.NewTicker(statusInterval)
	defer lease.Stop()
	defer status.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-lease.C:
			if err = k.renewLease(ctx); err == nil {
				err = k.answerDoubts(ctx)
			}
		case <-status.C:
			err = k.reportStatus(ctx)
		}
		if err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Heartbeat", "node", k.NodeName)
		}
	}
}

// answerDoubts reports the status where the controllers believe that the node is gone, as they do after the whole cluster has
// stood still for a while; until then nothing is scheduled.
func (k *Kubelet) answerDoubts(ctx context.Context) error {
	node, err := k.Client.CoreV1().Nodes().Get(ctx, k.NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return k.reportStatus(ctx)
		}
	}
	return nil
}

func (k *Kubelet) renewLease(ctx context.Context) error {
	leases := k.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := metav1.NowMicro()
	lease, err := leases.Get(ctx, k.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: k.NodeName},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity:       &k.NodeName,
				LeaseDurationSeconds: ptr.To(int32(leaseDuration.Seconds())),
				RenewTime:            &now,
			},
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}
