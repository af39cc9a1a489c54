package kubelet

import (
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"github.com/umbra-dev/umbra/tests/kube/internal/pki"
)

// environment builds a container's variables as makeEnvironmentVariables of the kubelet does, without those of services.
// resourceFieldRef and fileKeyRef are not supported: such variables are left out.
func (k *Kubelet) environment(object *corev1.Pod, spec *corev1.Container, ip, podDir string) (map[string]string, error) {
	home := filepath.Join(podDir, "containers", spec.Name)
	values := map[string]string{
		"PATH":                    os.Getenv("PATH"),
		"HOME":                    home,
		"TMPDIR":                  home,
		"HOSTNAME":                object.Name,
		"KUBERNETES_SERVICE_HOST": pki.ServiceAddress,
		"KUBERNETES_SERVICE_PORT": "443",
	}
	for _, source := range spec.EnvFrom {
		if err := k.addAll(values, object.Namespace, source); err != nil {
			return nil, err
		}
	}
	// Only variables of the container may be referred to, and only by later ones.
	defined := map[string]string{}
	for _, variable := range spec.Env {
		value, found := expansion.Expand(variable.Value, expansion.MappingFuncFor(defined, values)), true
		if variable.ValueFrom != nil {
			var err error
			if value, found, err = k.valueFrom(object, ip, variable.ValueFrom); err != nil {
				return nil, err
			}
		}
		if found {
			defined[variable.Name], values[variable.Name] = value, value
		}
	}
	return values, nil
}

func (k *Kubelet) addAll(values map[string]string, namespace string, source corev1.EnvFromSource) error {
	if reference := source.ConfigMapRef; reference != nil {
		data, err := k.configMap(namespace, reference.Name, reference.Optional)
		if err != nil {
			return err
		}
		for name, value := range data {
			values[source.Prefix+name] = value
		}
	}
	if reference := source.SecretRef; reference != nil {
		data, err := k.secret(namespace, reference.Name, reference.Optional)
		if err != nil {
			return err
		}
		for name, value := range data {
			values[source.Prefix+name] = value
		}
	}
	return nil
}

func (k *Kubelet) valueFrom(object *corev1.Pod, ip string, source *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case source.FieldRef != nil:
		value, err = k.field(object, ip, source.FieldRef.FieldPath)
		return value, true, err
	case source.ConfigMapKeyRef != nil:
		reference := source.ConfigMapKeyRef
		data, err := k.configMap(object.Namespace, reference.Name, reference.Optional)
		return key(data, reference.Key, reference.Optional, "configmap", reference.Name, err)
	case source.SecretKeyRef != nil:
		reference := source.SecretKeyRef
		data, err := k.secret(object.Namespace, reference.Name, reference.Optional)
		return key(data, reference.Key, reference.Optional, "secret", reference.Name, err)
	}
	return "", false, nil
}

func (k *Kubelet) field(object *corev1.Pod, ip, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return object.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return object.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return k.Address, nil
	case "status.podIP", "status.podIPs":
		return ip, nil
	}
	return fieldpath.ExtractFieldPathAsString(object, path)
}

func key(data map[string]string, key string, optional *bool, kind, name string, err error) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, found := data[key]
	if !found && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("couldn't find key %s in %s %s", key, kind, name)
	}
	return value, found, nil
}

func (k *Kubelet) configMap(namespace, name string, optional *bool) (map[string]string, error) {
	configMap, err := k.Client.CoreV1().ConfigMaps(namespace).Get(k.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return configMap.Data, nil
}

func (k *Kubelet) secret(namespace, name string, optional *bool) (map[string]string, error) {
	secret, err := k.Client.CoreV1().Secrets(namespace).Get(k.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data := make(map[string]string, len(secret.Data))
	for name, value := range secret.Data {
		data[name] = string(value)
	}
	return data, nil
}
